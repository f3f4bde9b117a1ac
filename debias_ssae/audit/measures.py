"""The measures of one section and one model, each with an interval that holds for what it is, and the tables
that list rather than summarise: groups, cells, tests, what is undefined.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.audit import rates
from debias_ssae.audit.rates import Array, Attribute, Codes, Counts, Deciding, Share
from debias_ssae.core.errors import InputError
from debias_ssae.core.stats import extremes, shares

Row = dict[str, Any]
Metric = Callable[[Any, Any], float]
NAN = float("nan")
NOTHING = (NAN, NAN)
FOUR_FIFTHS = 0.8
BEYOND, WITHIN, TOO_FEW = "beyond tolerance", "within tolerance", "too few to say"
AS_LABELS, BELOW_FIFTHS, ABOVE_FIFTHS = "as the labels differ", "below four fifths", "at least four fifths"
MEASURED, UNDEFINED, NO_INTERVAL = "measured", "undefined", "no interval"
METRIC_DRAWS = 200
_TESTED = ("accuracy", "true_positive_rate", "precision", "selection_rate")


@dataclass(frozen=True)
class Section:
    """An attribute (or a crossing) on all rows, or on those of one control level, with what all models predict."""

    name: str
    attribute: Attribute
    truth: Codes
    predicted: Mapping[str, Codes]
    weights: Array | None
    scores: Mapping[str, Array]
    classes: tuple[Any, ...]
    positive: int
    min_group: int
    tolerance: float
    n_bootstrap: int

    @property
    def labels(self) -> list[int]:
        """Classes whose selection and false positive rates are compared: the positive one of two, or all."""
        return [self.positive] if len(self.classes) == 2 else list(range(len(self.classes)))

    def slices(self) -> "Iterator[Slice]":
        """The section as each model sees it."""
        shape = len(self.attribute.groups), len(self.classes)
        for model, codes in self.predicted.items():
            counts = rates.confusion(self.attribute.codes, self.truth, codes, shape, self.weights)
            yield Slice(**vars(self), model=model, counts=counts)


@dataclass(frozen=True)
class Slice(Section):
    """A section and one model."""

    model: str
    counts: Counts

    @property
    def key(self) -> Row:
        """The columns that every row of every table starts with."""
        return {"section": self.name, "model": self.model}

    @cached_property
    def decides(self) -> Deciding:
        """Which rates rest on ``min_group`` rows of a known group."""
        return rates.deciding(self.counts, self.attribute.known, self.min_group)

    @cached_property
    def values(self) -> dict[str, float]:
        """Every measure as a number."""
        found = rates.summary_values(self.counts, self.positive, self.decides)
        return {name: float(value) for name, value in found.items()}

    def cell_name(self, group: int, label: int) -> str:
        """How a cell is called in every table: label / group."""
        return f"{self.classes[label]} / {self.attribute.groups[group]}"

    def family(self, metric: str, labels: Iterable[int], prefix: str = "") -> "Family":
        """The rates of some classes, by group, without those that decide nothing."""
        share = rates.one_vs_rest(self.counts)[metric].where(self.decides.rates[metric])
        return [(f"{prefix}{self.classes[c]}", share.of(c)) for c in labels]

    def empty(self, needs: Iterable[Sequence[int]]) -> list[str]:
        """Cells without rows that leave a rate of a known group undefined; ``needs``: the labels of its rows."""
        rows = rates.cell_accuracy(self.counts).n
        found = {
            (g, c)
            for labels in needs
            for g in np.flatnonzero(self.attribute.known)
            if not rows[g, list(labels)].sum()
            for c in labels
        }
        return [self.cell_name(int(g), c) for g, c in sorted(found)]


Family = list[tuple[str, Share]]


def outcome_of(low: float, high: float, tolerance: float) -> str:
    """What an interval of a gap says: beyond the tolerance, within it, or too few rows to tell."""
    if np.isnan(low) or np.isnan(high):
        return NO_INTERVAL
    return BEYOND if low > tolerance else WITHIN if high <= tolerance else TOO_FEW


def measure_rows(part: Slice) -> list[Row]:
    """Every measure of a section and a model, in reading order."""
    every = list(range(len(part.classes)))
    cells, rest = [[c] for c in every], [[o for o in every if o != c] for c in part.labels]
    by_group = rates.accuracy(part.counts).where(part.decides.accuracy)
    recall, chosen = part.family("true_positive_rate", every), part.family("selection_rate", part.labels)
    return [
        _accuracy(part),
        _balanced(part),
        _worst_group(part, part.empty(cells)),
        _gap(part, "accuracy_gap", [("", by_group)], part.empty([every])),
        _gap(part, "tpr_gap_max", recall, part.empty(cells)),
        _tpr_rms(part, part.empty(cells)),
        _parity(part, chosen, part.empty([every])),
        _impact_ratio(part, chosen, part.empty([every])),
        _odds(part, part.empty([*([c] for c in part.labels), *rest])),
    ]


def _row(
    part: Slice, metric: str, value: float, ends: Sequence[Any], *, judged: bool = False, **facts: Any
) -> Row:
    """A row of the measures; ``missing``: empty cells that the measure should have been computed from as well. One that
    is ``judged`` is a gap, held against the tolerance.
    """
    missing: list[str] = facts.pop("missing", [])
    low, high = (float(e) for e in ends)
    row = {
        **part.key,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "outcome": outcome_of(low, high, part.tolerance) if judged else MEASURED,
        "excess": value - part.tolerance if judged else NAN,
        "where": "",
        "method": "",
        **facts,
    }
    if np.isnan(value):
        row["outcome"] = UNDEFINED
    note = f"{len(missing)} cell(s) without rows" if missing else ""
    return row | {"note": "; ".join(filter(None, (note, facts.get("note", "")))), "missing": missing}


def _accuracy(part: Slice) -> Row:
    ends = shares.wilson(*(v[0] for v in rates.accuracy(part.counts.pooled()).effective))
    return _row(part, "accuracy", part.values["accuracy"], ends, where="all rows", method="Wilson")


def _balanced(part: Slice) -> Row:
    hits, n = (v[0] for v in rates.cell_accuracy(part.counts.pooled()).effective)
    ends = shares.mean_of_shares(hits[n > 0], n[n > 0])[1:]
    without = int((n == 0).sum())
    note = f"{without} class(es) without rows" if without else ""
    value = part.values["balanced_accuracy"]
    return _row(part, "balanced_accuracy", value, ends, where="mean over classes", method="MOVER", note=note)


def _worst_group(part: Slice, missing: list[str]) -> Row:
    """Its outcome is of how far the cell lies below the overall accuracy."""
    counted, share = part.decides.cells, rates.cell_accuracy(part.counts)
    hits, n = share.effective
    out, known = (n > 0) & ~counted, part.attribute.known
    small, nameless = int(out[known].sum()), int(out[~known].sum())
    notes = [f"{small} cell(s) with fewer than {part.min_group} rows are left out"] if small else []
    notes += [f"{nameless} cell(s) of rows whose attribute is missing are left out"] if nameless else []
    value, overall = part.values["worst_group_accuracy"], part.values["accuracy"]
    if np.isnan(value):
        return _row(part, "worst_group_accuracy", value, NOTHING, missing=missing, note="; ".join(notes))
    found = extremes.lowest_share(hits[counted], n[counted])
    if counted.sum() > 8:
        notes.append(f"a minimum over {int(counted.sum())} noisy cells reads low; the interval allows for it")
    group, label = np.unravel_index(int(np.nanargmin(np.where(counted, share.value, np.nan))), counted.shape)
    low, high = (float(v[0]) for v in shares.wilson(*rates.accuracy(part.counts.pooled()).effective))
    return _row(
        part,
        "worst_group_accuracy",
        value,
        found[1:],
        where=part.cell_name(int(group), int(label)),
        method="simultaneous Wilson",
        missing=missing,
        note="; ".join(notes),
        outcome=outcome_of(low - float(found.high), high - float(found.low), part.tolerance),
        excess=overall - value - part.tolerance,
    )


def _gap(part: Slice, metric: str, family: Family, missing: list[str], **facts: Any) -> Row:
    """The widest of several gaps between groups, and where it is."""
    value = part.values[metric]
    if np.isnan(value):
        note = f"fewer than two groups have {part.min_group} rows to compute it from"
        return _row(part, metric, value, NOTHING, note=note, missing=missing)
    gaps = [float(rates.spread(share.value)) for _, share in family]
    label, share = family[int(np.nanargmax(gaps))]
    columns = zip(*(extremes.widest_gap(*s.effective, families=len(family)) for _, s in family), strict=True)
    found = extremes.Extreme(*(float(np.nanmax(np.array(c, dtype=float))) for c in columns))
    where = _over(part, share.value)
    facts |= {"where": f"{label}: {where}" if label else where, "method": "simultaneous Newcombe"}
    return _row(part, metric, value, found[1:], judged=True, missing=missing, **facts)


def _over(part: Slice, values: Array) -> str:
    """The group with the highest value over that with the lowest."""
    high, low = int(np.nanargmax(values)), int(np.nanargmin(values))
    same = values[high] == values[low]
    return "all groups alike" if same else f"{part.attribute.groups[high]} over {part.attribute.groups[low]}"


def _parity(part: Slice, family: Family, missing: list[str]) -> Row:
    """A gap in selection that is no wider than the labels' own, give or take the tolerance, is no failure."""
    metric = "demographic_parity_difference"
    row = _gap(part, metric, family, missing)
    base = [float(rates.spread(s.value)) for _, s in part.family("base_rate", part.labels)]
    if np.isnan(row["value"]) or np.isnan(base).all():
        return row
    labels = float(np.nanmax(base))
    note = f"the labels themselves differ by {100 * labels:.1f} points between groups"
    row["note"] = "; ".join(filter(None, (row["note"], note)))
    row["excess"] -= labels
    if row["outcome"] == BEYOND and row["value"] <= labels + part.tolerance:
        row["outcome"] = AS_LABELS
    return row


