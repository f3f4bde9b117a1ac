"""The one reader of texts and tables: files, folders, patterns and hub data sets, piece by piece.

Every source becomes pieces of rows in which nothing was guessed: cells of csv are the strings that the file holds
(a column becomes numbers only where each of its cells is written as a number is), and rows of another length than
the header are refused by their line.
"""

import csv
import gzip
import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from debias_ssae.core.errors import InputError, brief, one_line
from debias_ssae.core.io import parse_json, writing
from debias_ssae.text.checks import check_labels, check_not_measured

logger = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
"""Kinds of file; all but parquet also with .gz."""
_MISSING = ("NA", "NaN", "nan", "<NA>")
"""What a cell of a csv file without a value holds ; None and null may be values (of a religion)."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INTEGER = re.compile(r"-?[1-9][0-9]{0,17}|0")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_SIGNED = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PIECE_ROWS = 8192
_LINE_CHARACTERS = 2**24
_FAULTS = (OSError, ValueError, EOFError, zlib.error, csv.Error, KeyError, NotImplementedError)
"""What readers raise on damaged files; pyarrow's errors are among them."""


class Piece(NamedTuple):
    """Some rows of a source, column by column."""

    columns: dict[str, list[Any]]
    """Values by name, None where there is none."""
    where: Callable[[int], str]
    """Names a row's place in the file."""
    as_written: bool
    """Whether every value is a string of the file (csv, tsv, txt)."""


def _in_pieces(
    file: str,
    word: str,
    numbered: Iterable[tuple[int, Any]],
    columns: Callable[[list[Any]], dict[str, list[Any]]],
    *,
    as_written: bool = False,
) -> Iterator[Piece]:
    """Yield numbered rows in pieces; ``columns`` makes columns of some of them, ``word`` says what is numbered."""
    rest = iter(numbered)
    while part := list(islice(rest, _PIECE_ROWS)):
        places, rows = map(list, zip(*part, strict=True))
        del part  # it would be held while the piece is worked on
        yield Piece(columns(rows), _placed(file, places, word), as_written)


