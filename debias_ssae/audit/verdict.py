"""An audit in words: one sentence, at most five findings in order of harm; the same as JSON, markdown, JUnit, text.

Nothing is said here that is not a row of a table, and every measure has the outcome that its row has.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring  # nosec B405

from debias_ssae.audit import measures
from debias_ssae.audit.gates import GateResult
from debias_ssae.audit.page import with_interval
from debias_ssae.audit.rates import UNKNOWN
from debias_ssae.audit.run import AuditReport, records
from debias_ssae.core.io import as_json

MOST_FINDINGS = 5
_MOST_MODELS = _MOST_CELLS = 3
_RATIO = "demographic_parity_ratio"
WORDS = {
    "worst_group_accuracy": "worst-group accuracy",
    "tpr_gap_max": "true positive rate gap",
    "tpr_gap_rms": "TPR gap, RMS",
    "demographic_parity_difference": "selection rate gap",
    "demographic_parity_ratio": "selection rate ratio",
    "equalized_odds_difference": "equalised odds gap",
}
_TAGS = {"bad": "Fails", "warn": "Too few to say", "good": "Holds", "": "Note"}
_STATES = {"bad": "fails", "warn": "too few rows to say", "good": "holds"}


_KINDS = {
    **dict.fromkeys((measures.BEYOND, measures.BELOW_FIFTHS), "bad"),
    **dict.fromkeys((measures.TOO_FEW, measures.UNDEFINED, measures.NO_INTERVAL), "warn"),
    **dict.fromkeys((measures.WITHIN, measures.ABOVE_FIFTHS, measures.AS_LABELS), "good"),
}


class Part(NamedTuple):
    """What a finding says of one of several models."""

    model: str
    text: str
    kind: str
    outcome: str


class Finding(NamedTuple):
    """A sentence; ``kind`` is bad, warn, good or empty, ``tag`` the word that says so without colour.

    A finding about several models has no tag: each of its parts has an outcome of its own.
    """

    kind: str
    tag: str
    head: str
    """Of one model the whole sentence; of several what ``parts`` are about."""
    harm: float = 0.0
    """By how much the gap exceeds the tolerance."""
    section: str = ""
    parts: tuple[Part, ...] = ()
    badges: tuple[Part, ...] = ()
    """Of the verdict on several models: each model's."""

    @property
    def label(self) -> str:
        """The tag, or the badges."""
        return "; ".join(b.text for b in self.badges) or self.tag

    @property
    def line(self) -> str:
        """The label, where there is one, and the text."""
        return f"{self.label}: {self.text}" if self.label else self.text

    @property
    def text(self) -> str:
        """All of it in a line."""
        parts = "; ".join(f"{p.model}: {p.text}, {p.outcome}" for p in self.parts)
        return f"{self.head}: {parts}." if parts else self.head


def words(metric: str) -> str:
    """A measure's name in words."""
    return WORDS.get(metric, metric.replace("_", " "))


def kind_of(outcome: str) -> str:
    """How grave an outcome is: bad, warn, good, or empty for what is not judged."""
    return _KINDS.get(outcome, "")


def percent(value: float) -> str:
    """A share in percent, or "undefined"."""
    return "undefined" if math.isnan(value) else f"{100 * value:.1f}%"


