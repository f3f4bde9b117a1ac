"""One self-contained HTML file from a template: style and script inline, user text escaped, no network allowed; and
its figures, inline SVG whose colours follow the page (dark or light). Needs jinja2 and matplotlib (extra "report").

Nothing here touches pyplot's global state: each figure is its own object, drawn to a string.
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from debias_ssae.core.errors import optional_module

# drawn in these, then replaced by the page's own variables
_INK, _MUTED, _LINE, _PAPER = "#010203", "#010204", "#010205", "#010206"
_SERIES = tuple(f"#01030{i}" for i in range(1, 7))
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line", _PAPER: "--card"} | {
    colour: f"--series-{i}" for i, colour in enumerate(_SERIES, 1)
}
_WIDTH = 5.0  # inches at 96 px: 480 px, still legible when scaled down to a phone
_MARKERS = "osD^vP"
_LONGEST_LABEL = 26
_INCH_ROW = 0.27


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


class Series(NamedTuple):
    """Values with intervals, one a label; NaN is drawn as "undefined"."""

    name: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def dot_plot(
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    limits: tuple[float, float] | None = (0.0, 1.0),
    reference: float | None = None,
    show_undefined: bool = True,
) -> str:
    """Horizontal dots with intervals, one row a label, one colour and marker a series. Returns an SVG
    element.
    """
    offsets = (np.arange(len(series)) - (len(series) - 1) / 2) * min(0.24, 0.7 / max(1, len(series)))
    height = max(1.2, len(labels) * max(_INCH_ROW, 0.15 * len(series)) + 0.75)
    figure, axes = _figure(height)
    positions = np.arange(len(labels), dtype=float)
    for i, one in enumerate(series):
        colour, y = _SERIES[i % len(_SERIES)], positions + offsets[i]
        values, low, high = (np.asarray(v, dtype=float) for v in (one.values, one.low, one.high))
        axes.hlines(y, low, high, color=colour, linewidth=2.2, alpha=0.55)
        axes.plot(
            values, y, _MARKERS[i % 6], color=colour, markersize=5.5, label=_short(one.name), linestyle="none"
        )
        for j in np.flatnonzero(np.isnan(values) & show_undefined):
            axes.text(0.0, y[j], " undefined", color=_MUTED, fontsize=8.5, va="center")
    if reference is not None:
        axes.axvline(reference, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.set_yticks(positions, [_short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    if limits is not None:
        axes.set_xlim(limits[0] - 0.01, limits[1] + 0.01)
    axes.set_xlabel(x_label, color=_MUTED, fontsize=9.5)
    if len(series) > 1:
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=min(3, len(series)),
            frameon=False,
            fontsize=8.5,
            labelcolor=_INK,
            handlelength=1.2,
            columnspacing=1.2,
        )
    return _svg(figure, title, _spoken(labels, series))


def _figure(height: float) -> tuple[Any, Any]:
    figure = optional_module("matplotlib.figure", "report").Figure(
        figsize=(_WIDTH, height), dpi=96, layout="constrained"
    )
    axes = figure.add_subplot()
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(color=_LINE, labelcolor=_INK, length=0, labelsize=9.5)
    return figure, axes


def _short(label: str, longest: int = _LONGEST_LABEL) -> str:
    label = " ".join(str(label).split())
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _spoken(labels: Sequence[str], series: Sequence[Series]) -> str:
    parts = []
    for one in series:
        for label, value, low, high in zip(labels, one.values, one.low, one.high, strict=True):
            name = f"{one.name}, {label}" if len(series) > 1 else label
            if np.isnan(value):
                parts.append(f"{name}: undefined")
            elif np.isnan(low):
                parts.append(f"{name}: {value:.3f}")
            else:
                parts.append(f"{name}: {value:.3f} ({low:.3f} to {high:.3f})")
    return "; ".join(parts)


def _svg(figure: Any, title: str, spoken: str) -> str:
    """Draw to an SVG element that names itself, scales with its container and follows the page's colours."""
    import matplotlib
    from matplotlib.text import Text

    for drawn in figure.findobj(Text):
        drawn.set_parse_math(False)  # a "$" in a group's name is a dollar sign
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+)px [^\";]*", r"font-size: \1px", svg)
    # ids are repeated by every figure; unique ones keep clip paths apart and the page valid
    stem = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{stem}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{stem}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{stem}-\1"', svg)
    label = escape(f"{title}. {spoken}", quote=True)
    head = f'role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]+\")[^>]*>", lambda m: f"<svg {m[1]} {head}>", svg, count=1)
