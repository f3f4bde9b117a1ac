"""Tables and corpora from files; whatever is wrong with one is said in one line, before any work starts."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from debias_ssae.core.errors import InputError

logger = logging.getLogger(__name__)


def _read_jsonl(path: Path, **kwargs: Any) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype=False, **kwargs)


_MISSING = ("", "NA", "NaN", "nan", "<NA>")
"""What a cell of a csv file without a value holds; None and null may be values: of a religion, of a class."""


def _read_csv(path: Path, **kwargs: Any) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=list(_MISSING), **kwargs)


_READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv.gz": _read_csv,
    ".csv": _read_csv,
    ".jsonl.gz": _read_jsonl,
    ".jsonl": _read_jsonl,
}


def load_table(
    path: str | Path,
    *,
    text: str,
    target: str | None = None,
    sensitive: str | None = None,
    drop_empty: bool = False,
) -> pd.DataFrame:
    """Read a csv, csv.gz, jsonl, jsonl.gz or parquet file and check the named columns.

    Returns every column of the file. Raises InputError for an unreadable file, an empty table, a missing
    column (the message lists those there are), texts that are not strings or are empty (``drop_empty`` leaves
    rows without a text out and warns in the log), and missing values of the target. The attribute may have
    missing values: such rows are unlabelled.
    """
    path = Path(path)
    table = read_table(path)
    if table.empty:
        raise InputError(f"{path} holds no rows")
    roles = {"text": text, "target": target, "sensitive": sensitive}
    named = {role: column for role, column in roles.items() if column is not None}
    for role, column in named.items():
        if column not in table.columns:
            raise InputError(
                f"{path} has no column {column!r} for the {role}; it has {', '.join(map(str, table.columns))}"
            )
    if len(set(named.values())) < len(named):
        raise InputError(f"The text, target and sensitive columns must differ, got {named}")
    if drop_empty:
        table = _with_text(table, text, path)
    _check_texts(table[text], f"{path}, column {text!r}")
    if target is not None:
        missing = table[target].isna()
        if missing.any():
            raise InputError(
                f"{path}, column {target!r}: {int(missing.sum())} of {len(table)} targets are missing, the "
                f"first in row {_first(missing)}; drop those rows or fill them"
            )
    if sensitive is not None and table[sensitive].isna().all():
        raise InputError(f"{path}, column {sensitive!r}: every value of the attribute is missing")
    return table


def load_corpus(path: str | Path, *, column: str = "text") -> list[str]:
    """Read a corpus: one text a row of a parquet, csv or jsonl file, or one a line of a .txt file; .gz too.

    Empty and missing texts are left out. Raises InputError for an unreadable or empty corpus.
    """
    path = Path(path)
    if path.name.endswith((".txt", ".txt.gz")):
        texts = _read_lines(path)
    else:
        table = read_table(path, columns=column)
        if column not in table.columns:
            raise InputError(f"{path} has no column {column!r}; it has {', '.join(map(str, table.columns))}")
        texts = [text for text in table[column].tolist() if isinstance(text, str)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{path} holds no texts")
    return texts


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes. Raises InputError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}") from error


def read_table(path: str | Path, columns: str | None = None) -> pd.DataFrame:
    """Read a csv, csv.gz, jsonl, jsonl.gz or parquet file, of parquet only the column ``columns`` where given.

    Raises InputError for an unknown ending, a file that is not there or cannot be read, and an empty one.
    """
    path = Path(path)
    ending = next((known for known in _READERS if path.name.lower().endswith(known)), None)
    if ending is None:
        raise InputError(f"{path}: unknown kind of file; known endings: {', '.join([*_READERS, '.txt'])}")
    if not path.is_file():
        raise InputError(f"{path} is a folder, not a file" if path.is_dir() else f"There is no file {path}")
    options: dict[str, Any] = {}
    if columns is not None and ending == ".parquet":
        options["columns"] = _parquet_columns(path, columns)
    try:
        # parquet may bring an index of its own, and one that repeats
        return _READERS[ending](path, **options).reset_index(drop=True)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} holds no rows") from None
    except (OSError, ValueError, EOFError, zlib.error, pd.errors.ParserError) as error:
        # pyarrow's errors are ValueErrors or OSErrors, and so is UnicodeDecodeError
        raise InputError(f"Cannot read {path} as {ending[1:]}: {_one_line(error)}") from error


def _parquet_columns(path: Path, column: str) -> list[str] | None:
    """Only the column needed, where it is there; a corpus may have many others."""
    import pyarrow.parquet as pq

    try:
        return [column] if column in pq.read_schema(path).names else None
    except (OSError, ValueError):
        return None  # the reader says what is wrong


def _read_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"There is no file {path}")
    opener: Callable[..., Any] = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return [line.strip() for line in file]
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"Cannot read {path} as text: {_one_line(error)}") from error


def _with_text(table: pd.DataFrame, text: str, path: Path) -> pd.DataFrame:
    empty = table[text].map(lambda value: isinstance(value, str) and not value.strip()) | table[text].isna()
    if empty.any():
        logger.warning("%s: %d of %d texts are empty and were left out", path, empty.sum(), len(table))
    return table[~empty].reset_index(drop=True)


def _check_texts(texts: "pd.Series[Any]", where: str) -> None:
    strings = texts.map(lambda value: isinstance(value, str))
    if not strings.all():
        first = _first(~strings)
        raise InputError(
            f"{where}: {int((~strings).sum())} rows are no text; row {first} holds {texts.tolist()[first]!r}"
        )
    blank = ~texts.map(lambda value: bool(value.strip()))
    if blank.any():
        raise InputError(
            f"{where}: {int(blank.sum())} texts are empty, the first in row {_first(blank)}; drop them"
        )


def _first(mask: "pd.Series[bool]") -> int:
    return int(mask.to_numpy().argmax())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
