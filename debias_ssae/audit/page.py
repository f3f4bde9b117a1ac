"""One self-contained HTML file from a template: style and script inline, user text escaped, no network
allowed.
"""

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

from debias_ssae.core.errors import optional_module


class Cell(NamedTuple):
    """What a cell shows, and what it is sorted by (None: what it shows; "": undefined, always last)."""

    text: str
    key: Any = None
    """Every cell of a column of numbers has one."""
    note: str = ""
    wrap: bool = False
    kind: str = ""
    """bad, warn or good colours the text; of the first cell, its row."""


class Table(NamedTuple):
    """A sortable table; :func:`make_table` makes it."""

    caption: str
    columns: Sequence[tuple[str, bool]]
    """Names, and whether they hold numbers."""
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False


def make_table(
    caption: str,
    names: Sequence[str],
    rows: Iterable[Iterable[Any]],
    *,
    note: str = "",
    folded: bool = False,
    most: int | None = None,
) -> Table:
    """A table of columns ``names`` from rows of Cells and strings; no more than the first ``most`` are shown."""
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    numeric = [any(c.key is not None for c in column) for column in zip(*cells, strict=True)]
    if most is not None and len(cells) > most:
        note = f"The first {most} of {len(cells):,} rows; all of them are in the JSON output."
    return Table(caption, list(zip(names, numeric, strict=False)), cells[:most], note, folded)


class Figure(NamedTuple):
    """An SVG element, whose maker escapes its labels, and its caption."""

    svg: str
    caption: str


class Card(NamedTuple):
    """A small box of facts, with quotations."""

    title: str
    facts: Mapping[str, str]
    texts: Sequence[str] = ()


class Block(NamedTuple):
    """A section of the page."""

    id: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    text: Sequence[str] = ()
    cards: Sequence[Card] = ()


def with_interval(
    value: float, low: float = math.nan, high: float = math.nan, *, form: str = ".3f", missing: str = "–"
) -> str:
    """A number with its interval, where it has one, as text; ``missing`` where it is NaN."""
    if math.isnan(value):
        return missing
    ends = "" if math.isnan(low + high) else f" ({low:{form}} to {high:{form}})"
    return f"{value:{form}}{ends}"


def number_cell(
    value: float | None, low: float | None = None, high: float | None = None, *, signed: bool = False
) -> Cell:
    """A number with its interval, ``signed`` with a plus; "undefined" where it is NaN or None."""
    if value is None or math.isnan(value):
        return Cell("undefined", "")
    form = "+z.3f" if signed else "z.3f"
    ends = low is not None and high is not None and not math.isnan(low) and not math.isnan(high)
    return Cell(f"{value:{form}}", f"{value:.9g}", f"{low:{form}} to {high:{form}}" if ends else "")


def p_cell(value: float) -> Cell:
    """A p value; a dash where no test was made."""
    if math.isnan(value):
        return Cell("–", "")
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", f"{value:.9g}")


def count_cell(value: float | None) -> Cell:
    """A count, with thousands separated; fractions (weights) keep one digit."""
    if value is None or math.isnan(value):
        return Cell("undefined", "")
    return Cell(f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}", f"{value:.9g}")


def render(template: str, context: Mapping[str, Any], *, package: str = "debias_ssae.audit") -> str:
    """Fill ``templates/<template>.html.jinja`` of ``package``; raises MissingExtraError without jinja2.

    A ``<template>.css`` and ``<template>.js`` beside it are added to the shared style and script.
    """
    jinja2 = optional_module("jinja2", "report")
    folders = [files(name) / "templates" for name in dict.fromkeys(("debias_ssae.audit", package))]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def joined(shared: str, ending: str) -> str:
        found = (folders[0] / shared, folders[-1] / f"{template}{ending}")
        return "".join(file.read_text(encoding="utf-8") for file in found if file.is_file())

    style, script = joined("style.css", ".css"), joined("page.js", ".js")
    parts = {
        "style": style,
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "version": version("debias-ssae"),
    }
    return str(environment.get_template(f"{template}.html.jinja").render({**context, **parts}))