def _impact_ratio(part: Slice, family: Family, missing: list[str]) -> Row:
    """The four-fifths rule is a rule for two classes; with more the ratio is shown, not judged."""
    metric = "demographic_parity_ratio"
    value = part.values[metric]
    if np.isnan(value):
        note = "no group is predicted the label, or fewer than two have rows enough"
        return _row(part, metric, value, NOTHING, note=note, missing=missing)
    found = [extremes.lowest_ratio(*s.effective, families=len(family)) for _, s in family]
    # of very many groups the ratio has no interval
    ends = [[float(f[i]) for f in found if not np.isnan(f[i])] for i in (1, 2)]
    low, high = (min(end, default=NAN) for end in ends)
    label, share = family[int(np.nanargmin([float(f.value) for f in found]))]
    groups = part.attribute.groups
    where = f"{label}: {groups[int(np.nanargmin(share.value))]} to {groups[int(np.nanargmax(share.value))]}"
    outcome = MEASURED
    if len(family) == 1:
        outcome = NO_INTERVAL if np.isnan(low) else ABOVE_FIFTHS if low >= FOUR_FIFTHS else TOO_FEW
        base = part.family("base_rate", part.labels)[0][1].value
        if high < FOUR_FIFTHS:
            same = np.nanmin(base) < FOUR_FIFTHS * np.nanmax(base)
            outcome = AS_LABELS if same else BELOW_FIFTHS
    facts: Row = {"where": where, "outcome": outcome, "method": "simultaneous MOVER-R", "missing": missing}
    return _row(part, metric, value, (low, high), **facts)


