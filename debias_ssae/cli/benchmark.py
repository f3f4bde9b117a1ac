"""``benchmark``: the protocol on Bias in Bios, other shipped settings, or the user's own table."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from debias_ssae.cli.options import FILE, FOLDER, needs, read_corpus, shared
from debias_ssae.core.config import QUICK, BenchmarkConfig, load_config, merged, parse_overrides
from debias_ssae.core.errors import InputError, MissingExtraError
from debias_ssae.core.io import file_digest
from debias_ssae.text import load_bias_in_bios, load_table
from debias_ssae.text.concept import Concept
from debias_ssae.text.tables import demand, read_table

DATASETS: dict[str, dict[str, Any]] = {
    "bias-in-bios": {"text": "text", "target": "profession", "sensitive": "gender"},
    "wiki-bios": {
        "text": "text_wo_first_sentence",
        "target": "occupation",
        "sensitive": "gender",
        "professions": "athlete,politician",
        "n_test": 60,
        "n_attribute": 60,
    },
    "reviews": {"text": "text", "target": "label", "sensitive": "domain", "concept": "none"},
    "table": {"text": "text", "target": "profession", "sensitive": "gender"},
}
"""Columns of each data set, and what its size asks for."""
MAIN = (
    "erm,oracle,oracle_large,random_latents,scrub,token_mask,mean_diff,inlp,leace,leace_conditional,splince,"
    "counterfactual_subspace,counterfactual_direction,annotated_head,dfr,group_dro,exponentiated_gradient,gsae,ssae,"
    "ssae_default"
)
"""What README's table holds."""


@click.command()
@click.argument("dataset", type=click.Choice(list(DATASETS)), default="bias-in-bios")
@click.option("--data", type=FILE, help="Table with texts; without it bias-in-bios asks the hub.")
@click.option("--text", help="Column of texts.  [default: the data set's]")
@click.option("--target", help="Column of the target.  [default: the data set's]")
@click.option("--sensitive", help="Column of the attribute.  [default: the data set's]")
@click.option(
    "--professions",
    help="Targets to keep, or all.  [default: professor,nurse from the hub; athlete,politician of wiki-bios]",
)
@click.option(
    "--attribute-data",
    type=FILE,
    help="Texts with the attribute and no target, for the regime labelled_gap.",
)
@click.option("--corpus", type=FILE, help="Pool for retrieval and the general SAE.")
@click.option("--corpus-text", default="text", help="Column of texts in the corpus.")
@click.option("--out", required=True, type=FOLDER, help="Directory for results.")
@click.option("--seeds", type=int, help="Number of seeds.  [default: 5]")
@click.option("--jobs", type=int, help="Processes, one thread each; -1: one a core.")
@click.option("--methods", help="all, main (README's table), or names with commas.")
@click.option(
    "--setting",
    type=click.Choice(["confounded", "natural"]),
    help="The head learns from each class's majority cell, or from a plain sample.",
)
@click.option("--regime", multiple=True, help="Regimes: labelled, concept, ...; repeatable, or with commas.")
@click.option("--concept", help="Shipped concept, file, or none.  [default: gender]")
@click.option("--encoder", help="Hugging Face model.  [default: minilm]")
@click.option("--n-test", type=int, help="Test texts of a cell.  [default: 120]")
@click.option("--n-attribute", type=int, help="Texts of a cell in the group-annotated set.  [default: 120]")
@click.option("--max-head", type=int, help="Texts of a cell that train the head, at most.  [default: 2000]")
@click.option(
    "--quick", is_flag=True, help="A look in minutes (few texts and seeds, a small SAE), marked as such."
)
@shared("cache", "config", "sets", "device", "seed", "quiet")
def benchmark(dataset: str, data: str | None, out: str, **options: Any) -> None:
    """Compare methods on Bias in Bios, wiki-bios, reviews, or on your own table.

    Writes results.json, predictions.parquet, table.md, config.yaml and report.html. A run that was cut off continues
    when the same command is given again: what is finished is kept in the cache (by default OUT/cache).
    The settings of --config and --set are those of BenchmarkConfig; --seed is the first of --seeds.
    """
    needs(corpus_text="corpus")
    settings = _settings(dataset, options)
    table, source = _table(dataset, data, options)
    if dataset == "table" and options["concept"] is None and options["config"] is None:
        _check_words(settings.concept, table, options["sensitive"] or DATASETS[dataset]["sensitive"])
    corpus = options["corpus"]
    if corpus is not None:
        source |= {"corpus": _short(corpus), "corpus_sha256": file_digest(corpus)}
    attribute_data = _attribute_data(options, dataset)
    directory = Path(out)
    from debias_ssae.benchmark import run_benchmark  # only now: it imports torch

    results = run_benchmark(
        table,
        settings,
        directory,
        corpus=read_corpus(options),
        data=source,
        attribute_data=attribute_data,
        cache_dir=options["cache"],
        jobs=options["jobs"],
        command=_command(),
    )
    show(results, directory)


