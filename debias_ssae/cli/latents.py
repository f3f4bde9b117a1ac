"""``latents``: look at what a debiaser removes, and change it."""

from pathlib import Path
from typing import Any

import click

from debias_ssae.cli.checks import check_model
from debias_ssae.cli.options import FILE, FOLDER, needs, shared
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import check_writable, writable_directory, write_text
from debias_ssae.text import load_table


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--data", type=FILE, help="Table of texts: csv, csv.gz, jsonl or parquet.")
@shared("text")
@click.option("--target", help="Column of the target, to show how often each card fires in each class.")
@click.option(
    "--sensitive", help="Column of the attribute; needed if the output eraser was fitted on labels."
)
@click.option(
    "--n", "n_more", default=40, type=click.IntRange(0), help="Candidates beyond the removed latents."
)
@click.option(
    "--max-texts", default=2000, type=click.IntRange(1), help="Texts to read, at most; drawn at random."
)
@click.option("--choices", type=FILE, help="Edited choices, to write a new model.")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    help="The page (.html); with --choices the new model's directory.",
)
def latents(model: str, out: str, choices: str | None, **options: Any) -> None:
    """Show what each latent of MODEL does, or apply choices.

    Without --choices it writes a page with a card for each removed latent, ticked, and for the next candidates. A
    file of choices (.yaml) is written beside it; its ticks can be changed on the page or by hand. With --choices it
    writes the model that removes what is ticked, without training; --data must then name the training texts.
    """
    check_model(model)
    needs(text="data", target="data", sensitive="data")
    from debias_ssae.debiaser import SSAEDebiaser

    if choices is None and options["data"] is None:
        raise InputError("--data is missing; give a table of texts to show the latents on")
    if choices is None:
        goal = Path(out)
        if goal.suffix != ".html":
            raise InputError(f"--out is {out}; expected a name that ends in .html")
        check_writable(goal.absolute().parent)
        _show(SSAEDebiaser.load(model), goal, **options)
    else:
        _apply(SSAEDebiaser.load(model), choices, out, **options)


def _show(debiaser: Any, goal: Path, *, n_more: int, max_texts: int, **table: Any) -> None:
    from debias_ssae.review.page import removed_html
    from debias_ssae.review.removed import removed_cards, removed_choices
    from debias_ssae.selection.choices import check_nothing_lost

    texts, y, _ = _read(**table)
    cards = removed_cards(debiaser, texts, y=y, n_more=n_more, max_texts=max_texts)
    choices, file = removed_choices(debiaser, cards), goal.with_suffix(".yaml")
    about = {
        "model": debiaser.text_encoder_.language_model.name,
        "texts": f"{Path(table['data']).name}, {min(len(texts), max_texts):,} of {len(texts):,}",
        "SAE": ", ".join(sae.fingerprint()[:16] for sae in choices.saes.values()),
    }
    check_nothing_lost(file, choices)
    writable_directory(goal.absolute().parent)
    write_text(goal, removed_html(cards, choices, file.name, about))
    choices.save(file, with_saes=False)
    click.echo(f"{len(cards)} latents, {sum(c.ticked for c in cards)} of them removed: {goal}, {file}")


def _apply(debiaser: Any, file: str, out: str, *, n_more: int, max_texts: int, **table: Any) -> None:
    from debias_ssae.review.removed import with_choices
    from debias_ssae.selection.choices import Choices

    saes = {hookpoint: one.sae for hookpoint, one in debiaser.interventions_.items()}
    choices = Choices.load(file, saes)
    texts, y, z = _read(**table) if table["data"] is not None else (None, None, None)
    new = with_choices(debiaser, choices, texts, y=y, sensitive_features=z)
    new.save(out)
    before, after = (
        {(h, int(i)) for h, one in model.interventions_.items() for i in one.selection.ids}
        for model in (debiaser, new)
    )
    click.echo(
        f"{len(before - after)} latents stay in, {len(after - before)} more go; {len(after)} are removed in all. "
        f"Model: {out}"
    )


def _read(data: str, text: str, target: str | None, sensitive: str | None) -> tuple[list[str], Any, Any]:
    table = load_table(data, text=text, target=target, sensitive=sensitive)
    y = None if target is None else table[target].to_numpy()
    return table[text].tolist(), y, None if sensitive is None else table[sensitive]
