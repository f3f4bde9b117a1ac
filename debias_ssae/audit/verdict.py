"""An audit's tables in sentences. Nothing is said here that is not a row of a table."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from debias_ssae.audit import AuditReport
from debias_ssae.audit.extra_blocks import leakage_by_attribute

MOST_LINES = 14
COMPARED_FIRST = ("worst_group_accuracy", "accuracy", "tpr_gap_rms")
_RANK = {"Difference": 0, "Fails a group": 0, "Below four fifths": 0, "Undefined": 1, "Too few to say": 4}
_DECIDED = ("a better", "b better")


class Line(NamedTuple):
    """A sentence; ``kind`` is bad, warn, good or empty, ``tag`` the word that says so without colour."""

    kind: str
    tag: str
    text: str


def verdict_lines(report: AuditReport) -> list[Line]:
    """All sentences, the gravest first: failures, what cannot be said, differences between models, what
    holds.
    """
    lines = [*_missing(report)]
    for row in report.measures.to_dict("records"):
        line = _measure({str(k): v for k, v in row.items()}, report)
        if line is not None:
            lines.append(line)
    for row in report.comparisons.to_dict("records"):
        if row["metric"] in COMPARED_FIRST[: 3 if len(report.models) == 2 else 1]:
            lines.append(_comparison({str(k): v for k, v in row.items()}))
    lines += _extras(report)
    return sorted(_merged(lines), key=lambda line: _RANK.get(line.tag, 2 if line.kind != "good" else 5))


def _merged(lines: list[Line]) -> list[Line]:
    """What is too few to say, in one sentence a section and model: many such lines would bury the rest."""
    heads: dict[str, list[str]] = {}
    for line in lines:
        if line.tag == "Too few to say":
            head, _, rest = line.text.partition(": ")
            heads.setdefault(head, []).append(rest.removesuffix("."))
    kept = [line for line in lines if line.tag != "Too few to say"]
    return kept + [
        Line("warn", "Too few to say", f"{head}: {'; '.join(rest)}.") for head, rest in heads.items()
    ]


def share(value: float) -> str:
    """A share in percent, or "undefined"."""
    return "undefined" if math.isnan(value) else f"{100 * value:.1f}%"


def _interval(row: Mapping[str, Any], *, points: bool = False) -> str:
    if math.isnan(row["ci_low"]):
        return "no interval"
    if points:
        return f"95% interval {100 * row['ci_low']:+.1f} to {100 * row['ci_high']:+.1f}"
    return f"95% interval {share(row['ci_low'])} to {share(row['ci_high'])}"


def _missing(report: AuditReport) -> list[Line]:
    lines = []
    for section, table in report.undefined.groupby("section", sort=False):
        things = list(dict.fromkeys(table["what"]))
        named = "; ".join(things[:4]) + (f" and {len(things) - 4} more" if len(things) > 4 else "")
        text = f"{section}: {len(things)} number(s) cannot be computed or rest on too few rows: {named}."
        lines.append(Line("warn", "Undefined", text + " They are neither zero nor evidence of fairness."))
    return lines


def _measure(row: Mapping[str, Any], report: AuditReport) -> Line | None:
    head = f"{row['section']}, {row['model']}:"
    if row["outcome"] == "undefined":
        return Line("warn", "Undefined", f"{head} {row['metric'].replace('_', ' ')}: {row['note']}.")
    if row["metric"] == "worst_group_accuracy":
        return _worst(row, head, report)
    if row["metric"] == "demographic_parity_ratio":
        return _ratio(row, head)
    if row["metric"] in ("tpr_gap_max", "accuracy_gap", "demographic_parity_difference"):
        return _gap(row, head)
    return None


def _worst(row: Mapping[str, Any], head: str, report: AuditReport) -> Line:
    overall = report.measure_row("accuracy", model=row["model"], section=row["section"])
    text = (
        f"{head} the worst cell is {row['where']}, right in {share(row['value'])} of its rows"
        f" ({_interval(row)});"
        f" overall accuracy {share(overall['value'])}."
    )
    if row["note"]:
        text += f" {row['note'][0].upper()}{row['note'][1:]}."
    if row["ci_high"] < overall["ci_low"]:
        return Line("bad", "Fails a group", text)
    if row["outcome"] == "too few to say":
        return Line("warn", "Too few to say", text)
    return Line("", "Worst cell", text)


def _gap(row: Mapping[str, Any], head: str) -> Line:
    name = {
        "tpr_gap_max": "the largest difference in true positive rate",
        "accuracy_gap": "the largest difference in accuracy between groups",
        "demographic_parity_difference": "the largest difference in how often a label is predicted",
    }[row["metric"]]
    text = f"{head} {name} is {100 * row['value']:.1f} points ({row['where']}; {_interval(row)})"
    if row["metric"] == "demographic_parity_difference" and row["note"]:
        text += f"; {row['note']}"
    chance = row["chance_95"]
    if not math.isnan(chance) and row["outcome"] != "too few to say":
        text += f"; groups dealt at random stay below {100 * chance:.1f} points 19 times in 20"
    if row["outcome"] == "difference found":
        return Line("bad", "Difference", f"{text}.")
    if row["outcome"] == "too few to say":
        return Line("warn", "Too few to say", f"{text}.")
    return Line("good", "No difference", f"{text}: {row['outcome']}.")


def _ratio(row: Mapping[str, Any], head: str) -> Line:
    text = (
        f"{head} the impact ratio is {row['value']:.2f} ({row['where']}; 95% interval {row['ci_low']:.2f} to"
        f" {row['ci_high']:.2f})"
    )
    kind = {"below four fifths": "bad", "too few to say": "warn"}.get(row["outcome"], "good")
    tag = {"bad": "Below four fifths", "warn": "Too few to say", "good": "Four fifths"}[kind]
    return Line(kind, tag, f"{text}." if kind == "warn" else f"{text}: {row['outcome']}.")


def _comparison(row: Mapping[str, Any]) -> Line:
    metric = {"worst_group_accuracy": "worst-group accuracy", "tpr_gap_rms": "TPR gap (RMS)"}.get(
        row["metric"], "accuracy"
    )
    head = f"{row['section']}: {metric} of {row['model_a']} minus {row['model_b']} is"
    text = f"{head} {100 * row['difference']:+.1f} points ({_interval(row, points=True)})"
    if row["outcome"] in _DECIDED:
        better = row["model_a"] if row["outcome"] == "a better" else row["model_b"]
        return Line("", "Models differ", f"{text}: {better} is better.")
    return Line("", "Models", f"{text}: {row['outcome']}.")


def _extras(report: AuditReport) -> list[Line]:
    lines = []
    leakage, flips = report.extras.get("leakage"), report.extras.get("flips")
    probed = leakage_by_attribute(leakage) if leakage else {}
    for attribute, one in probed.items():
        head = f"{attribute}: " if len(probed) > 1 else ""
        lines += [Line("", "Leakage", f"{head}{claim}") for claim in one["claims"]]
    for name, found in (flips or {}).items() if _by_model(flips) else [("", flips)] if flips else []:
        text = (
            f"{name + ': ' if name else ''}{share(found['rate'])} of predictions change when only the"
            " version of the"
            f" attribute changes ({found['n_flipped']} of {found['n_with_counterfactual']} texts; {_interval(found)})."
        )
        lines.append(Line("bad" if found["ci_low"] > 0.01 else "", "Counterfactual flips", text))
    return lines


def _by_model(flips: Any) -> bool:
    return bool(flips) and "rate" not in flips