def show(results: dict[str, Any], out: Path, names: Mapping[str, str] | None = None) -> None:
    """Write the report and print the table and where things lie; ``names`` are other words for methods."""
    from rich.console import Console
    from rich.table import Table

    from debias_ssae.benchmark.page import write_benchmark_report
    from debias_ssae.benchmark.summary import skipped_lines, terminal_rows

    title = "Worst-group accuracy, retrained head"
    table = Table(title=f"QUICK LOOK, no measurement. {title}" if results.get("quick") else title)
    for name in ("method", "supervision", "before -> after", "95% interval"):
        table.add_column(name, no_wrap=name != "method", overflow="fold")
    for method, *cells in terminal_rows(results["summary"]):
        table.add_row((names or {}).get(method, method), *cells)
    console = Console()
    (console if console.is_terminal else Console(width=80)).print(table)
    for line in skipped_lines(results.get("skipped") or ()):
        click.echo(line)
    try:
        click.echo(f"Report:  {write_benchmark_report(results, out / 'report.html')}")
    except MissingExtraError as error:
        click.echo(f"No report.html: {error}", err=True)
    click.echo(f"Results: {out / 'results.json'}")


def _settings(dataset: str, options: dict[str, Any]) -> Any:
    """The protocol: the data set's needs, then --quick, then the file, then what was given by name."""
    names = ("seeds", "setting", "concept", "encoder", "n_test", "n_attribute", "max_head")
    given = {name: options[name] for name in names if options[name] is not None}
    unsaid = {"seed": 0, "device": "auto"}
    given |= {name: options[name] for name, default in unsaid.items() if options[name] != default}
    if options["methods"]:
        from debias_ssae.benchmark import METHODS

        known = {"all": ",".join(METHODS), "main": MAIN}
        named = known.get(options["methods"], options["methods"]).split(",")
        given["methods"] = tuple(dict.fromkeys(name.strip() for name in named))
    if options["regime"]:
        asked = [name.strip() for one in options["regime"] for name in one.split(",")]
        given["regimes"] = tuple(dict.fromkeys(["none", *asked]))
    given = merged(given, parse_overrides(options["sets"]))
    quick: dict[str, Any] = QUICK if options["quick"] else {}
    preset = {k: v for k, v in DATASETS[dataset].items() if k in ("n_test", "n_attribute", "concept")}
    base, given = _no_concept({**preset, **quick}), _no_concept(given)
    return load_config(BenchmarkConfig, options["config"], given, defaults=base)


def _no_concept(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "concept": None} if settings.get("concept") == "none" else settings


def _table(dataset: str, data: str | None, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Texts with columns text, target and sensitive, and where they are from."""
    professions = options["professions"] or DATASETS[dataset].get("professions")
    if data is None:
        if dataset != "bias-in-bios":
            raise InputError(f"benchmark {dataset} needs --data, a file with its texts")
        return _from_hub(professions or "professor,nurse")
    roles = {role: options[role] or DATASETS[dataset][role] for role in ("text", "target", "sensitive")}
    table = load_table(data, **roles, drop_empty=True)[list(roles.values())]
    table.columns = list(roles)
    if professions not in (None, "all"):
        wanted = professions.split(",")
        absent = sorted(set(wanted) - set(table["target"].astype(str)))
        if absent:
            there = sorted(set(table["target"].astype(str)))
            told = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
            raise InputError(f"{data} has no rows of {', '.join(absent)}; it has {told}")
        table = table[table["target"].astype(str).isin(wanted)].reset_index(drop=True)
    return table, {"path": _short(data), "sha256": file_digest(data)}


def _check_words(name: str, table: Any, column: str) -> None:
    """Refuse a concept that nobody asked for where its words are of another attribute."""
    from debias_ssae.benchmark.protocol import LEAST_ASSOCIATION, association

    known = table.dropna()
    found = association(Concept.load(name), known["text"].tolist(), known["sensitive"].to_numpy())
    if found < LEAST_ASSOCIATION:
        raise InputError(
            f"the words of the default concept {name!r} do not go with the values of {column!r} (Cramer's V "
            f"{found:.2f}); give --concept NAME or FILE for that attribute, or --concept none"
        )


def _attribute_data(options: dict[str, Any], dataset: str) -> Any:
    """Columns text and sensitive of --attribute-data; its columns are found whatever their case."""
    path = options["attribute_data"]
    if path is None:
        return None
    table = read_table(path)
    found = {}
    for role in ("text", "sensitive"):
        wanted = options[role] or (DATASETS[dataset][role] if role == "sensitive" else "text")
        same = [column for column in table.columns if str(column).casefold() == wanted.casefold()]
        demand(path, () if same else [wanted], list(table.columns))
        found[role] = table[same[0]]
    kept: Any = type(table)(found).dropna().reset_index(drop=True)
    return kept


def _from_hub(professions: str) -> tuple[Any, dict[str, Any]]:
    names = None if professions == "all" else tuple(professions.split(","))
    if names is not None and len(names) < 2:
        raise InputError(
            f"--professions is {professions!r}; expected at least two, as in professor,nurse, or all"
        )
    table = load_bias_in_bios(names).rename(columns={"profession": "target", "gender": "sensitive"})
    return table, {"path": f"LabHC/bias_in_bios ({professions})", "sha256": None}


def _command() -> str:
    """What was typed; of paths their last two names, for the rest is nobody's business."""
    words = (_short(word) if len(Path(word).parts) > 1 else word for word in sys.argv[1:])
    return shlex.join(["debias-ssae", *words])


def _short(path: str) -> str:
    """The file and its folder: many data sets are called data.parquet."""
    return "/".join(Path(path).absolute().parts[-2:])