def _tpr_rms(part: Slice, missing: list[str]) -> Row:
    """As the formula reads, which noise makes positive: it has no interval and is not judged."""
    n = rates.cell_accuracy(part.counts).where(part.decides.rates["true_positive_rate"]).n
    left_out = [str(part.classes[c]) for c in np.flatnonzero((n > 0).sum(axis=0) < 2)]
    named = f"{len(part.classes) - len(left_out)} of {len(part.classes)} classes"
    named += f", without {', '.join(left_out)}" if 0 < len(left_out) <= 3 else ""
    note = "noise alone makes it positive, so it has no interval"
    return _row(
        part, "tpr_gap_rms", part.values["tpr_gap_rms"], NOTHING, where=named, missing=missing, note=note
    )


def _odds(part: Slice, missing: list[str]) -> Row:
    family: Family = []
    for label in part.labels:
        both = part.family("true_positive_rate", [label], "TPR of ")
        both += part.family("false_positive_rate", [label], "FPR of ")
        if not np.isnan([float(rates.spread(share.value)) for _, share in both]).any():
            family += both
    note = "the larger of the TPR and FPR differences"
    note += "" if len(part.classes) == 2 else " over all classes, one against the rest"
    return _gap(part, "equalized_odds_difference", family, missing, note=note)