def verdict(report: AuditReport) -> Finding:
    """The one sentence that the audit comes down to."""
    rows = [
        r
        for r in records(report.measures)
        if _judged(r, report) and (r["metric"] != _RATIO or kind_of(r["outcome"]) == "bad")
    ]
    tolerance = 100 * report.settings["tolerance"]
    kinds = {m: {kind_of(r["outcome"]) for r in rows if r["model"] == m} for m in report.models}
    few = {m: _left_out(report, m) for m in report.models}
    states = {
        m: next((k for k in ("bad", "warn", "good") if k in found and not (k == "good" and few[m])), "warn")
        for m, found in kinds.items()
    }
    failing = [r for r in rows if kind_of(r["outcome"]) == "bad"]
    kind = "bad" if failing else "warn" if "warn" in states.values() else "good"
    worst = max(failing or rows, key=_harm, default=None)
    if worst is None:
        text = (
            "Nothing could be measured: every gap is undefined, since no two groups have the"
            f" {report.settings['min_group']} rows that a rate needs. Join small groups; bin numbers."
        )
        return Finding("warn", _TAGS["warn"], text)
    if len(report.models) == 1:
        same = [r for r in rows if kind_of(r["outcome"]) == kind]
        if kind == "bad":
            cells = [r for r in failing if r["metric"] == "worst_group_accuracy"]
            worst = max(cells, key=_harm, default=worst)  # the plainest of what fails
            text = f"By {worst['section']}, {_said(worst, report)}; {tolerance:g} points are tolerated."
        elif kind == "warn" and not same:
            text = f"No gap that could be measured is wider than {tolerance:g} points, but {few[report.models[0]]}."
        elif kind == "warn":
            text = (
                f"{len(same)} of {len(rows)} gaps rest on too few rows to tell whether they exceed {tolerance:g}"
                " points; none was shown to."
            )
        else:
            text = f"No gap between groups is wider than {tolerance:g} points; {len(rows)} were measured."
        return Finding(kind, _TAGS[kind], text, section=worst["section"])
    tag = "Mixed" if len(set(states.values())) > 1 else _TAGS[kind]
    if len(report.models) == 2:
        text = f"{' '.join(_of_models(report, rows, states, few))} {_change(report, worst['section'])}"
    else:
        table = [r for r in records(report.measures) if r["section"] == worst["section"]]
        cells = [r for r in table if r["metric"] == "worst_group_accuracy" and not math.isnan(r["value"])]
        n = sum(s == "bad" for s in states.values())
        text = f"{n} of {len(report.models)} models fail." if n else "No model was shown to fail."
        if cells:
            best = max(cells, key=lambda r: r["value"])
            text += (
                f" The highest worst-group accuracy by {best['section']} is that of {best['model']}:"
                f" {percent(best['value'])} ({_interval(best)})."
            )
    badges = tuple(
        Part(model, f"{model}: {_STATES[state]}", state, _TAGS[state]) for model, state in states.items()
    )
    return Finding(kind, tag, text, section=worst["section"], badges=badges)


def _of_models(
    report: AuditReport, rows: Sequence[dict[str, Any]], states: Mapping[str, str], few: Mapping[str, str]
) -> Iterator[str]:
    """A sentence for each of two models: which cell fails, and what the other model gets there.

    ``few`` says of each which cells hold too few rows.
    """
    failing, tolerance = "", 100 * report.settings["tolerance"]
    for model in sorted(states, key=lambda m: states[m] != "bad"):
        own = [r for r in rows if r["model"] == model]
        mine = [r for r in own if kind_of(r["outcome"]) == states[model]] or own
        cells = [r for r in mine if r["metric"] == "worst_group_accuracy"]
        worst = max(cells or mine, key=_harm, default=None)
        if worst is None:
            yield f"Nothing could be measured of {model}."
        elif states[model] == "bad" and not cells:
            yield f"{model} fails: by {worst['section']}, {_said(worst, report)}."
        elif states[model] == "bad":
            failing, section = worst["where"], worst["section"]
            yield f"{model} fails {failing}: {percent(worst['value'])} right."
        else:
            if not failing:
                section = worst["section"]
            where = (
                failing or report.measure_row("worst_group_accuracy", model=model, section=section)["where"]
            )
            table = report.cells[(report.cells["model"] == model) & (report.cells["section"] == section)]
            cell = table[table["label"] + " / " + table["group"] == where].iloc[0]
            place = "there" if failing else f"in {where}, its worst cell"
            text, more = f"{model} gets {percent(cell['accuracy'])} right {place}", cell["more_rows_needed"]
            if states[model] == "good":
                yield f"{text} and holds: no gap is wider than {tolerance:g} points."
            elif few[model]:
                yield f"{text}, but {few[model]}."
            elif more:
                yield (
                    f"{text}. The {cell['n']:,.0f} rows of that cell are too few to call it within tolerance; about"
                    f" {more:,} more would narrow the interval to ±{tolerance / 2:g} points."
                )
            else:
                yield f"{text}; {report.n_rows:,} rows are too few to call every gap within tolerance."


