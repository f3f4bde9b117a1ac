"""``latents``: look at what a debiaser removes, and change it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from debias_ssae.cli.checks import check_model
from debias_ssae.core.errors import InputError


@click.command()
@click.argument("model", type=click.Path(file_okay=False))
@click.option(
    "--data", type=click.Path(dir_okay=False), help="Table of texts: csv, csv.gz, jsonl or parquet."
)
@click.option("--text", default="text", show_default=True, help="Column of texts.")
@click.option("--target", help="Column of the target: shows each latent's cosine to a probe of it.")
@click.option("--sensitive", help="Column of the attribute: the same for the attribute.")
@click.option("--n", "n_more", default=40, show_default=True, help="Candidates beyond the removed latents.")
@click.option("--max-texts", default=2000, show_default=True, help="Texts to read, at most; drawn at random.")
@click.option(
    "--review", type=click.Path(dir_okay=False), help="An edited latents.yaml: write the model anew."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    help="The page (.html); with --review the new model's directory.",
)
def latents(model: str, out: str, review: str | None, **options: Any) -> None:
    """Show what each latent of MODEL does, or apply a review of it.

    Without --review: writes a page with a card for each removed latent and for the next candidates, and
    latents.yaml beside it, in which remove can be set to true or false. With --review: writes the model with
    that choice, without training; --data are then the training texts.
    """
    check_model(model)
    from debias_ssae.debiaser import SSAEDebiaser

    if review is None and options["data"] is None:
        raise InputError("--data is missing; give a table of texts to show the latents on")
    if review is None:
        goal = Path(out)
        if goal.suffix != ".html":
            raise InputError(f"--out is {out}; expected a name that ends in .html")
        _show(SSAEDebiaser.load(model), goal, **options)
    else:
        _apply(SSAEDebiaser.load(model), review, out, **options)


def _show(debiaser: Any, goal: Path, *, n_more: int, max_texts: int, **table: Any) -> None:
    from debias_ssae.benchmark import writable_directory
    from debias_ssae.review import candidates, write_choices
    from debias_ssae.review.latents_page import write_latents_page

    texts, y, z = _read(**table)
    file = goal.with_suffix(".yaml")
    writable_directory(goal.absolute().parent)
    shown = candidates(debiaser, texts, y=y, sensitive_features=z, n_more=n_more, max_texts=max_texts)
    about = {
        "model": debiaser.text_encoder_.language_model.name,
        "texts": f"{Path(table['data']).name}, {min(len(texts), max_texts):,} of {len(texts):,}",
        "found by": debiaser.intervention_.selection.scores.method.replace("_", " "),
        "SAE": ", ".join(part.sae.fingerprint()[:16] for part in debiaser.interventions_.values()),
        "debias-ssae": version("debias-ssae"),
    }
    write_latents_page(
        shown,
        goal,
        choices=file.name,
        values=debiaser.intervention_.selection.scores.values,
        provenance=about,
    )
    write_choices(debiaser, shown, file)
    click.echo(f"{len(shown)} latents, {sum(c.removed for c in shown)} of them removed: {goal}, {file}")


def _apply(debiaser: Any, review: str, out: str, *, n_more: int, max_texts: int, **table: Any) -> None:
    from debias_ssae.review import read_choices, with_latents

    choices = read_choices(review)
    texts, y, z = _read(**table) if table["data"] is not None else (None, None, None)
    new = with_latents(debiaser, choices, texts, y=y, sensitive_features=z)
    new.save(out)
    parts = new.interventions_.values()
    kept, added = (
        sum(len(p.record.get("review", {}).get(key, ())) for p in parts) for key in ("kept", "added")
    )
    n = sum(len(part.selection.ids) for part in parts)
    click.echo(f"{kept} latents are kept, {added} more removed; {n} in all. Model: {out}")


def _read(data: str, text: str, target: str | None, sensitive: str | None) -> tuple[list[str], Any, Any]:
    from debias_ssae.text import load_table

    table = load_table(data, text=text, target=target, sensitive=sensitive)
    y = None if target is None else table[target].to_numpy()
    return table[text].tolist(), y, None if sensitive is None else table[sensitive]
