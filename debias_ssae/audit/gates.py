"""Thresholds for pipelines: which measures fall short, in which section, for which model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from debias_ssae.audit.run import AuditReport
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
    allow_undefined: bool | Collection[str] = False,
) -> list[GateResult]:
    """Apply thresholds to every section and model.

    A measure that is undefined, or computed over some of its cells only because the others are empty, fails:
    deleting the rows of a failing group must not make a gate pass. ``allow_undefined`` names the cells
    ("label / group") that may be empty; True allows all. Cells and groups below the report's minimum size decide
    nothing, and the reason says how many there are. Raises InputError for a metric or a cell that the report
    does not hold.
    """
    known = list(dict.fromkeys(report.measures["metric"]))
    allowed = set() if isinstance(allow_undefined, bool) else set(allow_undefined)
    cells = set(report.cells["label"] + " / " + report.cells["group"])
    if strange := sorted(allowed - cells):
        likely = get_close_matches(strange[0], cells, n=3) or sorted(cells)[:3]
        raise InputError(
            f"There is no cell {strange[0]!r}; cells read label / group, such as {', '.join(likely)}"
        )
    results = []
    for kind, limits in (("fail_under", fail_under or {}), ("fail_over", fail_over or {})):
        for metric, threshold in limits.items():
            if metric not in known:
                raise InputError(
                    f"No measure {metric!r} to hold against {threshold:g}; measures: {', '.join(known)}"
                )
            rows = report.measures[report.measures["metric"] == metric]
            for row in rows.to_dict("records"):
                names = {k: str(row[k]) for k in ("metric", "section", "model")}
                lacking = report.missing.merge(pd.DataFrame([names]))["cell"]
                empty = [] if allow_undefined is True else [c for c in lacking if c not in allowed]
                value = float(row["value"])
                excused = allow_undefined is True or bool(row["missing"] and not empty)
                where = f" in {row['where']}" if row["where"] and not np.isnan(value) else ""
                passed, reason = _judged(value, where, str(row["note"]), empty, kind, threshold, excused)
                reason += _by_estimate(value, float(row["ci_low"]), float(row["ci_high"]), threshold)
                results.append(
                    GateResult(
                        **names, value=value, threshold=threshold, kind=kind, passed=passed, reason=reason
                    )
                )
    return results


def _judged(
    value: float, where: str, note: str, empty: Sequence[str], kind: str, threshold: float, excused: bool
) -> tuple[bool, str]:
    beyond = value < threshold if kind == "fail_under" else value > threshold
    if np.isnan(value):
        return excused, f"undefined: {note or 'no rows to compute it from'}"
    if beyond:
        return False, f"{value:.4f}{where} is {'under' if kind == 'fail_under' else 'over'} {threshold:g}"
    if empty:
        named = "; ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        return False, f"{value:.4f}{where} would pass, but it is incomplete: no rows in {named}"
    return True, f"{value:.4f}{where}" + (f"; {note}" if "left out" in note or "without rows" in note else "")


def _by_estimate(value: float, low: float, high: float, threshold: float) -> str:
    """The interval, and that it reaches across the threshold, where it does."""
    if np.isnan(low) or np.isnan(high):
        return ""
    text = f"; 95% interval {low:.3f} to {high:.3f}"
    if not low < threshold < high:
        return text
    return f"{text}, judged by its estimate: the interval reaches {low if value > threshold else high:.3f}"


def parse_thresholds(given: Sequence[str]) -> dict[str, float]:
    """``["worst_group_accuracy=0.8"]`` as a dict. Raises InputError on anything else, and beyond 0 and 1."""
    thresholds = {}
    for text in given:
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            thresholds[name] = float(number)
        except ValueError:
            name = ""
        if not name.isidentifier() or not 0 <= thresholds[name] <= 1:
            raise InputError(
                "A threshold reads measure=number, from 0 to 1, such as worst_group_accuracy=0.8 for 80%;"
                f" got {text!r}"
            )
    return thresholds