def _left_out(report: AuditReport, model: str) -> str:
    """Which cells hold too few rows to be judged, the worst first, as a clause; "" where none does."""
    table = report.cells[(report.cells["model"] == model) & (report.cells["group"] != UNKNOWN)]
    rows = table[table["n"] < report.settings["min_group"]].sort_values("accuracy").to_dict("records")
    said = [
        f"{r['label']} / {r['group']} ({r['n']:g} row{'s' * (r['n'] != 1)}, {percent(r['accuracy'])} right)"
        if r["n"]
        else f"{r['label']} / {r['group']} (no rows)"
        for r in rows
    ]
    if not said:
        return ""
    more = f" and {len(said) - _MOST_CELLS} more" if len(said) > _MOST_CELLS else ""
    return f"too few rows were there to judge {', '.join(said[:_MOST_CELLS])}{more}"


def _change(report: AuditReport, section: str) -> str:
    """The second of two models minus the first."""
    a, b = report.models
    one, two = (report.measure_row("worst_group_accuracy", model=m, section=section) for m in (a, b))
    if math.isnan(one["value"]) or math.isnan(two["value"]):
        return f"The worst-group accuracy by {section} is undefined."
    rows = records(report.comparisons)
    row = next(r for r in rows if r["section"] == section and r["metric"] == "worst_group_accuracy")
    return (
        f"Worst-group accuracy by {section}, {b} minus {a}: {100 * row['difference']:+.1f} points (95% interval"
        f" {100 * row['ci_low']:+.1f} to {100 * row['ci_high']:+.1f})."
    )


