"""``fit`` and ``transform``: a debiaser between files."""

import shlex
from pathlib import Path
from typing import Any

import click

from debias_ssae.cli import checks
from debias_ssae.cli.options import FILE, FOLDER, load_debiaser, model_options, needs, read_corpus, shared
from debias_ssae.core.config import ROWS_PER_SHARD
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import check_writable
from debias_ssae.text import load_corpus, load_table, write_table
from debias_ssae.text.concept import Concept


@click.command()
@shared("data", "text")
@click.option(
    "--target", help="Column of the target; the attribute's effect is looked for inside each class."
)
@click.option("--sensitive", help="Column of the attribute to remove; empty values are allowed.")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    help="What is known of the attribute: a concept (such as gender), a concept file, or the choices of discover (its "
    "folder, or choices.yaml there). "
    "Repeatable: several attributes are removed together.",
)
@click.option("--annotated", type=FILE, help="Other texts whose attribute is known; they train nothing.")
@click.option("--annotated-text", default="text", help="Column of texts in --annotated.")
@click.option("--annotated-sensitive", help="Column of the attribute in --annotated.")
@click.option("--annotated-target", help="Column of the target in --annotated, if it has one.")
@click.option("--exclude", type=FILE, help="Texts that nothing may be learnt from, such as the test set.")
@click.option("--exclude-text", default="text", help="Column of texts in --exclude.")
@click.option("--out", required=True, type=FOLDER, help="Directory for the model.")
@click.option("--overwrite", is_flag=True, help="Replace a debiaser that --out holds.")
@shared("corpus", "corpus_text", "encoder", "hookpoint", "layer", "pooling")
@click.option("--n-latents", default="auto", help="How many latents at most; auto: as few as suffice.")
@click.option(
    "--alpha",
    default=1.0,
    type=click.FloatRange(0),
    help="Share of the latents' contribution that is removed.",
)
@click.option(
    "--output-eraser",
    default="auto",
    type=click.Choice(
        [
            "auto",
            "none",
            "counterfactual",
            "counterfactual_subspace",
            "mean_difference",
            "leace",
            "leace_overall",
            "displacement",
        ]
    ),
    help="Linear eraser of the output, after the edit; auto picks one, or that eraser alone, by cross-validation.",
)
@click.option("--sae", type=click.Path(), help="A general SAE to fine-tune.")
@shared("preset", "cache", "config", "sets", "device", "seed", "quiet")
def fit(data: str, text: str, target: str | None, sensitive: str | None, out: str, **options: Any) -> None:
    """Fit a debiaser on a table of texts and save it.

    Give one of --sensitive (labels of these texts; any number of values), --annotated (labels of other texts), or
    --attribute (words or choices, no labels). The model is a directory of safetensors and JSON.
    """
    needs(annotated_sensitive="annotated", annotated_target="annotated", annotated_text="annotated")
    needs(exclude_text="exclude", corpus_text="corpus")
    _check_supervision(sensitive, options)
    passed = model_options(options)
    table = load_table(data, text=text, target=target, sensitive=sensitive)
    n_latents = options["n_latents"]
    if n_latents != "auto" and not (n_latents.isascii() and n_latents.isdigit()):
        raise InputError(f'--n-latents is {n_latents!r}; expected "auto" or a whole number')
    attribute = _attribute(options)
    exclude = options["exclude"]
    excluded = None if exclude is None else load_corpus(exclude, column=options["exclude_text"])
    corpus = read_corpus(options)
    check_writable(Path(out).absolute().parent)

    from debias_ssae.debiaser import SSAEDebiaser, check_out  # only now: it imports torch

    check_out(Path(out), overwrite=options["overwrite"])
    debiaser = SSAEDebiaser(
        **passed,
        attribute=attribute,
        corpus=corpus,
        n_latents=n_latents if n_latents == "auto" else int(n_latents),
        alpha=options["alpha"],
        output_eraser=None if options["output_eraser"] == "none" else options["output_eraser"],
    )
    labels = None if sensitive is None else table[sensitive]
    y = None if target is None else table[target].to_numpy()
    debiaser.fit(table[text].tolist(), y, sensitive_features=labels, exclude=excluded)
    debiaser.save(out, overwrite=options["overwrite"])
    click.echo(debiaser.summary())
    click.echo(f"Model: {out}")
    if not debiaser.edits and debiaser.output_eraser_ is None:
        click.echo("Nothing is removed: this model gives what its encoder gives.")
        return
    if target is not None:
        tables = ["--train", data, "--data", "TEST.csv", "--text", text, "--target", target]
        named = ["--sensitive", sensitive or "COLUMN", "--out", "audit.html"]
        click.echo(f"Next:  debias-ssae evaluate {shlex.join(['plain', out, *tables, *named])}")
    given = shlex.join([out, "--data", data, "--text", text, "--out", "X.parquet"])
    click.echo(f"{'Then' if target is not None else 'Next'}:  debias-ssae transform {given}")


