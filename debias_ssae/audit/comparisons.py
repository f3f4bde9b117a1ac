"""Models in pairs, on the same rows: signed differences with intervals."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from debias_ssae.audit.inputs import Attribute, Codes
from debias_ssae.audit.measures import Row
from debias_ssae.audit.rates import Array, Counts, large_enough, summary_values
from debias_ssae.core.stats import (
    count_draws,
    lowest_share_difference,
    paired_difference,
    row_draws,
    sign_test,
    widest_gap_difference,
)

COMPARED = (
    "accuracy",
    "balanced_accuracy",
    "worst_group_accuracy",
    "tpr_gap_max",
    "tpr_gap_rms",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
_GAPS = ("tpr_gap_max", "demographic_parity_difference", "equalized_odds_difference")
_DELTA = "directional delta, paired"
MOST_GROUPS = 60
"""Beyond, the pairs of groups are too many for the directional method."""


class Rows(NamedTuple):
    """The rows of one section: codes, predictions of all models, weights."""

    section: str
    attribute: Attribute
    truth: Codes
    predicted: Mapping[str, Codes]
    weights: Array | None
    n_classes: int
    positive: int
    min_cell: int


def comparison_rows(rows: Rows, measures: list[Row], n_bootstrap: int, rng: np.random.Generator) -> list[Row]:
    """One row a pair of models x measure: ``model_a - model_b``; ``measures`` are the section's rows of all
    models.

    Accuracy and worst-group accuracy have intervals of their own (Bonett and Price; directional delta). Gaps
    are biased under resampling, so theirs joins the two models' intervals (MOVER, Zou 2008), with the
    correlation that a bootstrap of the same rows shows. Balanced accuracy, and weighted accuracies, are
    bootstrapped: the union of the percentile and the reflected interval. Weighted rows are bootstrapped one
    by one, and the method says so.
    """
    if len(rows.predicted) < 2:
        return []
    points, draws = _values(rows, n_bootstrap, rng)
    single = {(r["model"], r["metric"]): r for r in measures}
    kind = "count bootstrap" if rows.weights is None else "row bootstrap"
    table = []
    for a, b in combinations(rows.predicted, 2):
        for metric in COMPARED:
            value = float(points[a][metric] - points[b][metric])
            if rows.weights is None and metric in ("accuracy", "worst_group_accuracy"):
                found = _closed_form(rows, a, b, metric)
            elif metric in _GAPS and rows.weights is None and len(rows.attribute.groups) <= MOST_GROUPS:
                gap = widest_gap_difference(*paired_counts(rows, a, b, metric))
                found = {"ci_low": float(gap.low), "ci_high": float(gap.high), "method": _DELTA}
            elif metric in _GAPS or metric == "tpr_gap_rms":
                low, high = _joined(single, draws, a, b, metric)
                found = {"ci_low": low, "ci_high": high, "method": f"MOVER, correlation from a {kind}"}
            else:
                low, high = _ends(draws[a][metric] - draws[b][metric], value)
                found = {"ci_low": low, "ci_high": high, "method": kind}
            row: Row = {
                "section": rows.section,
                "model_a": a,
                "model_b": b,
                "metric": metric,
                "difference": value,
            }
            row |= {"p": float("nan"), **found}
            row["outcome"] = _outcome(row["ci_low"], row["ci_high"], metric)
            table.append(row)
    return table


def _joined(
    single: Mapping[tuple[str, str], Row],
    draws: Mapping[str, Mapping[str, Array]],
    a: str,
    b: str,
    metric: str,
) -> tuple[float, float]:
    """Ends of the difference of two gaps from each one's own interval; the RMS is centred without its bias."""
    centre_of = "tpr_gap_rms_corrected" if metric == "tpr_gap_rms" else metric
    one, two = single[a, centre_of], single[b, centre_of]
    x, y = draws[a][metric], draws[b][metric]
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = x[defined], y[defined]
    r = float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.std() > 0 and y.std() > 0 else 0.0
    # shared rows tighten the difference; where a gap may be 0 its noise is folded, and the ends simply add up
    r = min(max(r, 0.0), 1.0) if min(one["ci_low"], two["ci_low"]) > 0 else -1.0
    difference = one["value"] - two["value"]
    down = _hypotenuse(one["value"] - one["ci_low"], two["ci_high"] - two["value"], r)
    up = _hypotenuse(one["ci_high"] - one["value"], two["value"] - two["ci_low"], r)
    return float(difference - down), float(difference + up)


def _hypotenuse(a: float, b: float, r: float) -> float:
    return float(np.sqrt(np.maximum(a * a + b * b - 2 * r * a * b, 0.0)))


def _outcome(low: float, high: float, metric: str) -> str:
    if np.isnan(low) or np.isnan(high):
        return "undefined"
    if low <= 0 <= high:
        return "no difference found"
    higher_is_better = "accuracy" in metric
    return "a better" if (low > 0) == higher_is_better else "b better"


def _ends(draws: Array, value: float) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or len(draws) < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(min(low, 2 * value - high)), float(max(high, 2 * value - low))


def _closed_form(rows: Rows, a: str, b: str, metric: str) -> Row:
    right_a, right_b = rows.predicted[a] == rows.truth, rows.predicted[b] == rows.truth
    shape = (len(rows.attribute.groups), rows.n_classes)
    cell = rows.attribute.codes * rows.n_classes + rows.truth
    n = np.bincount(cell, minlength=shape[0] * shape[1])
    only_a, only_b, both = (
        np.bincount(cell[mask], minlength=len(n))
        for mask in (right_a & ~right_b, right_b & ~right_a, right_a & right_b)
    )
    p = float(sign_test(only_a.sum(), only_b.sum()))
    if metric == "accuracy":
        low, high = paired_difference(only_a.sum(), only_b.sum(), n.sum())
        return {"ci_low": float(low), "ci_high": float(high), "p": p, "method": "Bonett-Price; McNemar mid-p"}
    counted = n >= max(1, rows.min_cell)
    found = lowest_share_difference(only_a[counted], only_b[counted], both[counted], n[counted])
    return {"ci_low": float(found.low), "ci_high": float(found.high), "method": _DELTA}


