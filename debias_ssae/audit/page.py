"""One self-contained HTML file from a template: style and script inline, user text escaped, no network
allowed.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from debias_ssae.core import io
from debias_ssae.core.errors import MissingExtraError


class Column(NamedTuple):
    """Head of a table's column."""

    name: str
    numeric: bool = False


class Cell(NamedTuple):
    """What a cell shows, and what it is sorted by (None: what it shows; "": undefined, always last)."""

    text: str
    key: Any = None
    note: str = ""
    wrap: bool = False
    kind: str = ""
    """bad, warn or good colours the text."""


class TableRow(NamedTuple):
    """Cells of a row; ``flag`` is "", "warn" or "bad"."""

    cells: Sequence[Cell]
    flag: str = ""


class Table(NamedTuple):
    """A sortable table."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[TableRow]
    note: str = ""
    folded: bool = False


class Figure(NamedTuple):
    """An SVG element and its caption."""

    svg: Any
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


def number_cell(
    value: float | None, low: float | None = None, high: float | None = None, *, signed: bool = False
) -> Cell:
    """A number with its interval, ``signed`` with a plus; "undefined" where it is NaN or None."""
    if value is None or math.isnan(value):
        return Cell("undefined", "")

    def said(number: float) -> str:
        text = f"{number:+.3f}" if signed else f"{number:.3f}"
        return (
            text.replace("-", "+" if signed else "") if float(text) == 0 else text
        )  # no minus before nothing

    ends = low is not None and high is not None and not math.isnan(low) and not math.isnan(high)
    note = f"{said(low)} to {said(high)}" if ends and low is not None and high is not None else ""
    return Cell(said(value), f"{value:.9g}", note)


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


def trusted(svg: str) -> Any:
    """Mark an SVG made by ``plotting`` (which escapes its labels) as safe to inline."""
    return _jinja("markupsafe").Markup(svg)


def render(template: str, context: Mapping[str, Any], *, package: str = "debias_ssae.audit") -> str:
    """Fill ``templates/<template>.html.jinja`` of ``package``; raises MissingExtraError without jinja2.

    A ``<template>.css`` and ``<template>.js`` beside it are added to the shared style and script.
    """
    jinja2 = _jinja("jinja2")
    loaders = [
        jinja2.PackageLoader(name, "templates") for name in dict.fromkeys((package, "debias_ssae.audit"))
    ]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared, own = files("debias_ssae.audit") / "templates", files(package) / "templates"
    style, script = (
        "".join(
            file.read_text(encoding="utf-8")
            for file in (common, own / f"{template}{ending}")
            if file.is_file()
        )
        for common, ending in ((shared / "style.css", ".css"), (shared / "page.js", ".js"))
    )
    parts = {
        "style": trusted(style),
        "script": trusted(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "version": version("debias-ssae"),
    }
    return str(environment.get_template(f"{template}.html.jinja").render({**context, **parts}))


def _jinja(package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error


def write_text(text: str, path: str | Path) -> Path:
    """Write atomically and return the path. Raises InputError where it cannot be written."""
    io.write_text(path, text)
    return Path(path)