def load_table(
    path: str | Path,
    *,
    text: str,
    target: str | None = None,
    sensitive: str | None = None,
    drop_empty: bool = False,
    as_written: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a table (a csv, tsv, jsonl, json or parquet file, ``.gz`` too, a folder or pattern of them, or a hub data
    set) and check the named columns.

    Returns every column. Raises InputError for an unreadable source, an empty table, a missing column (the message
    lists those there are), texts that are not strings or are empty (``drop_empty`` leaves rows without a text out
    and warns in the log), and missing values of the target. The attribute may have missing values: such rows are
    unlabelled. Columns of ``as_written`` stay the strings of a csv file even where they look like numbers.
    """
    table = read_table(path, as_written=[text, *as_written])
    roles = {"text": text, "target": target, "sensitive": sensitive}
    named = {role: column for role, column in roles.items() if column is not None}
    for role, column in named.items():
        demand(path, [column], list(table.columns), f" for the {role}")
    if len(set(named.values())) < len(named):
        raise InputError(f"The text, target and sensitive columns must differ, got {named}")
    if drop_empty:
        table = _with_text(table, text, path)
    _check_texts(table[text].tolist(), f"{path}, column {text!r}")
    if all(map(_NUMBER.fullmatch, table[text])):
        logger.warning("%s: column %r holds numbers alone; is it that of the texts?", path, text)
    if target is not None:
        missing = table[target].isna()
        if missing.any():
            raise InputError(
                f"{path}, column {target!r}: {int(missing.sum())} of {len(table)} targets are missing, the "
                f"first in row {missing.to_numpy().argmax()}; drop those rows or fill them"
            )
    for name in filter(None, (target, sensitive)):
        check_labels(table[name], f"{path}, column {name!r}")
    if sensitive is not None:
        groups = table[sensitive].dropna().unique().tolist()
        if not groups:
            raise InputError(f"{path}, column {sensitive!r}: every value of the attribute is missing")
        check_not_measured(groups, f"{path}, column {sensitive!r}")
    return table


def read_table(path: str | Path, *, as_written: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table whole; raises InputError for an unknown ending, an unreadable source and one without rows.

    A csv column that is not named in ``as_written`` becomes numbers where every value is written as one (``7``,
    ``0.25``; not ``007`` or ``+7``), and NA, NaN, nan and <NA> in it are missing values.
    """
    found: dict[str, list[Any]] = {}
    as_strings: set[str] = set()
    n = 0
    for piece in _pieces(str(path), None, "train"):
        rows = len(next(iter(piece.columns.values()), ()))
        for name, values in piece.columns.items():
            found.setdefault(name, [None] * n).extend(values)
            if piece.as_written:
                as_strings.add(name)
        n += rows
        for values in found.values():
            values.extend([None] * (n - len(values)))
    if n == 0:
        raise InputError(f"{path} holds no rows")
    may_be_numbers = as_strings - set(as_written)
    return pd.DataFrame({name: _series(v, name in may_be_numbers) for name, v in found.items()})


def load_corpus(path: str | Path, *, column: str = "text") -> list[str]:
    """Read a corpus: one text a row of a table, or one a line of a .txt file; sources as in :func:`stream_texts`.

    Empty and missing texts are left out. Raises InputError for an unreadable or empty corpus.
    """
    texts = [text for text in stream_texts(path, column=column) if text is not None and text.strip()]
    if not texts:
        raise InputError(f"{path} holds no texts")
    return texts


def stream_texts(
    source: str | Path, *, column: str = "text", split: str = "train", limit: int | None = None
) -> Iterator[str | None]:
    """Yield the texts of ``source``: a .txt file (one text a line), a table, many files, or a hub data set.

    Many files are a folder of one kind of them (.txt files of a folder with tables are passed over), or a pattern
    (``part-*.parquet``), in the order of their names. No more than a piece of a file is in memory. A missing value is
    yielded as None.

    ``limit`` takes the first texts only. Raises InputError for an unreadable source, a missing column and a value
    that is no text.
    """
    yield from islice(_texts(_pieces(str(source), [column], split), column), limit)


def stream_tables(
    source: str | Path | Iterable[str], columns: Sequence[str], n_rows: int, *, split: str = "train"
) -> Iterator[pd.DataFrame]:
    """Yield ``columns`` of ``source`` as tables of ``n_rows`` rows (the last one shorter), wherever its files end.

    ``source`` is as in :func:`stream_texts`, or an iterable of texts. No more than a table and a piece of a file are
    in memory. Values are those of the file, of a csv its strings. Raises InputError for an unreadable source, a
    missing column, and a row whose first column holds no text.
    """
    pieces = (
        _pieces(str(source), columns, split)
        if isinstance(source, str | Path)
        else _in_pieces("the source", "text", enumerate(source), lambda texts: {columns[0]: texts})
    )
    held: dict[str, list[Any]] = {name: [] for name in columns}
    for found, where, _ in pieces:
        demand(source, columns, list(found))
        for name in columns:
            held[name] += found[name]
        for i, text in enumerate(found[columns[0]]):
            if not isinstance(text, str) or not text.strip():
                told = brief(text) if text else "no text"
                raise InputError(
                    f"{where(i)} holds {told} in column {columns[0]!r}; drop the row or fill it in"
                )
        while len(held[columns[0]]) >= n_rows:
            yield _as_written({name: values[:n_rows] for name, values in held.items()})
            held = {name: values[n_rows:] for name, values in held.items()}
    if held[columns[0]]:
        yield _as_written(held)


def _as_written(columns: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write ``table`` as parquet or csv by the ending of ``path``, atomically, csv ``spreadsheet_safe``.

    Raises InputError for a column that parquet cannot hold.
    """
    with writing(path) as temporary:
        if str(path).endswith(".parquet"):
            temporary.write_bytes(_parquet(table, path))
        else:
            spreadsheet_safe(table).to_csv(temporary, index=False, quoting=csv.QUOTE_NONNUMERIC)


def _parquet(table: pd.DataFrame, path: str | Path) -> bytes:
    try:
        return table.infer_objects().to_parquet(index=False)
    except (TypeError, ValueError, OverflowError) as error:  # those of pyarrow are among them
        raise InputError(
            f"{path} cannot hold a column of values of several kinds: {one_line(error)}; write .csv, or leave it out"
        ) from error


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with a quote (') before every string that a spreadsheet would run as a formula.

    These begin with ``=``, ``+``, ``-``, ``@`` or their wide forms, a tab or a line break (OWASP, CSV Injection);
    plain numbers stay as they are.
    """

    def safe(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(_FORMULA) and not _SIGNED.fullmatch(value):
            return f"'{value}"
        return value

    columns = {i: table.iloc[:, i] for i in range(table.shape[1])}
    strings = {i: c.map(safe) if c.dtype.kind not in "biufcmM" else c for i, c in columns.items()}
    return pd.DataFrame(strings, index=table.index).set_axis([safe(name) for name in table.columns], axis=1)


def _texts(pieces: Iterable[Piece], column: str) -> Iterator[str | None]:
    for columns, where, _ in pieces:
        for i, text in enumerate(columns[column]):
            if text is None or isinstance(text, str):
                yield text
            else:
                raise InputError(
                    f"{where(i)} holds {brief(text)} ({type(text).__name__}) in column {column!r}, expected a text"
                )


# ---------------------------------------------------------------- which files


def _pieces(source: str, wanted: Sequence[str] | None, split: str) -> Iterator[Piece]:
    files = _files(source)
    if files is None:
        yield from _from_hub(source, wanted, split)
    else:
        for file in files:
            yield from _from_file(file, wanted)


def _files(source: str) -> list[str] | None:
    """Return the files that ``source`` stands for; None is a hub data set."""
    path = Path(source)
    if path.is_file():
        return [source]
    if path.is_dir():
        there = sorted(str(p) for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        files = [file for file in there if _kind(file) not in (None, ".txt")] or [
            file for file in there if _kind(file) == ".txt"
        ]
        nothing = f"{path} is a folder that holds no {', '.join(ENDINGS)} file"
    elif any(sign in source for sign in "*?["):
        files = sorted(str(p) for p in Path(path.anchor or ".").glob(source.removeprefix(path.anchor)))
        nothing = f"No file matches {source}"
    elif _kind(source) is None and _HUB_ID.fullmatch(source) and path.suffix != ".gz":
        return None
    else:
        raise InputError(f"There is no file {source}")
    kinds = {_kind(file) for file in files}
    if not files:
        raise InputError(nothing)
    if len(kinds) > 1 or None in kinds:
        raise InputError(f"{source} must be files of one kind, of {', '.join(ENDINGS)}")
    return files


def _kind(file: str) -> str | None:
    name = file.lower().removesuffix(".gz")
    kind = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    return None if kind == ".parquet" and file.lower().endswith(".gz") else kind


# ---------------------------------------------------------------- readers


def _from_file(file: str, wanted: Sequence[str] | None) -> Iterator[Piece]:
    kind = _kind(file)
    if kind is None:
        raise InputError(f"{file}: unknown kind of file; known endings: {', '.join(ENDINGS)}, also with .gz")
    readers: dict[str, Callable[[str, Sequence[str] | None], Iterator[Piece]]] = {
        ".csv": _from_csv, ".tsv": _from_csv, ".jsonl": _from_json, ".json": _from_json,
        ".parquet": _from_parquet, ".txt": _from_lines,
    }  # fmt: skip
    try:
        yield from readers[kind](file, wanted)
    except _FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot read {file} as {kind[1:]}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error) or type(error).__name__


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    """Open a file, packed or not, for bytes."""
    with Path(file).open("rb") as raw:
        if not file.lower().endswith(".gz"):
            yield raw
            return
        with gzip.open(raw, "rb") as unpacked:
            yield unpacked


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number and its end, decoded; UTF-8, or UTF-16 where a byte order mark says so."""
    with _opened(file) as raw:
        begin = raw.peek(4)[:4] if hasattr(raw, "peek") else b""
        wide = begin.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = io.TextIOWrapper(raw, encoding="utf-16" if wide else "utf-8-sig", newline="\n")
        number = 0
        while True:
            try:
                line = text.readline(_LINE_CHARACTERS)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{file} is not UTF-8 after line {number} (byte 0x{error.object[error.start]:02x}): save it as"
                    " UTF-8, for example with iconv"
                ) from error
            if not line:
                return
            number += 1
            if len(line) == _LINE_CHARACTERS:
                raise InputError(f"{file}: line {number} is longer than {_LINE_CHARACTERS} characters")
            if "\0" in line:
                raise InputError(f"{file}: line {number} holds NUL bytes; save the file as UTF-8")
            yield number, line


def _from_lines(file: str, wanted: Sequence[str] | None) -> Iterator[Piece]:
    if wanted is None:
        raise InputError(f"{file} holds lines of text, expected a table: {', '.join(ENDINGS[:-1])}")
    lines = ((number, line.rstrip("\r\n")) for number, line in _lines(file))
    yield from _in_pieces(file, "line", lines, lambda texts: {wanted[0]: texts}, as_written=True)


def _from_csv(file: str, wanted: Sequence[str] | None) -> Iterator[Piece]:
    """Read csv or tsv by the standard library, which keeps every cell as it is written."""
    csv.field_size_limit(_LINE_CHARACTERS)
    separator = "\t" if _kind(file) == ".tsv" else ","
    reader = csv.reader((line for _, line in _lines(file)), delimiter=separator, strict=True)
    try:
        told_to_excel = f"sep={separator}"  # a line before the header
        header = next((row for row in reader if row and separator.join(row) != told_to_excel), None)
        if header is None:
            raise InputError(f"{file} holds no rows")
        names = _header(file, header, wanted)
        place = {name: i for i, name in enumerate(names)}
        chosen = {name: place[name] for name in (wanted or names)}

        def columns(rows: list[list[str]]) -> dict[str, list[Any]]:
            return {name: [row[i] or None for row in rows] for name, i in chosen.items()}

        yield from _in_pieces(file, "line", _csv_rows(file, reader, names), columns, as_written=True)
    except csv.Error as error:
        told = f"{error}; a value with a quote in it needs quotes around it, and each quote inside twice"
        if "new-line" in str(error):
            told = "a carriage return (CR) outside of quotes; save the file with line feeds (LF) at the ends of lines"
        raise InputError(f"{file}, line {reader.line_num}: {told}") from error


def _csv_rows(file: str, reader: Any, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with its first line; raises InputError where it is shorter or longer than the header."""
    end = reader.line_num
    for row in reader:
        line, end = end + 1, reader.line_num
        if not row:
            continue
        if len(row) < len(names) or any(row[len(names) :]):
            raise InputError(
                f"{file}, line {line}: {len(row)} values, expected the {len(names)} of the header ({_listed(names)})"
                + (_separated(names) or "; a value with a separator in it needs quotes")
            )
        yield line, row


def _header(file: str, header: list[str], wanted: Sequence[str] | None) -> list[str]:
    n = max((i for i, name in enumerate(header, 1) if name), default=0)  # a trailing separator is no column
    names = [name or f"Unnamed: {i}" for i, name in enumerate(header[:n])]
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise InputError(f"{file} has two columns called {twice[0]!r}; give each its own name")
    demand(file, wanted or (), names)
    return names


def _from_json(file: str, wanted: Sequence[str] | None) -> Iterator[Piece]:
    """Read objects, one a line, or one array of them."""
    lines = ((number, line) for number, line in _lines(file) if line.strip())
    first = next(lines, None)
    if first is None:
        raise InputError(f"{file} holds no rows")
    is_array = first[1].lstrip().startswith("[")
    word = "row" if is_array else "line"

    def parsed() -> Iterator[tuple[int, Any]]:
        if is_array:
            yield from enumerate(parse_json(first[1] + "".join(line for _, line in lines), file))
        else:
            for number, line in chain([first], lines):
                yield number, parse_json(line, f"{file}, line {number}")

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in parsed():
            if not isinstance(row, dict):
                raise InputError(
                    f"{file}, {word} {number}: {brief(row)}, expected an object of names and values"
                )
            yield number, row

    def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        there = list(dict.fromkeys(name for row in rows for name in row))
        demand(file, wanted or (), there)
        return {name: [row.get(name) for row in rows] for name in wanted or there}

    yield from _in_pieces(file, word, objects(), columns)


def _from_parquet(file: str, wanted: Sequence[str] | None) -> Iterator[Piece]:
    import pyarrow.parquet as pq

    with _opened(file) as raw:
        table = pq.ParquetFile(raw)
        names = list(table.schema_arrow.names)
        if len(set(names)) < len(names):
            raise InputError(f"{file} has two columns of one name; give each its own")
        demand(file, wanted or (), names)
        chosen = (
            [n for n in names if not re.fullmatch(r"__index_level_\d+__", n)]
            if wanted is None
            else list(wanted)
        )
        start = 0
        for batch in table.iter_batches(_PIECE_ROWS, columns=chosen):
            columns = {name: _values(batch.column(name), f"{file}, column {name!r}") for name in chosen}
            yield Piece(columns, _placed(file, range(start, start + len(batch)), "row"), False)
            start += len(batch)


def _values(column: Any, where: str) -> list[Any]:
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except ArithmeticError as error:
        raise InputError(f"{where} holds times that Python has no value for: {one_line(error)}") from error


def _from_hub(source: str, wanted: Sequence[str] | None, split: str) -> Iterator[Piece]:
    import datasets

    def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        demand(source, wanted or (), list(rows[0]))
        return {name: [row[name] for row in rows] for name in wanted or rows[0]}

    try:
        rows: Any = enumerate(datasets.load_dataset(source, split=split, streaming=True))
        yield from _in_pieces(source, "row", rows, columns)
    except InputError:
        raise
    except Exception as error:  # datasets raises its readers' own errors, of any kind
        raise InputError(
            f"{source} is no file or folder here, and reading it as a data set of the hub failed: {one_line(error)}"
        ) from error


def _placed(file: str, places: Sequence[int], word: str) -> Callable[[int], str]:
    return lambda i: f"{file}, {word} {places[i]}"


# ---------------------------------------------------------------- columns


def _series(values: list[Any], may_be_numbers: bool) -> "pd.Series[Any]":
    if may_be_numbers:
        values = [None if value in _MISSING else value for value in values]
        there = [value for value in values if value is not None]
        if there and all(map(_INTEGER.fullmatch, there)):
            values = [None if value is None else int(value) for value in values]
        elif there and all(map(_NUMBER.fullmatch, there)):
            return pd.Series([float("nan") if value is None else float(value) for value in values])
    if None in values and {type(value) for value in values} == {int, type(None)}:
        return pd.Series(values, dtype=object)  # as floats they would be 1.0
    return pd.Series(values, dtype=None if values else object)


def _with_text(table: pd.DataFrame, text: str, path: str | Path) -> pd.DataFrame:
    empty = table[text].map(lambda value: isinstance(value, str) and not value.strip()) | table[text].isna()
    if empty.any():
        logger.warning("%s: %d of %d texts are empty and were left out", path, empty.sum(), len(table))
    return table[~empty].reset_index(drop=True)


def _check_texts(texts: list[Any], where: str) -> None:
    if strange := [i for i, text in enumerate(texts) if not isinstance(text, str)]:
        told = brief(texts[strange[0]])
        raise InputError(f"{where}: {len(strange)} rows are no text; row {strange[0]} holds {told}")
    if blank := [i for i, text in enumerate(texts) if not text.strip()]:
        raise InputError(f"{where}: {len(blank)} texts are empty, the first in row {blank[0]}; drop them")


def _listed(names: Iterable[Any]) -> str:
    texts = [str(name) for name in names]
    shown = [brief(text) if text != text.strip() else brief(text)[1:-1] for text in texts]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def demand(source: object, wanted: Iterable[str], there: Sequence[Any], role: str = "") -> None:
    """Raise InputError for the first column that is not there."""
    column = next((name for name in wanted if name not in there), None)
    if column is None:
        return
    told = f"{source} has no column {column!r}{role}; it has {_listed(there)}{_separated(there)}"
    if spaced := [name for name in there if str(name).strip() == column.strip()]:
        told += f"; {spaced[0]!r} differs by spaces around it: rename it"
    raise InputError(told)


def _separated(names: Sequence[Any]) -> str:
    """What a header of one name says of a file with another separator, and the cure; "" where it says nothing."""
    other = next((sign for sign in ";\t|," if len(names) == 1 and sign in str(names[0])), None)
    if other is None:
        return ""
    cure = {"\t": "with tabs as .tsv", ",": "as .csv, without quotes around whole lines"}.get(
        other, "with commas"
    )
    return f"; its values seem to be separated by {other!r}: save it {cure}"
