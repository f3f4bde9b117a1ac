"""Thresholds for pipelines: which measures fall short, in which section, for which model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from debias_ssae.audit.outcome import AuditReport
from debias_ssae.core.errors import InputError


@dataclass(frozen=True)
class GateResult:
    """One threshold applied to one measure of one section and model."""

    metric: str
    section: str
    model: str
    value: float
    threshold: float
    kind: str
    """"fail_under" or "fail_over"."""
    passed: bool
    reason: str


def check_gates(
    report: AuditReport,
    *,
    fail_under: Mapping[str, float] | None = None,
    fail_over: Mapping[str, float] | None = None,
    allow_undefined: bool = False,
) -> list[GateResult]:
    """Apply thresholds to every section and model.

    A measure that is undefined, or computed over some of its cells only because the others are empty, fails
    unless ``allow_undefined``: deleting the rows of a failing group must not make a gate pass. Raises
    InputError for a metric that the report does not hold.
    """
    known = list(dict.fromkeys(report.measures["metric"]))
    results = []
    for kind, limits in (("fail_under", fail_under or {}), ("fail_over", fail_over or {})):
        for metric, threshold in limits.items():
            if metric not in known:
                raise InputError(
                    f"No measure {metric!r} to hold against {threshold:g}; measures: {', '.join(known)}"
                )
            rows = report.measures[report.measures["metric"] == metric]
            for row in rows.to_dict("records"):
                results.append(
                    _checked({str(k): v for k, v in row.items()}, kind, threshold, allow_undefined)
                )
    return results


def _checked(row: Mapping[str, object], kind: str, threshold: float, allow_undefined: bool) -> GateResult:
    value, note = float(str(row["value"])), str(row["note"])
    beyond = value < threshold if kind == "fail_under" else value > threshold
    where = f" ({row['where']})" if row["where"] else ""
    if np.isnan(value):
        passed, reason = allow_undefined, f"undefined: {note or 'no rows to compute it from'}"
    elif beyond:
        passed, reason = (
            False,
            f"{value:.4f} is {'under' if kind == 'fail_under' else 'over'} {threshold:g}{where}",
        )
    elif row["incomplete"]:
        passed, reason = allow_undefined, f"{value:.4f} would pass, but it is incomplete: {note}"
    else:
        passed, reason = True, f"{value:.4f}{where}"
    names = {k: str(row[k]) for k in ("metric", "section", "model")}
    return GateResult(**names, value=value, threshold=threshold, kind=kind, passed=passed, reason=reason)


def parse_thresholds(given: Sequence[str]) -> dict[str, float]:
    """``["worst_group_accuracy=0.8"]`` as a dict. Raises InputError on anything else."""
    thresholds = {}
    for text in given:
        match = re.fullmatch(r"\s*(\w+)\s*=\s*([-+.\deE]+)\s*", text)
        try:
            name, number = (match.group(1), float(match.group(2))) if match else (None, 0.0)
        except ValueError:
            name = None
        if name is None:
            raise InputError(
                f"A threshold reads measure=number, such as worst_group_accuracy=0.8; got {text!r}"
            )
        thresholds[name] = number
    return thresholds
