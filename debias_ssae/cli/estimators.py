"""``fit`` and ``transform``: a debiaser between files."""

from pathlib import Path
from typing import Any

import click

from debias_ssae.cli import SEED
from debias_ssae.cli.checks import check_columns, check_model, check_parent
from debias_ssae.core.errors import InputError


@click.command()
@click.option(
    "--data", required=True, type=click.Path(dir_okay=False), help="Table: csv, csv.gz, jsonl or parquet."
)
@click.option("--text", default="text", show_default=True, help="Column of texts.")
@click.option(
    "--target", help="Column of the target; the attribute's effect is looked for inside each class."
)
@click.option("--sensitive", help="Column of the attribute to remove; empty values are allowed.")
@click.option(
    "--concept", help='Instead of --sensitive: "gender", or a file of word pairs. No labels are needed.'
)
@click.option("--corpus", type=click.Path(dir_okay=False), help="Texts to retrieve the subdomain from.")
@click.option("--corpus-text", default="text", show_default=True, help="Column of texts in the corpus.")
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Directory for the model.")
@click.option("--encoder", default="minilm", show_default=True, help="Hugging Face model, or minilm.")
@click.option(
    "--hookpoint",
    default="embeddings",
    show_default=True,
    help="Where the model is edited: one, several with commas, or auto (trains three SAEs and measures).",
)
@click.option("--layer", default="final", show_default=True, help="Hookpoint whose rows are pooled.")
@click.option(
    "--pooling", default="mean", show_default=True, type=click.Choice(["mean", "cls", "last", "max"])
)
@click.option(
    "--edit",
    default="remove",
    show_default=True,
    type=click.Choice(["remove", "keep"]),
    help="Remove latents of the attribute, or keep those of the target alone (labels, --hookpoint final).",
)
@click.option(
    "--n-latents",
    default="auto",
    show_default=True,
    help="How many latents, at most; auto: as few as suffice.",
)
@click.option("--alpha", default=1.0, show_default=True, help="Share of their writing that is removed.")
@click.option(
    "--residual",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "none", "counterfactual", "mean_difference", "leace"]),
    help="Linear eraser of the output, after the edit; auto: counterfactual with --concept, else mean_difference.",
)
@click.option("--sae", type=click.Path(), help="A general SAE to fine-tune.")
@click.option("--cache", type=click.Path(file_okay=False), help="Directory that keeps embeddings and SAEs.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="YAML of further settings, e.g. 'd_sae: 4096' (docs/debiaser.md).",
)
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--quiet", is_flag=True, help="No progress bars.")
def fit(data: str, text: str, target: str | None, sensitive: str | None, out: str, **options: Any) -> None:
    """Fit a debiaser on a table of texts and save it.

    Give --sensitive (labels; any number of values), or --concept (no labels). The model is a directory of
    safetensors and JSON.
    """
    if sensitive is None and options["concept"] is None:
        raise InputError(
            "neither --sensitive nor --concept was given, so there is nothing to remove; give one"
        )
    labels_used = options["concept"] is None or options["residual"] in ("mean_difference", "leace")
    if sensitive is not None and not labels_used:
        raise InputError(
            "--sensitive and --concept were both given, but only one of them would be used; give one"
        )
    from debias_ssae.benchmark import writable_directory
    from debias_ssae.core.config import DebiasConfig, load_config
    from debias_ssae.debiaser import SSAEDebiaser, check_goal
    from debias_ssae.text import load_corpus, load_table

    table = load_table(data, text=text, target=target, sensitive=sensitive)
    n_latents, corpus, config = options["n_latents"], options["corpus"], options["config"]
    if n_latents != "auto" and not n_latents.isdigit():
        raise InputError(f'--n-latents is {n_latents!r}; expected "auto" or a whole number')
    writable_directory(Path(out).absolute().parent)
    check_goal(Path(out))
    debiaser = SSAEDebiaser(
        encoder=options["encoder"],
        corpus=None if corpus is None else load_corpus(corpus, column=options["corpus_text"]),
        sae=options["sae"],
        concept=options["concept"],
        hookpoint=options["hookpoint"].split(",") if "," in options["hookpoint"] else options["hookpoint"],
        layer=options["layer"],
        pooling=options["pooling"],
        edit=options["edit"],
        n_latents=n_latents if n_latents == "auto" else int(n_latents),
        alpha=options["alpha"],
        residual=None if options["residual"] == "none" else options["residual"],
        cache_dir=options["cache"],
        config=None if config is None else load_config(DebiasConfig, config),
        random_state=options["seed"],
        verbose=not options["quiet"],
    )
    labels = None if sensitive is None else table[sensitive]
    y = None if target is None else table[target].to_numpy()
    debiaser.fit(table[text].tolist(), y, sensitive_features=labels)
    debiaser.save(out)
    for hookpoint, part in debiaser.interventions_.items():
        done = "kept" if options["edit"] == "keep" else "removed"
        click.echo(f"{len(part.latents)} of {part.sae.cfg.d_sae} latents are {done} at {hookpoint}.")
    click.echo(f"Model: {out}")


@click.command()
@click.argument("model", type=click.Path(file_okay=False))
@click.option(
    "--data", required=True, type=click.Path(dir_okay=False), help="Table: csv, csv.gz, jsonl or parquet."
)
@click.option("--text", default="text", show_default=True, help="Column of texts.")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False), help="Parquet or csv of representations."
)
@click.option(
    "--id",
    "ids",
    multiple=True,
    help="Column to copy into OUT, before the dimensions. Repeatable. In csv, text that a spreadsheet would run as a"
    " formula (begins with = + - @, tab, line break) gets a quote (') before it.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def transform(model: str, data: str, text: str, out: str, ids: tuple[str, ...], quiet: bool) -> None:
    """Write the debiased representations of a table of texts.

    Only the text column is read, and those of --id: the attribute is never needed. One row a text, in the
    table's order, one column a dimension.
    """
    check_model(model)
    goal = Path(out)
    if goal.suffix not in (".parquet", ".csv"):
        raise InputError(f"--out is {out}; expected a name that ends in .parquet or .csv")
    if goal.exists() and Path(data).exists() and goal.samefile(data):
        raise InputError(f"--out is the table {data} itself, which would be lost; give another name")
    check_parent(goal, "--out")
    from debias_ssae.text import load_table, write_table

    table = load_table(data, text=text, as_written=ids)
    check_columns(table, data, "--id", ids)
    from debias_ssae.debiaser import SSAEDebiaser

    debiaser = SSAEDebiaser.load(model)
    if debiaser.encoder is None:
        raise InputError(f"{model} was fitted on a matrix and reads no texts; use its transform in Python")
    debiaser.verbose = debiaser.encoder_.verbose = not quiet
    frame = debiaser.set_output(transform="pandas").transform(table[text].tolist())
    n_dimensions = frame.shape[1]
    frame = table[list(ids)].join(frame.set_axis(table.index)) if ids else frame
    write_table(frame, goal)
    click.echo(f"{len(frame)} texts, {n_dimensions} columns: {out}")
