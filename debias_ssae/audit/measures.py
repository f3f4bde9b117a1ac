"""The measures of one section and one model, each with an interval that holds for what it is."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from debias_ssae.audit.inputs import Attribute
from debias_ssae.audit.rates import (
    Counts,
    Share,
    accuracy,
    cell_accuracy,
    large_enough,
    lowest,
    one_vs_rest,
    spread,
    summary_values,
)
from debias_ssae.core.stats import (
    Extreme,
    gap_permutation_test,
    lowest_ratio,
    lowest_share,
    mean_of_shares,
    rms_gap,
    widest_gap,
    wilson,
)

Row = dict[str, Any]
NAN = float("nan")
FOUR_FIFTHS = 0.8
TOO_FEW = "too few to say"
_ODDS = ("true_positive_rate", "false_positive_rate")


class Slice(NamedTuple):
    """One section of the audit (an attribute or a crossing, maybe inside a control level) and one model, as
    counts.
    """

    section: str
    model: str
    attribute: Attribute
    classes: tuple[Any, ...]
    positive: int
    counts: Counts
    min_cell: int
    tolerance: float
    weighted: bool

    def cell_name(self, group: int, label: int) -> str:
        """How a cell is called in every table: label / group."""
        return f"{self.classes[label]} / {self.attribute.groups[group]}"

    @property
    def key(self) -> Row:
        """The columns that every row of every table starts with."""
        return {"section": self.section, "model": self.model}

    @property
    def counted(self) -> NDArray[np.bool_]:
        """[n_groups, n_classes]: cells that hold enough rows to enter the worst-group accuracy."""
        return large_enough(self.counts, self.min_cell)

    @property
    def labels(self) -> list[int]:
        """Classes whose selection rate and false positive rate are compared: the positive one of two, or all."""
        return [self.positive] if len(self.classes) == 2 else list(range(len(self.classes)))


def measure_rows(part: Slice, rng: np.random.Generator) -> list[Row]:
    """Every measure of a section and a model, in reading order."""
    values = {k: float(v) for k, v in summary_values(part.counts, part.positive, part.counted).items()}
    rates = one_vs_rest(part.counts)
    return [
        _accuracy(part, values),
        _balanced(part, values),
        _worst_group(part, values),
        _gap(part, values, "accuracy_gap", [("", accuracy(part.counts))], rng),
        _tpr_gap(part, values, rates, rng),
        *_tpr_rms(part, values),
        _parity(part, values, rates, rng),
        _impact_ratio(part, values, rates["selection_rate"]),
        _odds(part, values, rates, rng),
    ]


def _row(
    part: Slice,
    metric: str,
    value: float,
    ends: Sequence[Any],
    where: str = "",
    method: str = "",
    *,
    note: str = "",
    missing: str = "",
    outcome: str = "",
    p: float = NAN,
    chance: float = NAN,
) -> Row:
    """``missing``: what the measure should have been computed from as well."""
    low, high = (float(e) for e in ends)
    return {
        **part.key,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "outcome": "undefined" if np.isnan(value) else outcome,
        "where": where,
        "p_permutation": p,
        "chance_95": chance,
        "method": method,
        "note": "; ".join(filter(None, (missing, note))),
        "incomplete": bool(missing),
    }


def _missing(shares: Sequence[Share], what: str = "rate(s)") -> str:
    undefined = sum(int((share.n == 0).sum()) for share in shares)
    return f"{undefined} {what} without rows" if undefined else ""


def _accuracy(part: Slice, values: dict[str, float]) -> Row:
    ends = wilson(*(v[0] for v in accuracy(part.counts.pooled()).effective))
    return _row(part, "accuracy", values["accuracy"], ends, "all rows", "Wilson")


def _balanced(part: Slice, values: dict[str, float]) -> Row:
    hits, n = (v[0] for v in cell_accuracy(part.counts.pooled()).effective)
    ends = mean_of_shares(hits[n > 0], n[n > 0])[1:]
    missing = _missing([cell_accuracy(part.counts.pooled())], "class(es)")
    value = values["balanced_accuracy"]
    return _row(part, "balanced_accuracy", value, ends, "mean over classes", "MOVER", missing=missing)


def _worst_group(part: Slice, values: dict[str, float]) -> Row:
    share, counted = cell_accuracy(part.counts), part.counted
    _, where = lowest(np.where(counted, share.value, np.nan))
    hits, n = share.effective
    found = lowest_share(hits[counted], n[counted])
    wide = found.high - found.low > 2 * part.tolerance
    note = ""
    if counted.sum() > 8:
        note = f"a minimum over {int(counted.sum())} noisy cells reads low; the interval allows for it"
    return _row(
        part,
        "worst_group_accuracy",
        values["worst_group_accuracy"],
        found[1:],
        part.cell_name(*where) if where else "",
        "simultaneous Wilson",
        missing=_coverage_note(counted, share.n > 0),
        note=note,
        outcome=TOO_FEW if wide else "measured",
    )


def _coverage_note(counted: NDArray[np.bool_], filled: NDArray[np.bool_]) -> str:
    if counted.all():
        return ""
    small, empty = int((filled & ~counted).sum()), int((~filled).sum())
    parts = [f"{empty} without rows"] * bool(empty) + [f"{small} below the minimum cell size"] * bool(small)
    return f"over {int(counted.sum())} of {counted.size} cells: {', '.join(parts)}"


def _gap_outcome(low: float, high: float, tolerance: float) -> str:
    if low > 0:
        return "difference found"
    return f"no difference beyond {tolerance:g}" if high <= tolerance else TOO_FEW


Family = list[tuple[str, Share]]


def _of_classes(part: Slice, rates: dict[str, Share], metric: str, labels: list[int] | None = None) -> Family:
    chosen = part.labels if labels is None else labels
    return [(str(part.classes[c]), rates[metric].of(c)) for c in chosen]


def _gap(
    part: Slice,
    values: dict[str, float],
    metric: str,
    family: Family,
    rng: np.random.Generator,
    *,
    disjoint: bool = False,
    note: str = "",
    missing: str | None = None,
) -> Row:
    """The widest of several gaps between groups, where it is, and the same for groups dealt at random; rates of the
    family that are undefined are ``missing`` unless that is given.
    """
    missing = _missing([share for _, share in family]) if missing is None else missing
    value = values[metric]
    if np.isnan(value):
        return _row(
            part, metric, value, (NAN, NAN), note="fewer than two groups have rows to compute it from"
        )
    gaps = [float(spread(share.value)) for _, share in family]
    widest = int(np.nanargmax(gaps))
    label, share = family[widest]
    found = _widest([share for _, share in family])
    high, low = int(np.nanargmax(share.value)), int(np.nanargmin(share.value))
    groups = part.attribute.groups
    where = f"{label}: {groups[high]} over {groups[low]}" if label else f"{groups[high]} over {groups[low]}"
    p, chance = _dealt(part, family, rng, disjoint)
    outcome = _gap_outcome(found.low, found.high, part.tolerance)
    facts: Row = {"outcome": outcome, "p": p, "chance": chance, "note": note, "missing": missing}
    return _row(part, metric, value, found[1:], where, "simultaneous Newcombe", **facts)


def _widest(shares: list[Share]) -> Extreme:
    found = [widest_gap(*s.effective, families=len(shares)) for s in shares]
    columns = [np.array(c, dtype=float) for c in zip(*found, strict=True)]
    return Extreme(*(float(np.nanmax(c)) for c in columns))


def _dealt(part: Slice, family: Family, rng: np.random.Generator, disjoint: bool) -> tuple[float, float]:
    """Permutation p value; classes that share rows are Bonferroni-corrected. Not for weighted rows."""
    if part.weighted:
        return NAN, NAN
    if disjoint:
        return gap_permutation_test(
            *(np.stack(v) for v in zip(*(s[:2] for _, s in family), strict=True)), rng=rng
        )
    tests = np.array([gap_permutation_test(s.hits, s.n, rng=rng) for _, s in family])
    p = float(np.nanmin(tests[:, 0])) if not np.isnan(tests[:, 0]).all() else NAN
    return min(1.0, p * len(family)), float(tests[0, 1]) if len(family) == 1 else NAN


def _parity(part: Slice, values: dict[str, float], rates: dict[str, Share], rng: np.random.Generator) -> Row:
    labels = np.array([float(spread(share.value)) for _, share in _of_classes(part, rates, "base_rate")])
    note = ""
    if not np.isnan(labels).all():
        note = f"the labels themselves differ by {100 * np.nanmax(labels):.1f} points between groups"
    family = _of_classes(part, rates, "selection_rate")
    return _gap(part, values, "demographic_parity_difference", family, rng, note=note)


def _tpr_gap(part: Slice, values: dict[str, float], rates: dict[str, Share], rng: np.random.Generator) -> Row:
    missing = _missing([rates["true_positive_rate"]], "cell(s)")
    family = _of_classes(part, rates, "true_positive_rate", list(range(len(part.classes))))
    return _gap(part, values, "tpr_gap_max", family, rng, disjoint=True, missing=missing)


def _tpr_rms(part: Slice, values: dict[str, float]) -> list[Row]:
    share = cell_accuracy(part.counts)
    hits, n = (v.T for v in share.effective)
    found = rms_gap(hits, n)
    left_out = [str(part.classes[c]) for c in np.flatnonzero((share.n > 0).sum(axis=0) < 2)]
    named = f"{len(part.classes) - len(left_out)} of {len(part.classes)} classes"
    named += f", without {', '.join(left_out[:10])}" if left_out else ""
    ends, outcome = (found.low, found.high), _gap_outcome(float(found.low), float(found.high), part.tolerance)
    method, missing = "inverted test, normal noise", _missing([share], "cell(s)")
    return [
        _row(
            part,
            "tpr_gap_rms",
            values["tpr_gap_rms"],
            ends,
            named,
            method,
            note="biased upwards by noise",
            missing=missing,
            outcome=outcome,
        ),
        _row(
            part,
            "tpr_gap_rms_corrected",
            float(found.corrected),
            ends,
            named,
            method,
            note="the expected square of the noise taken away",
            missing=missing,
            outcome=outcome,
        ),
    ]


def _impact_ratio(part: Slice, values: dict[str, float], selection: Share) -> Row:
    metric = "demographic_parity_ratio"
    value = values[metric]
    if np.isnan(value):
        return _row(
            part, metric, value, (NAN, NAN), note="no group selects anyone, or fewer than two have rows"
        )
    shares = [selection.of(c) for c in part.labels]
    found = [lowest_ratio(*s.effective, families=len(shares)) for s in shares]
    low = float(np.nanmin([float(f.low) for f in found]))
    high = float(np.nanmin([float(f.high) for f in found]))
    worst = int(np.nanargmin([float(f.value) for f in found]))
    rates = shares[worst].value
    groups, bottom, top = part.attribute.groups, int(np.nanargmin(rates)), int(np.nanargmax(rates))
    where = f"{part.classes[part.labels[worst]]}: {groups[bottom]} to {groups[top]}"
    outcome = TOO_FEW if low < FOUR_FIFTHS else "at least four fifths"
    if high < FOUR_FIFTHS:
        outcome = "below four fifths"
    note = f"four-fifths rule: {'below' if value < FOUR_FIFTHS else 'not below'} 0.8 as observed"
    facts: Row = {"note": note, "outcome": outcome, "missing": _missing(shares)}
    return _row(part, metric, value, (low, high), where, "simultaneous MOVER-R", **facts)


def _odds(part: Slice, values: dict[str, float], rates: dict[str, Share], rng: np.random.Generator) -> Row:
    family: Family = []
    missing = _missing([rates[name].of(c) for name in _ODDS for c in part.labels])
    for label in part.labels:
        both = [rates[name].of(label) for name in _ODDS]
        if not np.isnan([float(spread(share.value)) for share in both]).any():
            family += [
                (f"{name} of {part.classes[label]}", s) for name, s in zip(("TPR", "FPR"), both, strict=True)
            ]
    # with two classes the TPR's and the FPR's rows are disjoint; with more, classes share rows
    disjoint = len(part.classes) == 2
    note = "the larger of the TPR and FPR differences" + (
        "" if disjoint else " over all classes, one against the rest"
    )
    metric = "equalized_odds_difference"
    return _gap(part, values, metric, family, rng, disjoint=disjoint, note=note, missing=missing)