def findings(report: AuditReport) -> list[Finding]:
    """All findings, the greatest harm first: what fails, what cannot be said, what holds.

    One finding a section and measure, with the models side by side. The page and the command line show the
    first five.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(report.measures):
        if _judged(row, report):
            groups.setdefault((row["section"], row["metric"]), []).append(row)
    # a ratio that is not below four fifths repeats the gap in selection
    found = [
        _finding(rows, report)
        for (_, metric), rows in groups.items()
        if metric != _RATIO or any(r["outcome"] == measures.BELOW_FIFTHS for r in rows)
    ]
    found += _extras(report)
    order = {"bad": 0, "warn": 1, "": 2, "good": 3}
    return sorted(found, key=lambda f: (order[f.kind], -f.harm))


def unmeasured(report: AuditReport) -> str:
    """How many numbers rest on no rows or on too few, in a sentence; empty when none does."""
    n = len(report.undefined.drop_duplicates(["section", "what"]))
    if not n:
        return ""
    return (
        f"{n:,} numbers rest on no rows or on fewer than {report.settings['min_group']}; they are listed below, decide"
        " nothing, and are no evidence of fairness."
    )


def _judged(row: Mapping[str, Any], report: AuditReport) -> bool:
    """Measures that findings are made of: the others repeat them."""
    metric, where = row["metric"], str(row["where"])
    if math.isnan(row["value"]):
        return False
    if metric == "equalized_odds_difference":
        # of two classes one's false positives are the other's misses
        return where.startswith("FPR") and len(report.classes) > 2
    if metric == _RATIO:
        return row["outcome"] in (measures.BELOW_FIFTHS, measures.TOO_FEW, measures.ABOVE_FIFTHS)
    return not math.isnan(row["excess"])


def _harm(row: Mapping[str, Any]) -> float:
    return -math.inf if math.isnan(row["excess"]) else float(row["excess"])


def _finding(rows: list[dict[str, Any]], report: AuditReport) -> Finding:
    kinds = {kind_of(r["outcome"]) for r in rows}
    kind = next((k for k in ("bad", "warn") if k in kinds), "good")
    harm = max(_harm(r) for r in rows if kind_of(r["outcome"]) == kind)
    if len(report.models) == 1:
        text = _said(rows[0], report)
        return Finding(kind, _TAGS[kind], f"By {rows[0]['section']}, {text}.", harm, rows[0]["section"])
    shown = rows if len(rows) <= _MOST_MODELS else sorted(rows, key=_harm, reverse=True)[:_MOST_MODELS]
    parts = [Part(r["model"], _short(r, report), kind_of(r["outcome"]), r["outcome"]) for r in shown]
    name = words(rows[0]["metric"])
    head = f"{name[0].upper()}{name[1:]} by {rows[0]['section']}"
    head += f" (the worst {len(shown)} of {len(report.models)} models)" if len(rows) > len(shown) else ""
    return Finding(kind, "", head, harm, rows[0]["section"], tuple(parts))


_NAMES = {
    "tpr_gap_max": "the true positive rate",
    "accuracy_gap": "accuracy",
    "demographic_parity_difference": "the selection rate (how often the label is predicted)",
    "equalized_odds_difference": "the false positive rate",
}


def _said(row: Mapping[str, Any], report: AuditReport) -> str:
    """A measure of one model as a clause."""
    metric = row["metric"]
    if metric == "worst_group_accuracy":
        return f"the worst cell is {_short(row, report)}"
    if metric == _RATIO:
        return f"the ratio of selection rates is {_short(row, report)}, {row['outcome']}"
    name = _NAMES.get(metric, words(metric))
    text = f"{name} differs by {_points(row)}"
    if metric == "demographic_parity_difference" and "labels themselves" in row["note"]:
        text += f"; the labels {row['note'].split('the labels ')[1]}"
    if row["outcome"] == measures.TOO_FEW and row["ci_low"] > 0:
        text += "; there is a difference, but whether it matters is open"
    return text


def _short(row: Mapping[str, Any], report: AuditReport) -> str:
    metric, where = row["metric"], row["where"]
    if metric == "worst_group_accuracy":
        overall = report.measure("accuracy", model=row["model"], section=row["section"])
        below = 100 * (overall - row["value"])
        return (
            f"{where}, right in {percent(row['value'])} of its rows ({_interval(row)}), {abs(below):.1f} points"
            f" {'below' if below >= 0 else 'above'} the overall accuracy of {percent(overall)}"
        )
    if metric == _RATIO:
        return f"{row['value']:.2f} ({where}; 95% interval {row['ci_low']:.2f} to {row['ci_high']:.2f})"
    return _points(row)


def _points(row: Mapping[str, Any]) -> str:
    """A gap with its interval, both in points."""
    ends = f"95% interval {100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f}"
    interval = "no interval" if math.isnan(row["ci_low"]) else ends
    return f"{100 * row['value']:.1f} points ({row['where']}; {interval})"


def _interval(row: Mapping[str, Any]) -> str:
    if math.isnan(row["ci_low"]):
        return "no interval"
    return f"95% interval {percent(row['ci_low'])} to {percent(row['ci_high'])}"


def by_name(found: Mapping[str, Any] | None, mark: str) -> dict[str, Any]:
    """Leakage by attribute, or flips by model; that of a single one, known by ``mark``, has no name."""
    return {"": found} if found and mark in found else dict(found or {})


def _extras(report: AuditReport) -> Iterator[Finding]:
    for attribute, one in by_name(report.extras.get("leakage"), "results").items():
        head = f"{attribute}: " if attribute else ""
        for claim in one.get("claims", ()):
            yield Finding("", "Leakage", f"{head}{claim}")
    for name, found in by_name(report.extras.get("flips"), "rate").items():
        text = (
            f"{name + ': ' if name else ''}{percent(found['rate'])} of predictions change when only the version of the"
            f" attribute changes ({found['n_flipped']} of {found['n_with_counterfactual']} texts; {_interval(found)})."
        )
        excess = found["rate"] - report.settings["tolerance"]
        beyond = found["ci_low"] > report.settings["tolerance"]
        yield Finding("bad" if beyond else "", "Counterfactual flips", text, excess)


def audit_json(report: AuditReport, gates: Sequence[GateResult] = ()) -> str:
    """Flat tables as JSON; undefined numbers are null, infinite ones too (JSON has neither)."""
    one = verdict(report)
    content = {
        **report.to_dict(),
        "verdict": {
            "outcome": one.tag,
            "text": one.text,
            "models": {b.model: b.outcome for b in one.badges},
        },
        "gates": [vars(g) for g in gates],
    }
    return json.dumps(as_json(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def value_text(row: Mapping[str, Any]) -> str:
    """A measure's value and interval."""
    return with_interval(row["value"], row["ci_low"], row["ci_high"], missing="undefined")


def shown_measures(report: AuditReport, section: str) -> dict[str, list[dict[str, Any]]]:
    """The measures of a section that are worth a reader's time, by metric: a row a model.

    Of many classes the ratio of selection rates is not: the rarest class decides it.
    """
    left_out = _RATIO if len(report.classes) > 2 else ""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in records(report.measures):
        if row["section"] == section and row["metric"] != left_out:
            groups.setdefault(row["metric"], []).append(row)
    return groups


