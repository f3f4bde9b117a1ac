"""``benchmark``: the protocol on Bias in Bios, or on the user's own table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from debias_ssae.exceptions import InputError


@click.command()
@click.argument("dataset", type=click.Choice(["bias-in-bios", "table"]), default="bias-in-bios")
@click.option(
    "--data", type=click.Path(dir_okay=False), help="Table with texts; without it the hub is asked."
)
@click.option("--text", default="text", show_default=True, help="Column of texts.")
@click.option("--target", default="profession", show_default=True, help="Column of the target.")
@click.option("--sensitive", default="gender", show_default=True, help="Column of the attribute.")
@click.option("--professions", default="professor,nurse", show_default=True, help="From the hub's data set.")
@click.option("--corpus", type=click.Path(dir_okay=False), help="Pool for retrieval and the general SAE.")
@click.option("--corpus-text", default="text", show_default=True, help="Column of texts in the corpus.")
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Directory for results.")
@click.option(
    "--cache", type=click.Path(file_okay=False), help="Keeps embeddings and SAEs; default OUT/cache."
)
@click.option("--config", type=click.Path(dir_okay=False), help="YAML of the protocol (BenchmarkConfig).")
@click.option("--seeds", type=int, help="Number of seeds.  [default: 5]")
@click.option(
    "--methods", help="Comma-separated; the linear erasers leace, inlp, ... are there for the asking."
)
@click.option("--setting", type=click.Choice(["confounded", "natural"]), help="Who trains the head.")
@click.option("--concept", help="Shipped concept, file, or none.  [default: gender]")
@click.option("--encoder", help="Hugging Face model.  [default: minilm]")
@click.option("--n-test", type=int, help="Test texts of a cell.  [default: 120]")
@click.option("--n-attribute", type=int, help="Texts of a cell in the attribute set.  [default: 120]")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def benchmark(
    dataset: str,
    data: str | None,
    corpus: str | None,
    out: str,
    cache: str | None,
    config: str | None,
    **options: Any,
) -> None:
    """Compare methods on Bias in Bios or on your own table.

    Writes results.json, predictions.parquet, config.yaml and report.html. A run that was cut off goes on
    where it was.
    """
    from debias_ssae.benchmark import run_benchmark, writable_directory
    from debias_ssae.config import BenchmarkConfig, load_config, make_config
    from debias_ssae.datasets import load_corpus, load_table, sha256_of

    names = ("seeds", "setting", "concept", "encoder", "n_test", "n_attribute")
    given = {name: options[name] for name in names if options[name] is not None}
    if given.get("concept") == "none":
        given["concept"] = None
    if options["methods"]:
        given["methods"] = tuple(options["methods"].split(","))
    settings = load_config(BenchmarkConfig, config, given) if config else make_config(BenchmarkConfig, given)
    if data is not None:
        columns = {options[role]: role for role in ("text", "target", "sensitive")}
        named = {role: options[role] for role in ("text", "target", "sensitive")}
        table = load_table(data, **named)[list(columns)].rename(columns=columns)
        source: dict[str, Any] = {"path": Path(data).name, "sha256": sha256_of(data)}
    elif dataset == "table":
        raise InputError("benchmark table needs --data")
    else:
        table, source = _from_hub(options["professions"])
    pool = None if corpus is None else load_corpus(corpus, column=options["corpus_text"])
    if corpus is not None:
        source |= {"corpus": Path(corpus).name, "corpus_sha256": sha256_of(corpus)}
    writable_directory(out)
    results = run_benchmark(
        table,
        settings,
        out,
        corpus=pool,
        data=source,
        cache_dir=cache or Path(out) / "cache",
        progress=not options["quiet"],
    )
    show(results, Path(out))


def show(results: dict[str, Any], out: Path, names: Mapping[str, str] | None = None) -> None:
    """Write the report and print the table and where things lie; ``names`` are other words for methods."""
    from rich.console import Console
    from rich.table import Table

    from debias_ssae.exceptions import MissingExtraError

    table = Table(
        title="Worst-group accuracy: mean and 95% interval over seeds; C by cross-validation", caption=_NOTE
    )
    for name in (
        "method",
        "regime",
        "head",
        "worst-group accuracy",
        "at C=0.1",
        "C",
        "accuracy",
        "leakage",
        "worst group",
    ):
        table.add_column(name, justify="left" if name in _TEXT else "right", no_wrap=True)
    for method, *cells in table_rows(results["summary"]):
        table.add_row((names or {}).get(method, method), *cells)
    Console(width=None if Console().is_terminal else 150).print(table)
    try:
        from debias_ssae.report import write_benchmark_report

        write_benchmark_report(results, out / "report.html")
        click.echo(f"Report:  {out / 'report.html'}")
    except MissingExtraError as error:
        click.echo(f"No report.html: {error}", err=True)
    click.echo(f"Results: {out / 'results.json'}")


_NOTE = "leakage: balanced accuracy of a linear attribute probe on the representation"
_TEXT = ("method", "regime", "head", "worst group")


def table_rows(summary: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of one line for each method, regime and head; the fixed C stands beside the chosen one."""
    keys = ("method", "regime", "head", "representation")
    fixed = {
        tuple(row[k] for k in keys): row["worst_group_accuracy"]
        for row in summary
        if row["C_rule"] == "fixed"
    }
    for row in summary:
        if row["C_rule"] != "cv":
            continue
        low, high = max(row["worst_group_accuracy_ci_low"], 0), min(row["worst_group_accuracy_ci_high"], 1)
        recentred = ", re-centred" if "re-centred" in row["representation"] else ""
        yield [
            row["method"],
            row["regime"],
            row["head"] + recentred,
            f"{row['worst_group_accuracy']:.3f} ({low:.3f} to {high:.3f})",
            f"{fixed[tuple(row[k] for k in keys)]:.3f}",
            f"{row['C']:.2g}",
            f"{row['accuracy']:.3f}",
            f"{row['leakage']:.3f}",
            row["worst_group"],
        ]


def _from_hub(professions: str) -> tuple[Any, dict[str, Any]]:
    from debias_ssae.datasets import load_bias_in_bios

    pair = tuple(professions.split(","))
    if len(pair) < 2:
        raise InputError(f"--professions is {professions!r}; expected at least two, as in professor,nurse")
    table = load_bias_in_bios(pair).rename(columns={"profession": "target", "gender": "sensitive"})
    return table, {"path": f"LabHC/bias_in_bios ({professions})", "sha256": None}
