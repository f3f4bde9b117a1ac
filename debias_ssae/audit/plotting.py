"""Figures as inline SVG whose colours follow the page (dark or light). Needs matplotlib (extra "report").

Nothing here touches pyplot's global state: each figure is its own object, drawn to a string.
"""

import io
import re
from collections.abc import Sequence
from html import escape
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