def own_metric_rows(
    part: Slice, name: str, metric: Metric, rng: np.random.Generator
) -> tuple[pd.DataFrame, list[Row]]:
    """A caller's metric: its value in each group, over all rows, and the widest gap between groups.

    ``metric(y_true, y_pred)`` is called on arrays of labels. Intervals are normal, with the standard deviation
    of at most 200 bootstrap draws of a group's rows; the gap's hold for all pairs together.
    """

    labels, groups = np.array(part.classes), part.attribute.codes
    truth, predicted = labels[part.truth], labels[part.predicted[part.model]]

    def value(rows: Codes) -> float:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NaN says it
                return float(metric(truth[rows], predicted[rows]))
        except (ValueError, ZeroDivisionError):
            return NAN  # undefined for these rows, as the AUC of one class is

    n_groups = len(part.attribute.groups)
    rows_of = [np.flatnonzero(groups == g) for g in range(n_groups)] + [np.arange(len(groups))]
    points, noise = np.full(n_groups + 1, NAN), np.full(n_groups + 1, NAN)
    for g, rows in enumerate(rows_of):
        if not len(rows):
            continue
        points[g] = value(rows)
        if len(rows) >= part.min_group:
            draws = np.array(
                [value(rng.choice(rows, len(rows))) for _ in range(min(part.n_bootstrap, METRIC_DRAWS))]
            )
            # draws that do not vary, as those of an error that never occurred, say nothing of the noise
            noise[g] = np.nanstd(draws, ddof=1) or NAN if (~np.isnan(draws)).sum() > 1 else NAN
    z = shares.critical_value(0.95)
    n = np.array([float(len(r)) for r in rows_of])
    low, high = points - z * noise, points + z * noise
    table = long_table(part, name, "", n, points, low, high)
    method = "bootstrap standard deviation"
    whole = _row(part, name, points[-1], (low[-1], high[-1]), where="all rows", method=method)
    decides = np.flatnonzero(part.decides.accuracy & ~np.isnan(points[:-1]))
    if len(decides) < 2:
        note = f"fewer than two groups of {part.min_group} rows have it defined"
        return table, [whole, _row(part, f"{name}_gap", NAN, NOTHING, note=note)]
    chosen = np.full(n_groups, NAN)
    chosen[decides] = points[decides]
    gap, ends = float(rates.spread(chosen)), NOTHING
    a, b = (i.ravel() for i in np.meshgrid(decides, decides))
    apart, sd = points[a] - points[b], np.hypot(noise[a], noise[b])
    if not np.isnan(sd).any():
        together = shares.critical_value(0.95, len(decides) * (len(decides) - 1) // 2)
        ends = max(0.0, float((apart - together * sd)[a != b].max())), float((apart + z * sd)[a != b].max())
    facts = {"where": _over(part, chosen), "method": method}
    return table, [whole, _row(part, f"{name}_gap", gap, ends, judged=True, **facts)]


def check_metrics(metrics: Mapping[str, Metric] | None, weighted: bool) -> dict[str, Metric]:
    """The caller's metrics; raises InputError on a name that is taken, on what cannot be called, on weights."""
    taken = set(rates.summary_values(Counts(np.ones((2, 2, 2)), np.ones((2, 2, 2))), 1))
    for name, metric in (metrics or {}).items():
        why = "" if callable(metric) else "cannot be called"
        if not why and (name in taken or f"{name}_gap" in taken):
            why = "is a measure of the audit already; give it another name"
        if why:
            raise InputError(
                f"metrics={{{name!r}: ...}}: {name} {why}; a metric is a function of (y_true, y_pred)"
            )
    if metrics and weighted:
        raise InputError(
            "metrics and sample_weight do not go together: a metric is a function of labels alone"
        )
    return dict(metrics or {})


def cell_table(part: Slice) -> pd.DataFrame:
    """One row a cell label x group, empty cells included; how many more rows would make it precise."""
    share = rates.cell_accuracy(part.counts)
    hits, size = share.effective
    low, high = shares.wilson(hits, size)
    n_groups, n_classes = share.n.shape
    needed = shares.rows_needed(np.where(size > 0, share.value, 0.5), part.tolerance / 2)
    return pd.DataFrame(
        {
            **part.key,
            "label": np.tile([str(c) for c in part.classes], n_groups),
            "group": np.repeat(part.attribute.groups, n_classes),
            "n": share.n.ravel(),
            "accuracy": share.value.ravel(),
            "ci_low": low.ravel(),
            "ci_high": high.ravel(),
            "excluded": ((share.n > 0) & ~part.decides.cells).ravel(),
            "more_rows_needed": np.maximum(needed - np.floor(size), 0).astype(int).ravel(),
        }
    )


def group_table(part: Slice) -> pd.DataFrame:
    """One row a group x metric (x class), with a Wilson interval; then the same over all rows."""
    frames = []
    both = zip(_shares(part, part.counts), _shares(part, part.counts.pooled()), strict=True)
    for (metric, label, share), (_, _, whole) in both:
        joined = Share(*(np.concatenate(pair) for pair in zip(share, whole, strict=True)))
        frames.append(
            long_table(part, metric, label, joined.n, joined.value, *shares.wilson(*joined.effective))
        )
    return pd.concat(frames, ignore_index=True)


def long_table(
    part: Slice, metric: str, label: str, n: Array, value: Array, low: Array, high: Array
) -> pd.DataFrame:
    """Rows by group, the last over all rows."""
    groups = [*part.attribute.groups, "all rows"]
    facts = {
        "group": groups,
        "overall": [False] * (len(groups) - 1) + [True],
        "metric": metric,
        "label": label,
    }
    return pd.DataFrame({**part.key, **facts, "n": n, "value": value, "ci_low": low, "ci_high": high})


def _shares(part: Slice, counts: Counts) -> Iterator[tuple[str, str, Share]]:
    """The rates worth showing and testing, without repetitions.

    With two classes: precision, selection and base rate of the positive class; the true and the false positive
    rate of both are each other's complements, so of the latter only the positive class's. With more classes,
    everything of every class.
    """
    yield "accuracy", "", rates.accuracy(counts)
    for metric, share in rates.one_vs_rest(counts).items():
        for label in range(len(part.classes)):
            if len(part.classes) > 2 or label == part.positive or metric == "true_positive_rate":
                yield metric, str(part.classes[label]), share.of(label)


def contrast_table(part: Slice) -> pd.DataFrame:
    """Each group against all others (of two, the first against the second), signed, tests Holm-corrected.

    The correction spans all groups and metrics of the section and model. Rows whose attribute is missing stand
    on neither side; a group of fewer than ``min_group`` rows is not tested.
    """
    known = np.flatnonzero(part.attribute.known)
    groups = [part.attribute.groups[g] for g in known]
    first = [0] if len(groups) == 2 else list(range(len(groups)))
    frames = []
    for metric, label, share in _shares(part, part.counts):
        if metric not in _TESTED and not (metric == "false_positive_rate" and len(part.classes) > 2):
            continue
        k, n = (v[known] for v in share.effective)
        rest = k.sum() - k, n.sum() - n
        k, n, rest_k, rest_n = (v[first] for v in (k, n, *rest))
        enough = (n >= part.min_group * (1 - 1e-9)) & (rest_n >= part.min_group * (1 - 1e-9))
        low, high = shares.newcombe(k, n, rest_k, rest_n)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.where((n > 0) & (rest_n > 0), k / n - rest_k / rest_n, np.nan)
        facts = {
            "metric": metric,
            "label": label,
            "group": [groups[i] for i in first],
            "versus": groups[1] if len(groups) == 2 else "the rest",
            "difference": difference,
            "ci_low": low,
            "ci_high": high,
            "p": np.where(enough, shares.two_share_test(k, n, rest_k, rest_n), np.nan),
        }
        frames.append(pd.DataFrame({**part.key, **facts}))
    table = pd.concat(frames, ignore_index=True)
    table["p_holm"] = shares.holm(table["p"].to_numpy())
    return table


def undefined_rows(part: Slice) -> Iterator[Row]:
    """Every cell without rows, every cell too small to count, and every rate without a denominator."""
    n_rows = rates.cell_accuracy(part.counts).effective[1]
    kind = "row(s)" if part.weights is None else "effective row(s)"
    for g, c in np.argwhere(~part.decides.cells):
        n = float(n_rows[g, c])
        reason = "no row with this label in this group: accuracy and true positive rate are undefined"
        if n > 0:
            few = f"fewer than the minimum of {part.min_group}"
            why = few if part.attribute.known[g] else "whose attribute is missing"
            reason = f"{n:g} {kind}, {why}: shown, decides nothing"
        yield {**part.key, "what": part.cell_name(int(g), int(c)), "reason": reason}
    whys = {"precision": "was predicted for nobody", "false_positive_rate": "is the label of everybody"}
    for metric, label, rate in _shares(part, part.counts):
        if metric == "true_positive_rate":
            continue  # the cells above
        for g in np.flatnonzero(rate.n == 0):
            named = metric.replace("_", " ") + (f" of {label}" if label else "")
            what = f"{named}, {part.attribute.groups[g]}"
            why = f"{label} {whys[metric]} in this group" if metric in whys else "no row"
            yield {**part.key, "what": what, "reason": why}
