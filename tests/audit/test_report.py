"""Pages and texts: self-contained, escaped, honest about what is missing."""

import json
import math
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias_ssae.audit import AuditReport, audit, check_gates
from debias_ssae.audit.audit_page import audit_html, write_audit_report
from debias_ssae.audit.leakage import LeakageReport, ProbeResult
from debias_ssae.audit.page import count_cell, number_cell, p_cell
from debias_ssae.audit.verdict import (
    audit_json,
    audit_junit,
    audit_markdown,
    audit_text,
    findings,
    kind_of,
    verdict,
)
from debias_ssae.core.errors import InputError, MissingExtraError

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>|`*\"&$"


class _Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags left open."""

    void = frozenset({"meta", "link", "br", "img", "hr", "input", "path", "use", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def _leakage() -> LeakageReport:
    results = tuple(ProbeResult("linear", g, 0.7, 0.65, 0.75, 0.5, 0.5, 400) for g in (False, True))
    return LeakageReport(results, ("f", "m"), 3, ("rare",))


def _report(classes: int = 2, **extras: Any) -> AuditReport:
    rng = np.random.default_rng(0)
    n = 500
    y, group = rng.integers(0, classes, n), rng.choice(["f", HOSTILE], n)
    y[group == "f"] = np.where(y[group == "f"] == classes - 1, 0, y[group == "f"])
    models = {"erm": np.where(rng.random(n) < 0.7, y, 0), HOSTILE: np.where(rng.random(n) < 0.9, y, 0)}
    report = audit(y, models, sensitive_features={"gender": group}, random_state=0, n_bootstrap=30)
    return report.with_extras(**extras)


FLIP = {
    "n_texts": 9,
    "n_with_counterfactual": 8,
    "n_flipped": 4,
    "rate": 0.5,
    "ci_low": 0.2,
    "ci_high": 0.8,
    "by_prediction": [{"prediction": HOSTILE, "n": 8, "flipped": 4, "rate": 0.5}],
    "examples": [
        {"text": HOSTILE, "counterfactual": "she", "prediction": "a", "counterfactual_prediction": "b"}
    ],
}
EXTRAS = {
    "leakage": _leakage(),
    "flips": {"erm": FLIP, "other": {**FLIP, "examples": []}},
    "provenance": {"data": HOSTILE, "sha256_of_the_data": "ab", "seed": "0"},
}


@pytest.fixture(scope="module")
def html() -> str:
    report = _report(**EXTRAS)
    gates = check_gates(report, fail_under={"worst_group_accuracy": 0.99, "accuracy": 0.0})
    return audit_html(report, gates)


def test_the_page_is_wellformed_and_reaches_for_nothing(html: str) -> None:
    page = _Page(html)
    assert not [t for t, _ in page.tags if t in ("link", "iframe", "img", "object")]
    assert [t for t, _ in page.tags].count("script") == 1
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#")
    assert "http-equiv" in html
    assert "default-src 'none'" in html


def test_user_text_is_shown_not_run(html: str) -> None:
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert HOSTILE in _Page(html).text


def test_the_verdict_and_its_picture_open_the_page_and_the_tables_are_folded(html: str) -> None:
    names = ("verdict", "gates", "findings", "limits", "section-1", "models", "how", "provenance")
    order = [html.index(f'id="{name}"') for name in names]
    assert order == sorted(order)
    assert html.index("<svg") < html.index('id="gates"'), "the picture stands with the verdict"
    before, after = html.split('id="details"')
    assert before.count("<li class=") <= 5, "at most five findings"
    assert "<table" not in re.sub(r"(?s)<details class=.block.>.*</details>", "", after)
    for said in ("derived from words", "strongest of our probes", "Where these numbers"):
        assert said in _Page(html).text


def test_what_is_undefined_is_said_on_the_page(html: str) -> None:
    text = _Page(html).text
    assert "1 / f" in text
    assert "rest on no rows or on fewer than 10" in text
    assert "nan" not in text.lower().split()


def test_texts_stay_out_unless_given() -> None:
    page = _Page(audit_html(_report(flips={**FLIP, "examples": []})))
    assert "ask for them" in page.text
    assert "blockquote" not in [t for t, _ in page.tags]


def test_many_classes_groups_and_rows_fit_on_a_page() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    y, group = rng.integers(0, 12, n), rng.integers(0, 40, n)
    report = audit(
        y, np.where(rng.random(n) < 0.7, y, 0), sensitive_features=group, n_bootstrap=10, random_state=0
    )
    page = audit_html(report)
    assert len(page) < 500_000
    assert "The first 60 of" in page


def test_json_is_flat_and_strict() -> None:
    report = _report(**EXTRAS)
    found = json.loads(audit_json(report, check_gates(report, fail_over={"tpr_gap_max": 0})))
    assert found["schema"] == "debias-ssae/audit/3"
    assert {type(v) for row in found["measures"] for v in row.values()} <= {str, float, int, bool, type(None)}
    assert any(cell["accuracy"] is None for cell in found["cells"])
    assert found["gates"][0]["passed"] is False
    assert found["provenance"]["seed"] == "0"


def test_markdown_shows_names_as_they_are() -> None:
    report = _report(**EXTRAS)
    text = audit_markdown(report, check_gates(report, fail_under={"accuracy": 0.99}))
    assert "<script" not in text
    assert "\\|\\`\\*" in text
    assert "**fail**" in text
    rows = [line for line in text.splitlines() if line.startswith("| gender")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert "## Gates" not in audit_markdown(_report())


def test_junit_counts_failures() -> None:
    report = _report()
    gates = check_gates(
        report, fail_under={"accuracy": 0.99, "worst_group_accuracy": 0.0}, allow_undefined=True
    )
    root = ET.fromstring(audit_junit(report, gates))
    assert root.attrib["tests"] == "4"
    assert int(root.attrib["failures"]) == len(root.findall(".//failure")) == 2
    assert verdict(report).text in (root.findtext("system-out") or "")
    odd = audit([1, 0], [1, 0], sensitive_features=["\x00", "b"], n_bootstrap=5)
    assert len(ET.fromstring(audit_junit(odd, []))) > 0  # it can be read


def _unfair(n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, group = np.arange(2 * n) % 2, np.repeat(["f", "m"], n)
    return y, np.where((group == "f") & (y == 1) & (rng.random(2 * n) < 0.6), 0, y), group


def test_the_verdict_tells_failure_silence_and_holding_apart() -> None:
    y, unfair, group = _unfair()
    failing = audit(y, unfair, sensitive_features=group, n_bootstrap=5)
    assert verdict(failing).kind == "bad"
    assert "the worst cell is 1 / f" in verdict(failing).text
    found = findings(failing)
    assert [f.kind for f in found] == ["bad"] * len(found)
    harms = [f.harm for f in found if f.harm > -1]
    assert harms == sorted(harms, reverse=True), "by the size of the gap beyond the tolerance"
    fair = audit(y, y, sensitive_features=group, n_bootstrap=5)
    assert verdict(fair).kind == "good"
    assert {f.kind for f in findings(fair)} == {"good"}
    some = slice(2995, 3005)
    few = audit(y[some], unfair[some], sensitive_features=group[some], n_bootstrap=5, min_group=2)
    assert verdict(few).tag == "Too few to say"
    nothing = audit([1, 0], [1, 0], sensitive_features=["a", "b"], n_bootstrap=5)
    assert "undefined, since no two groups have the 10 rows" in verdict(nothing).text
    assert "undefined" in audit_text(nothing)


def test_two_models_stand_in_one_row_with_the_change_from_the_first_to_the_second() -> None:
    y, unfair, group = _unfair()
    report = audit(y, {"before": unfair, "after": y}, sensitive_features={"gender": group}, n_bootstrap=20)
    one = verdict(report)
    assert one.tag == "Mixed"
    assert [b.text for b in one.badges] == ["before: fails", "after: holds"]
    assert one.text.startswith("before fails 1 / f: 3")
    assert "% right. after gets 100.0% right there and holds: no gap is wider than 10 points." in one.text
    assert "after minus before: +" in one.text
    page = audit_html(report)
    assert '<span class="tag bad">before: fails</span> <span class="tag good">after: holds</span>' in page
    assert '<li class="bad">' not in page, "only the half of the model that fails is red"
    assert '<div class="bad"><b>before</b>' in page
    assert '<div class="good"><b>after</b>' in page
    first = findings(report)[0]
    assert [p.outcome for p in first.parts] == ["beyond tolerance", "within tolerance"]
    five = {f"m{i}": unfair for i in range(4)} | {"good": y}
    many = audit(y, five, sensitive_features={"gender": group}, n_bootstrap=5)
    assert verdict(many).text.startswith("4 of 5 models fail.")
    assert "that of good" in verdict(many).text
    assert "the worst 3 of 5 models" in findings(many)[0].text


def test_a_model_with_too_few_rows_is_told_apart_from_one_that_fails() -> None:
    y, unfair, group = _unfair(30)
    some = np.where((group == "f") & (np.arange(60) == 1), 0, y)
    report = audit(y, {"after": some, "before": unfair}, sensitive_features={"gender": group}, n_bootstrap=5)
    one = verdict(report)
    assert [b.text for b in one.badges] == ["after: too few rows to say", "before: fails"]
    cells = report.cells.set_index(["model", "label", "group"])
    more = cells.loc[("after", "1", "f"), "more_rows_needed"]
    assert more > 0
    words = (
        f"The 15 rows of that cell are too few to call it within tolerance; about {more} more would narrow"
    )
    assert words in one.text
    assert one.text.index("before fails") < one.text.index("after gets 93.3% right in 1 / f, its worst cell")


def test_every_measure_has_one_outcome_in_words_page_and_table() -> None:
    y, unfair, group = _unfair(60)
    report = audit(y, unfair, sensitive_features=group, n_bootstrap=5)
    for found in findings(report):
        if found.harm > -1:
            rows = report.measures[report.measures["excess"].sub(found.harm).abs() < 1e-12]
            assert {kind_of(outcome) for outcome in rows["outcome"]} == {found.kind}


def test_cells_of_tables() -> None:
    assert number_cell(math.nan).text == "undefined"
    assert number_cell(0.5, math.nan, math.nan).note == ""
    assert number_cell(0.5, 0.4, 0.6).note == "0.400 to 0.600"
    signed = number_cell(-0.0001, -0.2, 0.0001, signed=True)
    assert (signed.text, signed.note) == ("+0.000", "-0.200 to +0.000")
    assert count_cell(12345.0).text == "12,345"
    assert count_cell(1.25).text == "1.2"
    assert count_cell(None).text == "undefined"
    assert p_cell(1e-5).text == "< 0.001"
    assert p_cell(math.nan).text == "–"


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_audit_report(_report(), tmp_path / "a.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InputError, match="missing"):
        write_audit_report(_report(), tmp_path / "missing" / "c.html")
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_without_jinja_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"jinja2.*debias-ssae\[report\]"):
        audit_html(_report())


def test_nothing_holds_where_cells_have_too_few_rows() -> None:
    """A held-out part of confounded data: its worst cells are the small ones, and no clearance comes of the others."""
    y = np.repeat(["bad", "bad", "good", "good"], [192, 8, 4, 196])
    z = np.repeat(["work", "home", "work", "home"], [192, 8, 4, 196]).astype(object)
    predicted = y.copy()
    predicted[192:198] = "good"
    z[0] = None
    report = audit(y, predicted, sensitive_features={"trip": z})
    found = verdict(report)
    assert found.tag == "Too few to say"
    assert "bad / home (8 rows, 25.0% right), good / work (4 rows, 100.0% right)" in found.text
    assert "unknown" not in found.text
    (gate,) = check_gates(report, fail_under={"worst_group_accuracy": 0.8})
    assert gate.passed
    assert gate.reason.startswith("1.0000 in good / home; 2 cell(s) with fewer than 10 rows are left out")
    assert "; 1 cell(s) of rows whose attribute is missing are left out" in gate.reason
    two = audit(y, {"plain": predicted, "debiased": y}, sensitive_features={"trip": z})
    assert {b.outcome for b in verdict(two).badges} == {"Too few to say"}
    assert "bad / home (8 rows, 25.0% right)" in verdict(two).text
    z[0] = "work"
    clear = audit(np.repeat(y, 10), np.repeat(y, 10), sensitive_features={"trip": np.repeat(z, 10)})
    assert verdict(clear).tag == "Holds"
