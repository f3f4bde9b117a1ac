"""Texts one by one from files, folders of files and hub data sets that need not fit in memory or on the disk."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from debias_ssae.core.errors import InputError

_BUILDERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_CSV: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "encoding_errors": "replace"}
_REMOTE = re.compile(r"[a-z0-9]+://")


def stream_texts(
    source: str | Path,
    *,
    column: str = "text",
    split: str = "train",
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Any]:
    """Yield the texts of ``source``: a .txt file (one text a line), a table, many tables, or a hub data set.

    Tables (csv, jsonl, parquet, also .gz) and hub data sets stream through ``datasets``; many tables are a
    folder of one kind of them, a pattern (``part-*.parquet``) or an address (``https://...``), in the order of
    their names. A missing value is yielded as None. Bytes that are no UTF-8 become U+FFFD in a .txt file.

    ``limit`` takes the first texts only. With ``world_size`` above 1 only the share of process ``rank`` is
    yielded: whole files where their number is a multiple of ``world_size``, so that each process reads its own
    only, else every ``world_size``-th text (``datasets.distributed.split_dataset_by_node``). Raises InputError
    for an unreadable source or a missing column.
    """
    if limit is not None:
        limit = limit // world_size + (rank < limit % world_size)
    if is_one_file(source):
        texts = _from_file(Path(source), column)
        yield from islice(islice(texts, rank, None, world_size), limit)
        return
    yield from islice(_stream(*_parts(str(source)), column, split, rank, world_size), limit)


def is_one_file(source: str | Path) -> bool:
    """Return whether ``source`` is or names a single local file, not many and no hub data set."""
    path = Path(source)
    return path.is_file() or (
        not path.exists()
        and not _is_pattern(str(source))
        and not _REMOTE.match(str(source))
        and _suffix(path) in {*_BUILDERS, ".txt"}
    )


def _from_file(path: Path, column: str) -> Iterator[Any]:
    suffix = _suffix(path)
    if not path.exists():
        raise InputError(f"There is no file {path}")
    if suffix == ".txt":
        yield from _lines(path)
    elif suffix not in _BUILDERS:
        raise InputError(
            f"Cannot tell what {path} holds: give .txt, {', '.join(_BUILDERS)} or a hub data set"
        )
    elif _BUILDERS[suffix] == "csv":
        yield from _csv(path, column, "\t" if suffix == ".tsv" else ",")
    else:
        yield from _stream(str(path), _BUILDERS[suffix], [str(path)], column, "train", 0, 1)


def _parts(source: str) -> tuple[str, str | None, list[str]]:
    """Return the source, the builder that reads it (None: a hub data set) and its files."""
    path = Path(source)
    if path.is_dir():
        files = sorted(str(p) for p in path.iterdir() if _suffix(p) in _BUILDERS and p.is_file())
        nothing = f"{path} holds no {', '.join(_BUILDERS)} file"
    elif _REMOTE.match(source):
        files, nothing = [source], ""
    elif _is_pattern(source):
        files = sorted(str(p) for p in Path(path.anchor or ".").glob(source.removeprefix(path.anchor)))
        nothing = f"No file matches {source}"
    else:
        return source, None, []
    kinds = {_BUILDERS.get(_suffix(Path(file))) for file in files}
    if not files:
        raise InputError(nothing)
    if len(kinds) > 1 or None in kinds:
        raise InputError(f"{source} must be files of one kind, of {', '.join(_BUILDERS)}")
    return source, kinds.pop(), files


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _is_pattern(source: str) -> bool:
    return any(sign in source for sign in "*?[")


def _lines(path: Path) -> Iterator[str]:
    import gzip

    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _csv(path: Path, column: str, separator: str) -> Iterator[Any]:
    import pandas as pd

    try:
        with pd.read_csv(path, chunksize=4096, sep=separator, dtype=str, **_CSV) as reader:
            for piece in reader:
                if column not in piece.columns:
                    raise InputError(_no_column(path, column, list(piece.columns)))
                yield from (text if isinstance(text, str) else None for text in piece[column])
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot read the corpus {path}: {' '.join(str(error).split())[:200]}") from error


def _stream(
    source: str, builder: str | None, files: list[str], column: str, split: str, rank: int, world_size: int
) -> Iterator[Any]:
    import datasets
    from datasets.distributed import split_dataset_by_node

    try:
        if builder is None:
            data: Any = datasets.load_dataset(source, split=split, streaming=True)
        else:
            options = _CSV | {"sep": "\t" if ".tsv" in files[0] else ","} if builder == "csv" else {}
            data = datasets.load_dataset(builder, data_files=files, split="train", streaming=True, **options)
        if data.column_names is not None and column in data.column_names:
            data = data.select_columns([column])
        if world_size > 1:
            data = split_dataset_by_node(data, rank=rank, world_size=world_size)
        for row in data:
            if column not in row:
                raise InputError(_no_column(source, column, list(row)))
            yield row[column]
    except InputError:
        raise
    except Exception as error:  # datasets raises its readers' own errors, of any kind
        raise InputError(f"Cannot read the corpus {source}: {' '.join(str(error).split())[:200]}") from error


def _no_column(source: str | Path, column: str, there: list[str]) -> str:
    return (
        f"The corpus {source} has no column {column!r}: name one of {', '.join(there)} with --text (column=)"
    )
