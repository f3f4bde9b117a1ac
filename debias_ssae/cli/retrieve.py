"""``debias-ssae retrieve``: index a corpus, look into it, select a subdomain."""

from itertools import chain
from pathlib import Path
from typing import Any

import click
import pandas as pd

from debias_ssae.cli.checks import check_kept, check_parent
from debias_ssae.cli.options import needs, shared
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import MANIFEST, write_json
from debias_ssae.text import write_table
from debias_ssae.text.tables import stream_texts

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def retrieve() -> None:
    """Find the subdomain of a corpus that matters."""


@retrieve.command()
@click.option("--corpus", required=True, help="A .txt, csv, jsonl or parquet file, or a hub data set.")
@shared("text", "quiet")
@click.option("--out", required=True, type=_FOLDER, help="The index's folder; one that is there grows.")
@click.option("--embedder", help="A sentence-transformers model [default: minilm, or the index's].")
@click.option(
    "--max-length", type=click.IntRange(min=3), help="Tokens a text [default: 128, or the index's]."
)
def index(corpus: str, text: str, out: Path, max_length: int | None, **options: Any) -> None:
    """Add a corpus to an index on disk; after an interruption, the same command continues."""
    from debias_ssae.retrieval import CorpusIndex

    texts = stream_texts(corpus, column=text)
    first = next(texts, None)  # a corpus that cannot be read leaves no folder behind
    embedder = options["embedder"] or (None if (out / MANIFEST).exists() else "minilm")
    corpus_index = CorpusIndex(out, embedder=embedder, max_length=max_length)
    added = corpus_index.add(chain([first], texts))
    click.echo(f"{out}: {added} texts added, {len(corpus_index)} in all")


@retrieve.command()
@click.argument("directory", type=_FOLDER)
@click.option("--query", help="What to look for.")
@click.option("--seed-texts", help="A file of texts; their mean vector is the query.")
@click.option("--text", "column", default="text", help="The column of the seed texts.")
@click.option("--n", default=10, type=click.IntRange(min=1))
def query(directory: Path, query: str | None, seed_texts: str | None, column: str, n: int) -> None:
    """Print the texts of an index that are nearest to a query or to seeds."""
    needs(column="seed_texts")
    from debias_ssae.retrieval import CorpusIndex

    for text, score in CorpusIndex(directory).nearest(_seeds(query, seed_texts, column), n):
        click.echo(f"{score:.3f}  {' '.join(text.split())[:160]}")


@retrieve.command()
@click.option("--corpus", help="A .txt, csv, jsonl or parquet file, or a hub data set.")
@click.option("--index", "directory", type=_FOLDER, help="An index instead of a corpus.")
@click.option("--text", "column", default="text", help="The texts' column in all tables.")
@click.option("--seed-texts", help="A file of seed texts.")
@click.option("--query", help="A query in place of seed texts.")
@click.option("--held-out", help="A file of texts that must not be retrieved.")
@click.option("--n", "n_texts", default=20_000, type=click.IntRange(min=1))
@click.option("--method", default="dense", type=click.Choice(["dense", "bm25", "hybrid"]))
@click.option(
    "--near-duplicate",
    default=0.95,
    type=click.FloatRange(0, 1, min_open=True),
    help="Cosine above which texts are one.",
)
@click.option("--embedder", default="minilm")
@click.option("--cache-dir", type=_FOLDER, help="Where vectors are kept for later runs.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A parquet file.")
@shared("seed", "quiet")
def select(out: Path, **options: Any) -> None:
    """Write the texts nearest to the seeds, and a report beside them (.json)."""
    from debias_ssae.retrieval import CorpusIndex, retrieve

    if out.suffix != ".parquet":
        raise InputError(f"--out is {out}; expected a name that ends in .parquet")
    check_parent(out, "--out")
    check_kept(
        [out, out.with_suffix(".json")], [options[name] for name in ("corpus", "seed_texts", "held_out")]
    )
    if (options["corpus"] is None) == (options["directory"] is None):
        raise InputError("Give either --corpus or --index")
    column = options["column"]
    seeds = _seeds(options["query"], options["seed_texts"], column)
    told = {name: options[name] for name in ("n_texts", "method", "near_duplicate", "embedder", "cache_dir")}
    directory, corpus = options["directory"], options["corpus"]
    texts = _texts(corpus, column) if directory is None else CorpusIndex(directory)
    avoid = [] if options["held_out"] is None else _texts(options["held_out"], column)
    found = retrieve(seeds, texts, held_out=avoid, random_state=options["seed"], **told)
    table = pd.DataFrame({"text": found.texts, "score": found.scores, "corpus_id": found.corpus_ids})
    write_table(table, out)
    write_json(out.with_suffix(".json"), found.report)
    for name, value in found.report.items():
        if not isinstance(value, dict | list):
            click.echo(f"{name}: {value}")
    click.echo(f"{out} and {out.with_suffix('.json')} written")


def _seeds(query: str | None, seed_texts: str | None, column: str) -> list[str]:
    if (query is None) == (seed_texts is None):
        raise InputError("Give either --query or --seed-texts")
    return [query] if query is not None else _texts(str(seed_texts), column)


def _texts(source: str, column: str) -> list[str]:
    return [text or "" for text in stream_texts(source, column=column)]