def _check_supervision(sensitive: str | None, options: dict[str, Any]) -> None:
    """Refuse what is not said, or said twice, before anything heavy is imported."""
    known = {
        "--sensitive": sensitive,
        "--annotated": options["annotated"],
        "--attribute": options["attributes"],
    }
    given = [name for name, value in known.items() if value]
    if not given:
        raise InputError(
            "nothing says what to remove; give --sensitive COLUMN, --annotated FILE or --attribute (gender, a concept "
            "file, choices.yaml); debias-ssae discover finds a shortcut that nobody named"
        )
    labels_follow = given == ["--sensitive", "--attribute"] and options["output_eraser"] in (
        "mean_difference",
        "leace",
        "leace_overall",
    )
    if len(given) > 1 and not labels_follow:
        raise InputError(f"{' and '.join(given)} were given, but only one of them would be used; give one")
    if options["annotated"] and not options["annotated_sensitive"]:
        raise InputError("--annotated needs --annotated-sensitive, the column of the attribute")


def _attribute(options: dict[str, Any]) -> Any:
    """What ``attribute=`` is to be; None where labels come to fit."""
    if options["annotated"]:
        from debias_ssae.selection.attribute import AnnotatedTexts

        text, sensitive, target = (options[f"annotated_{name}"] for name in ("text", "sensitive", "target"))
        table = load_table(options["annotated"], text=text, sensitive=sensitive, target=target)
        y = None if target is None else table[target].to_numpy()
        return AnnotatedTexts(table[text].tolist(), table[sensitive], y)
    found = [_words_or_choices(name) for name in options["attributes"]]
    return found[0] if len(found) == 1 else found or None


def _words_or_choices(name: str) -> Any:
    if not Path(name).exists():
        return Concept.load(name)
    from debias_ssae.selection.attribute import read_attribute  # only now: it imports torch

    return read_attribute(name)


@click.command()
@click.argument("model", type=FOLDER)
@click.option(
    "--data",
    required=True,
    help="Table (csv, tsv, jsonl or parquet, also .gz), a folder or pattern of such, or a hub data set.",
)
@click.option("--text", default="text", help="Column of texts.")
@click.option("--split", default="train", help="The split of a hub data set.")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    help="Parquet or csv file of representations, or a folder, which is filled shard by shard.",
)
@shared("ids")
@click.option(
    "--format",
    "form",
    default="parquet",
    type=click.Choice(["parquet", "csv", "npy"]),
    help="File format of the shards in a folder.",
)
@click.option(
    "--rows-per-shard",
    default=ROWS_PER_SHARD,
    type=click.IntRange(min=1),
    help="Texts in a shard, which are in memory together.",
)
@shared("trust", "cache", "device", "quiet")
def transform(model: str, data: str, text: str, out: str, ids: tuple[str, ...], **options: Any) -> None:
    """Write the debiased representations of a table of texts.

    Only the text column and those of --id are read: the attribute is never needed. The output has a row for each
    text, in the table's order, and a column for each dimension. If --out is a folder, memory use does not grow with
    the number of texts. Run the command again to continue after an interruption, or under torchrun to share the work.
    """
    goal, loading = Path(out), {name: options[name] for name in ("device", "trust_remote_code")}
    whole = goal.suffix in (".parquet", ".csv") and not goal.is_dir()
    if not whole and goal.suffix and not goal.is_dir():
        raise InputError(f"--out is {out}; expected a name that ends in .parquet or .csv, or a folder's")
    checks.check_kept([goal], [data])
    checks.check_model(model)
    checks.check_parent(goal, "--out")
    if whole:
        table = load_table(data, text=text, as_written=ids)
        checks.check_columns(table, data, "--id", ids)
    from debias_ssae.debiaser import transform_to_shards

    debiaser = load_debiaser(model, cache_dir=options["cache"], **loading)
    if not whole:
        named = {name: options[name] for name in ("split", "form", "rows_per_shard")}
        found = transform_to_shards(debiaser, data, goal, text=text, ids=ids, **named)
        click.echo(f"{found['n_texts']} texts: {goal / 'data'}" if found else "other processes are at work")
        return
    frame = debiaser.set_output(transform="pandas").transform(table[text].tolist())
    n_dimensions = frame.shape[1]
    frame = checks.beside_ids(table, ids, frame)
    write_table(frame, goal)
    click.echo(f"{len(frame)} texts, {n_dimensions} columns: {out}")
