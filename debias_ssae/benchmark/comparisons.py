"""The SSAE against a family of methods fixed beforehand: paired, corrected, with what could have been seen."""

from collections.abc import Sequence
from typing import Any

from debias_ssae.benchmark.summary import Answers, key_of
from debias_ssae.benchmark.tables import HEADS, head_kind
from debias_ssae.core.stats import critical_value, holm

OTHERS = ("scrub", "token_mask", "counterfactual_subspace", "best linear eraser", "gsae")
"""What the ssae is compared with; fixed before the first run."""
LINEAR_ERASERS = ("mean_diff", "leace", "leace_conditional", "leace_in_model", "inlp", "splince")
"""Among which the best is chosen, by the mean worst-group accuracy that is then compared: to our loss."""
MARGIN = 0.03
"""Non-inferior: the interval's lower end lies above minus this."""
_POWER = critical_value(0.6)  # the normal quantile of 80%


def compare_with_family(
    summary: Sequence[dict[str, Any]], answers: Answers, *, of: str = "ssae"
) -> list[dict[str, Any]]:
    """Return a record for each regime of the method ``of``, head kind and member of the family that was run.

    A member is taken in that method's own regime where it has one, else in the regime that it has. Difference in
    worst-group accuracy, ssae minus other, with a 95% interval, p value, Holm's p over the members of that regime and
    head, whether ssae is non-inferior at ``MARGIN``, and the smallest difference that this test would find with 80%
    power.
    """
    records = []
    for regime in dict.fromkeys(row["regime"] for row in summary if row["method"] == of):
        for head in HEADS:
            alike = [row for row in summary if head_kind(row) == head]
            ours = [row for row in alike if (row["method"], row["regime"]) == (of, regime)]
            if ours:
                records += _family(ours[0], alike, answers)
    return records


def _family(ours: dict[str, Any], alike: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    found = [(name, _member(name, ours, alike)) for name in OTHERS]
    records = [_record(name, ours, row, answers) for name, row in found if row is not None]
    for record, p in zip(records, holm([r["p_value"] for r in records]), strict=True):
        record["p_holm"] = float(p)
    return records


def _member(name: str, ours: dict[str, Any], alike: list[dict[str, Any]]) -> dict[str, Any] | None:
    names = LINEAR_ERASERS if name == "best linear eraser" else (name,)
    rows = [row for row in alike if row["method"] in names and row["setting"] == ours["setting"]]
    same = [row for row in rows if row["regime"] == ours["regime"]]
    full = [row for row in rows if row["regime"] in ("concept", "labelled")]
    candidates = [row for row in same or full if row["n_seeds"] == ours["n_seeds"]]
    return max(candidates, key=lambda row: row["worst_group_accuracy"], default=None)


def _record(name: str, ours: dict[str, Any], other: dict[str, Any], answers: Answers) -> dict[str, Any]:
    a, b = (answers.moves(key_of(row), "worst_group_accuracy") for row in (ours, other))
    difference = a.minus(b)
    value, low, high = difference.interval()
    half = (high - low) / 2
    low, high = max(low, -1.0), min(high, 1.0)
    return {
        "setting": ours["setting"],
        "head": head_kind(ours),
        "regime": ours["regime"],
        "of": ours["method"],
        "against": name,
        "method": other["method"],
        "method_regime": other["regime"],
        "difference": value,
        "ci_low": low,
        "ci_high": high,
        "p_value": difference.p_value(),
        "non_inferior": low > -MARGIN,
        "smallest_detectable": half * (1 + _POWER / critical_value(0.95)),
        "n_seeds": ours["n_seeds"],
    }
