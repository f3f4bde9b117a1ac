"""The page of a benchmark or demo run, from its results.json: headline, what was removed, one chart, one table."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from debias_ssae.audit.page import Block, Cell, Figure, Table, make_table, number_cell, render
from debias_ssae.audit.plotting import Series, dot_plot
from debias_ssae.audit.verdict import percent
from debias_ssae.benchmark.summary import REFERENCES
from debias_ssae.benchmark.tables import (
    COLUMNS,
    COMPARED,
    HEADS,
    comparison_rows,
    headline_lines,
    interval_of,
)
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import write_text

WORST = "worst_group_accuracy"
SHOWN = 24
"""Methods in the chart, at most, those with the best head first."""
_NAN = float("nan")
_NONE = Cell("–", "")
Row = Mapping[str, Any]


def write_benchmark_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """Write the HTML page of ``results`` (the content of results.json).

    Raises InputError when there is nothing to show, MissingExtraError without jinja2 and matplotlib.
    """
    rows: list[Row] = list(results.get("summary") or [])
    if not rows:
        raise InputError("the results hold no summary; nothing to report")
    quick, data = bool(results.get("quick")), dict(results.get("data") or {})
    seeds = sorted({run["seed"] for run in results.get("runs") or [] if "seed" in run})
    context = {
        "title": str(results.get("title") or "Debiasing benchmark"),
        "eyebrow": "Quick look, no measurement" if quick else "Benchmark report",
        "lede": _lede(data, rows, seeds),
        "headline": headline(results),
        "limits": (),
        "quick": quick,
        "verdict": list(verdict_lines(results)),
        "blocks": [*_removed(results.get("runs") or []), _headline(rows), *_comparisons(results)],
        "skipped": _skipped(results.get("skipped") or []),
        "provenance": _provenance(results, data, seeds),
        "config": json.dumps(results.get("config") or {}, indent=2, default=str),
    }
    write_text(path, render("benchmark", context))
    return Path(path)


def headline(results: Mapping[str, Any]) -> str:
    """The worst group before and after, and what balanced data reach, in a sentence; empty where one is missing."""
    found: dict[str, list[Row]] = {}
    for (method, _), heads in headline_lines(results.get("summary") or []):
        if "retrained" in heads:
            found.setdefault(method, []).append(heads["retrained"])
    if not {"erm", "ssae_default", "oracle"} <= set(found):
        return ""

    def told(row: Row, *more: str) -> str:
        names = "; ".join(str(name) for name in (row.get("worst_group"), *more) if name)
        return f"{interval_of(row, WORST)[0]:.2f}" + (f" ({names})" if names else "")

    after = found["ssae_default"]
    reached = " and ".join(told(row, *([row["regime"]] if len(after) > 1 else [])) for row in after)
    return (
        "The accuracy of the worst group, the label and attribute that the classifier gets wrong most often, goes from"
        f" {told(found['erm'][0])} to {reached} with SSAEDebiaser; a classifier trained on balanced data reaches"
        f" {told(found['oracle'][0])}."
    )


def verdict_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Before and what balanced data reach, in percent; then what is higher than the debiaser, by kind of head."""
    lines = headline_lines(results.get("summary") or [])
    rows = [(head, row) for _, heads in lines for head, row in heads.items()]
    first = {row["method"]: row for _, row in reversed(rows)}
    name = next((n for n in ("ssae_default", "ssae") if n in first), None)
    if "erm" in first:
        yield f"Before any edit the worst group is right in {_said(first['erm'])} of its texts."
    if "oracle" in first:
        yield f"A classifier trained on balanced data reaches {_said(first['oracle'])}."
    if name is None:
        yield "No row of the debiaser is in these results; see the tables."
        return
    for head in HEADS:
        ours = [row for kind, row in rows if kind == head and row["method"] == name]
        if not ours:
            continue
        said = "; ".join(f"{_said(row)} with {row.get('regime')}" for row in ours)
        yield f"{head.capitalize()} head: {name} reaches {said}."
        best = max(interval_of(row, WORST)[0] for row in ours)
        higher = {
            row["method"]
            for kind, row in rows
            if kind == head and interval_of(row, WORST)[0] > best and not row.get("needs_attribute")
        } - {name, *REFERENCES}
        if higher:
            yield f"{head.capitalize()} head, higher than {name}: {', '.join(sorted(higher))}."


def _removed(runs: Sequence[Row]) -> Iterator[Block]:
    """The names of the latents that the default removes, of the first seed."""
    found = {
        str(run["regime"]): run
        for run in reversed(runs)
        if run.get("method") == "ssae_default" and run.get("removed")
    }
    if found:
        text = [
            f"{regime}: {run['n_latents']} latents: {', '.join(run['removed'])}."
            for regime, run in found.items()
        ]
        yield Block("removed", "What was removed", text=text)