def paired_counts(rows: Rows, a: str, b: str, metric: str) -> tuple[Array, Array, Array, Array]:
    """[n_families, n_groups] rows hit by a alone, by b alone, by both, and all rows, for the rates behind a
    gap.
    """
    labels = (
        [rows.positive] if rows.n_classes == 2 and metric != "tpr_gap_max" else list(range(rows.n_classes))
    )
    families = []
    for label in labels:
        labelled = rows.truth == label
        every = {"tpr_gap_max": [labelled], "demographic_parity_difference": [np.ones_like(labelled)]}
        for inside in every.get(metric, [labelled, ~labelled]):
            hit_a, hit_b = rows.predicted[a] == label, rows.predicted[b] == label
            masks = (hit_a & ~hit_b, hit_b & ~hit_a, hit_a & hit_b, np.ones_like(hit_a))
            families.append([_by_group(rows, inside & mask) for mask in masks])
    counts = np.array(families).transpose(1, 0, 2)
    return counts[0], counts[1], counts[2], counts[3]


def _by_group(rows: Rows, mask: NDArray[np.bool_]) -> Array:
    return np.bincount(rows.attribute.codes[mask], minlength=len(rows.attribute.groups)).astype(float)


def _values(
    rows: Rows, n_bootstrap: int, rng: np.random.Generator
) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
    """Each model's measures as observed, and [n_bootstrap] under resampling of the same rows for all models."""
    categories, where = _categories(rows)
    n = len(rows.truth)
    observed = np.bincount(where, rows.weights, len(categories.first))[None].astype(float)
    squares = (
        observed
        if rows.weights is None
        else np.bincount(where, rows.weights**2, len(categories.first))[None].astype(float)
    )
    size = _sizes(categories, rows, squares, observed)
    points = {
        m: {k: v[0] for k, v in categories.measured(m, observed, rows, size).items()} for m in rows.predicted
    }
    found: dict[str, list[dict[str, Array]]] = {m: [] for m in rows.predicted}
    for drawn in _draws(observed[0], where, rows.weights, n, n_bootstrap, rng):
        for model in rows.predicted:
            found[model].append(categories.measured(model, drawn, rows, size))
    draws = {m: {k: np.concatenate([c[k] for c in chunks]) for k in COMPARED} for m, chunks in found.items()}
    return points, draws


def _sizes(categories: "_Categories", rows: Rows, squares: Array, observed: Array) -> NDArray[np.bool_]:
    """Cells large enough as observed; a draw may leave one empty, but never changes which cells count."""
    model = next(iter(rows.predicted))
    counts = Counts(
        categories.confusion(model, observed, rows)[0], categories.confusion(model, squares, rows)[0]
    )
    return large_enough(counts, rows.min_cell)


def _draws(
    observed: Array, where: Codes, weights: Array | None, n: int, n_bootstrap: int, rng: np.random.Generator
) -> Iterator[Array]:
    if weights is None:
        for chunk in count_draws(observed, n_bootstrap, rng):
            yield chunk.astype(float)
    else:
        for times in row_draws(n, n_bootstrap, rng):
            yield np.bincount(where, weights * times, len(observed))[None].astype(float)


class _Categories(NamedTuple):
    """Rows that share group, label and every model's prediction are one category."""

    first: Codes  # index of one row of each category
    target: dict[str, Codes]  # model -> flat confusion index of each category

    def confusion(self, model: str, drawn: Array, rows: Rows) -> Array:
        """[n_draws, n_groups, n_classes, n_classes] from [n_draws, n_categories]."""
        index = self.target[model]
        order = np.argsort(index, kind="stable")
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
        shape = (len(rows.attribute.groups), rows.n_classes, rows.n_classes)
        result = np.zeros((len(drawn), int(np.prod(shape))))
        result[:, index[order][starts]] = np.add.reduceat(drawn[:, order], starts, axis=1)
        return result.reshape(len(drawn), *shape)

    def measured(self, model: str, drawn: Array, rows: Rows, size: NDArray[np.bool_]) -> dict[str, Array]:
        """Measures of [n_draws] resamples, in chunks that fit in memory."""
        cells = len(rows.attribute.groups) * rows.n_classes**2
        step = max(1, 4_000_000 // cells)
        chunks = []
        for start in range(0, len(drawn), step):
            sums = self.confusion(model, drawn[start : start + step], rows)
            chunks.append(summary_values(Counts(sums, sums), rows.positive, size))
        return {k: np.concatenate([c[k] for c in chunks]) for k in chunks[0]}


def _categories(rows: Rows) -> tuple[_Categories, Codes]:
    joint = rows.attribute.codes * rows.n_classes + rows.truth
    for codes in rows.predicted.values():
        # numbered anew each time, so that many models do not overflow the code
        joint = np.unique(joint * rows.n_classes + codes, return_inverse=True)[1]
    _, first, where = np.unique(joint, return_index=True, return_inverse=True)
    base = rows.attribute.codes[first] * rows.n_classes + rows.truth[first]
    target = {m: base * rows.n_classes + codes[first] for m, codes in rows.predicted.items()}
    return _Categories(first, target), where
