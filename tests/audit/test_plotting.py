"""Figures are valid SVG, name themselves, say their numbers and follow the page's colours."""

import sys
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from debias_ssae.audit.page import Series, dot_plot
from debias_ssae.core.errors import MissingExtraError

NAN = float("nan")
HOSTILE = "<script>alert('x')</script> $\\frac{1}{2}$ & \"quoted\""


def _dots(**options: Any) -> str:
    series = [
        Series("a", [0.5, NAN], [0.4, NAN], [0.6, NAN]),
        Series(HOSTILE, [0.1, 0.2], [NAN, 0.1], [NAN, 0.3]),
    ]
    return dot_plot([HOSTILE, "m"], series, **{"title": "Accuracy <1>", "x_label": "accuracy", **options})


@pytest.mark.parametrize("svg", [_dots(), _dots(limits=None, reference=0.0)])
def test_every_figure_is_wellformed_and_has_a_text_alternative(svg: str) -> None:
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert len(root.attrib["aria-label"]) > 20
    assert "<script" not in svg
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids))
    assert "width" not in root.attrib


def test_alternatives_hold_the_numbers_and_the_undefined() -> None:
    label = ET.fromstring(_dots()).attrib["aria-label"]
    assert "0.500 (0.400 to 0.600)" in label
    assert "a, m: undefined" in label
    assert "$\\frac{1}{2}$" in label


def test_colours_are_the_pages_variables() -> None:
    svg = _dots()
    assert "var(--ink)" in svg
    assert "var(--series-2)" in svg
    assert "#0102" not in svg
    assert "#0103" not in svg


def test_the_same_figure_twice_is_the_same_text() -> None:
    assert _dots() == _dots()


def test_ids_differ_between_figures() -> None:
    first, second = (
        {e.attrib.get("id") for e in ET.fromstring(s).iter()} - {None}
        for s in (_dots(), _dots(title="Other"))
    )
    assert not first & second


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib.*debias-ssae\[report\]"):
        _dots()