def _headline(rows: Sequence[Row]) -> Block:
    """One line a method and regime; the kinds of head beside each other."""
    lines = sorted(headline_lines(rows), key=lambda line: -_best(line[1]))
    body, dots = [], []
    for (method, regime), heads in lines:
        shown = heads.get("retrained") or next(iter(heads.values()))
        needs = bool(shown.get("needs_attribute"))
        worst = [interval_of(heads.get(head), WORST) for head in HEADS]
        rest = [interval_of(shown, m) for m in ("balanced_accuracy", "leakage_given_y", "gap_closed")]
        rest[1] = (rest[1][0], _NAN, _NAN)
        cells = [
            Cell(method + (" †" if needs else ""), kind="warn" if needs else ""),
            regime,
            *(_NONE if math.isnan(one[0]) else number_cell(*one) for one in (*worst, *rest)),
        ]
        body.append(cells)
        dots.append((method if regime == "none" else f"{method}, {regime}", worst))
    series = [
        Series(head, *map(list, zip(*(worst[i] for _, worst in dots[:SHOWN]), strict=True)))  # type: ignore[arg-type]
        for i, head in enumerate(HEADS)
        if any(not math.isnan(worst[i][0]) for _, worst in dots[:SHOWN])
    ]
    svg = dot_plot(
        [name for name, _ in dots[:SHOWN]],
        series,
        title="Worst-group accuracy by method and head",
        x_label="worst-group accuracy",
        show_undefined=False,
    )
    caption = "Worst-group accuracy by method, with 95% intervals; best head first."
    note = "Intervals: 95%, for new texts and seeds."
    if any(row.get("needs_attribute") for _, heads in lines for row in heads.values()):
        note = f"† needs the attribute of each text when used; never ranked. {note}"
    table = make_table(
        "Worst-group accuracy by head, and what the retrained head has", COLUMNS, body, note=note
    )
    return Block("headline", "All methods", [Figure(svg, caption)], [table])


def _comparisons(results: Mapping[str, Any]) -> Iterator[Block]:
    """The debiaser minus each member of the family."""
    titles = {
        "comparisons_of_default": "ssae_default minus the other",
        "comparisons": "ssae minus the other",
    }
    tables = []
    for key, title in titles.items():
        body = []
        for one, cells in zip(found := results.get(key) or [], comparison_rows(found), strict=True):
            method = Cell(str(one.get("of", "")), kind="warn" if one["ci_high"] < 0 else "")
            numbers = (Cell(text, text) for text in cells[3:])
            body.append([method, *cells[:3], *numbers])
        if body:
            tables.append(
                make_table(f"Worst-group accuracy, {title}", ("method", *COMPARED), body, folded=True)
            )
    if tables:
        text = [
            "Same texts and seeds on both sides. The family was fixed before the first run; p after Holm over its "
            "members in a regime and head; the smallest detectable difference has 80% power at 0.05 before that."
        ]
        yield Block("comparisons", "Paired differences", tables=tables, text=text)


def _skipped(notes: Sequence[Mapping[str, str]]) -> Table | None:
    if not notes:
        return None
    body = [[n["method"], n["regime"], Cell(n["reason"], wrap=True)] for n in notes]
    return make_table("What could not run", ("method", "regime", "why"), body)


def _lede(data: Mapping[str, Any], rows: Sequence[Row], seeds: Sequence[Any]) -> str:
    n = data.get("n")
    size = f"{n:,} texts" if isinstance(n, int) else "built-in data"
    methods = len({row.get("method") for row in rows})
    times = f", {len(seeds)} seed{'s' if len(seeds) != 1 else ''}" if seeds else ""
    return f"{data.get('path') or 'Synthetic biographies'}: {size}, {methods} methods{times}."


def _said(row: Row) -> str:
    value, low, high = interval_of(row, WORST)
    if math.isnan(value):
        return "undefined"
    return percent(value) if math.isnan(low) else f"{percent(value)} ({percent(low)} to {percent(high)})"


def _best(heads: Mapping[str, Row]) -> float:
    values = [interval_of(row, WORST)[0] for row in heads.values()]
    return max((v for v in values if not math.isnan(v)), default=-1.0)


def _provenance(results: Mapping[str, Any], data: Mapping[str, Any], seeds: Sequence[Any]) -> dict[str, str]:
    facts = {"Data": data.get("path"), "Texts": data.get("n"), "SHA-256 of the data": data.get("sha256")}
    made = dict(results.get("made") or {})
    facts |= {"Corpus": data.get("corpus"), "Date": made.get("date"), "Command": made.get("command")}
    facts |= {"Device": made.get("device"), "Precision": made.get("dtype")}
    facts["Seeds"] = ", ".join(map(str, seeds))
    facts |= {f"Version of {name}": value for name, value in dict(results.get("versions") or {}).items()}
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