def audit_text(report: AuditReport, *, summary: bool = False, width: int = 80) -> str:
    """The audit for a terminal: the verdict, with ``summary`` no more, then findings and the measures."""
    one = verdict(report)
    blocks = [fill(part, width) for part in ((one.label, one.text) if one.badges else (one.line,))]
    if not summary:
        shown = findings(report)[:MOST_FINDINGS]
        blocks += [fill(f"- {f.line}", width, subsequent_indent="  ") for f in shown]
        blocks += [fill(note, width) for note in [unmeasured(report)] if note]
        for section in report.sections:
            blocks.append(f"\nBy {section}")
            for metric, rows in shown_measures(report, section).items():
                for i, row in enumerate(rows):
                    name, model = words(metric)[:23] if i == 0 else "", _brief(str(row["model"]))
                    blocks.append(f"  {name:23} {model:9} {value_text(row):22} {row['outcome']}")
    return "\n".join(blocks)


def _brief(name: str, longest: int = 9) -> str:
    """The name with its middle left out: names of models differ at the end as often as at the beginning."""
    return name if len(name) <= longest else f"{name[:3]}…{name[4 - longest :]}"


def audit_markdown(report: AuditReport, gates: Sequence[GateResult] = ()) -> str:
    """Verdict, gates, findings and measures as GitHub-flavoured markdown."""
    one = verdict(report)
    lines = ["# Fairness audit", "", f"**{plain_markdown(one.label)}.** {plain_markdown(one.text)}", ""]
    lines += [f"{report.n_rows:,} rows; models: {', '.join(map(plain_markdown, report.models))}.", ""]
    if gates:
        lines += ["## Gates", "", "| | measure | section | model | result |", "|---|---|---|---|---|"]
        for gate in gates:
            cells = (gate.metric, gate.section, gate.model, gate.reason)
            lines.append(f"| {'pass' if gate.passed else '**fail**'} {_table_row(cells)}")
        lines.append("")
    lines += ["## Findings", ""]
    lines += [
        f"- {f'**{f.tag}**: ' if f.tag else ''}{plain_markdown(f.text)}"
        for f in findings(report)[:MOST_FINDINGS]
    ]
    lines += ["", "## Measures", "", "| section | model | measure | value (95% interval) | outcome | where |"]
    lines.append("|---|---|---|---|---|---|")
    for row in records(report.measures):
        shown = (row["section"], row["model"], row["metric"], value_text(row), row["outcome"], row["where"])
        lines.append(_table_row(shown))
    provenance = report.extras.get("provenance", {})
    if provenance:
        lines += ["", "## Where these numbers come from", ""]
        lines += [
            f"- {plain_markdown(str(k).replace('_', ' '))}: {plain_markdown(str(v))}"
            for k, v in provenance.items()
        ]
    return "\n".join(lines) + "\n"


def _table_row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(plain_markdown(str(c)) for c in cells)} |"


def plain_markdown(text: str) -> str:
    """Text that markdown shows as it is: no group's name makes a link, a tag, an image or a new cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_{}[]|#!~@":
        text = text.replace(sign, f"\\{sign}")
    return text


def audit_junit(report: AuditReport, gates: Sequence[GateResult]) -> str:
    """One test case a gate, section and model, and the findings in words."""
    counts = {"tests": len(gates), "failures": sum(not g.passed for g in gates), "errors": 0, "skipped": 0}
    suite = Element("testsuite", {"name": "debias-ssae audit"} | {name: str(n) for name, n in counts.items()})
    for gate in gates:
        sign = ">=" if gate.kind == "fail_under" else "<="
        name = _legal(f"{gate.metric} {sign} {gate.threshold:g} [{gate.model}]")
        case = SubElement(suite, "testcase", classname=_legal(f"audit.{gate.section}"), name=name)
        if not gate.passed:
            SubElement(case, "failure", message=_legal(gate.reason), type="fairness")
    said = "\n".join(finding.line for finding in (verdict(report), *findings(report)))
    SubElement(suite, "system-out").text = _legal(said)
    indent(suite)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suite, encoding="unicode")}\n'


def _legal(text: str) -> str:
    """Without the control characters that XML 1.0 forbids."""
    return "".join(c for c in text if c in "\t\n\r" or (ord(c) >= 0x20 and ord(c) not in (0xFFFE, 0xFFFF)))
