"""Texts one by one from files and hub data sets that need not fit in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debias_ssae.exceptions import InputError

_BUILDERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def stream_texts(source: str | Path, *, column: str = "text", split: str = "train") -> Iterator[Any]:
    """Yield the texts of ``source``: a .txt file (one text a line), a table, or a hub data set.

    Tables (csv, jsonl, parquet, also .gz) and hub data sets stream through ``datasets``. A missing value is
    yielded as None. Bytes that are no UTF-8 become U+FFFD in a .txt file. Raises InputError for an unreadable
    source or a missing column.
    """
    path = Path(source)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if path.is_file() and suffix == ".txt":
        yield from _lines(path)
        return
    if path.exists() and suffix not in _BUILDERS:
        raise InputError(
            f"Cannot tell what {path} holds: give .txt, {', '.join(_BUILDERS)} or a hub data set"
        )
    if not path.exists() and suffix in {*_BUILDERS, ".txt"}:
        raise InputError(f"There is no file {path}")
    builder = _BUILDERS.get(suffix) if path.exists() else None
    if builder == "csv":
        yield from _csv(path, column, "\t" if suffix == ".tsv" else ",")
    else:
        yield from _stream(str(source), builder, column, split)


def _lines(path: Path) -> Iterator[str]:
    import gzip

    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _csv(path: Path, column: str, separator: str) -> Iterator[Any]:
    import pandas as pd

    options: Any = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding_errors": "replace"}
    try:
        with pd.read_csv(path, chunksize=4096, na_values=[""], **options) as reader:
            for piece in reader:
                if column not in piece.columns:
                    raise InputError(
                        f"The corpus {path} has no column {column!r}: it has {', '.join(piece.columns)}"
                    )
                yield from (text if isinstance(text, str) else None for text in piece[column])
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot read the corpus {path}: {' '.join(str(error).split())[:200]}") from error


def _stream(source: str, builder: str | None, column: str, split: str) -> Iterator[Any]:
    import datasets

    try:
        if builder is None:
            data: Any = datasets.load_dataset(source, split=split, streaming=True)
        else:
            data = datasets.load_dataset(builder, data_files=source, split="train", streaming=True)
        rows = iter(data)
        first = next(rows, None)
    except Exception as error:  # datasets raises its readers' own errors, of any kind
        raise InputError(f"Cannot read the corpus {source}: {' '.join(str(error).split())[:200]}") from error
    if first is None:
        return
    if column not in first:
        raise InputError(f"The corpus {source} has no column {column!r}: it has {', '.join(first)}")
    yield first[column]
    for row in rows:
        yield row[column]
