"""Models in pairs, on the same rows: signed differences with intervals."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from debias_ssae.audit.measures import Row
from debias_ssae.audit.rates import Array, Attribute, Codes, Counts, Deciding, deciding, summary_values
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
    "tpr_gap_rms_corrected",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
_RATES = {
    "tpr_gap_max": ("true_positive_rate",),
    "demographic_parity_difference": ("selection_rate",),
    "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
}
_GAPS = tuple(_RATES)
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
    min_group: int

    @property
    def shape(self) -> tuple[int, int]:
        """Groups and classes."""
        return len(self.attribute.groups), self.n_classes


def comparison_rows(rows: Rows, measures: list[Row], n_bootstrap: int, rng: np.random.Generator) -> list[Row]:
    """One row a pair of models x measure: ``model_a - model_b``, the later model minus the earlier.

    ``measures`` are the section's rows of all models.

    Accuracy and worst-group accuracy have intervals of their own (Bonett and Price; directional delta). Gaps
    are biased under resampling, so theirs joins the two models' intervals (MOVER, Zou 2008), with the
    correlation that a bootstrap of the same rows shows. Balanced accuracy, and weighted accuracies, are
    bootstrapped: the union of the percentile and the reflected interval. Weighted rows are bootstrapped one
    by one, and the method says so.
    """
    if len(rows.predicted) < 2:
        return []
    points, draws, decides = _values(rows, n_bootstrap, rng)
    single = {(r["model"], r["metric"]): r for r in measures}
    kind = "count bootstrap" if rows.weights is None else "row bootstrap"
    table = []
    for b, a in combinations(rows.predicted, 2):
        for metric in COMPARED:
            value = single[a, metric]["value"] - single[b, metric]["value"]
            p = float("nan")
            if rows.weights is None and metric in ("accuracy", "worst_group_accuracy"):
                low, high, p, method = _closed_form(rows, a, b, metric, decides)
            elif metric in _GAPS and rows.weights is None and len(rows.attribute.groups) <= MOST_GROUPS:
                gap = widest_gap_difference(*paired_counts(rows, a, b, metric, decides))
                low, high, method = float(gap.low), float(gap.high), _DELTA
            elif metric in _GAPS or metric == "tpr_gap_rms_corrected":
                low, high = _joined(single[a, metric], single[b, metric], draws[a][metric], draws[b][metric])
                method = f"MOVER, correlation from a {kind}"
            else:
                low, high = _ends(
                    draws[a][metric] - draws[b][metric], float(points[a][metric] - points[b][metric])
                )
                method = kind
            facts = {
                "section": rows.section,
                "model_a": a,
                "model_b": b,
                "metric": metric,
                "difference": value,
            }
            judged = {"p": p, "outcome": _outcome(low, high, metric), "method": method}
            table.append(facts | {"ci_low": low, "ci_high": high} | judged)
    return table


def _joined(one: Row, two: Row, x: Array, y: Array) -> tuple[float, float]:
    """Ends of the difference of two gaps from each one's own interval; ``x``, ``y``: their draws."""
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = x[defined], y[defined]
    r = float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.std() > 0 and y.std() > 0 else 0.0
    # shared rows tighten the difference; where a gap may be 0 its noise is folded, and the ends simply add up
    r = min(max(r, 0.0), 1.0) if min(one["ci_low"], two["ci_low"]) > 0 else -1.0
    difference = one["value"] - two["value"]
    down = _hypotenuse(one["value"] - one["ci_low"], two["ci_high"] - two["value"], r)
    up = _hypotenuse(one["ci_high"] - one["value"], two["value"] - two["ci_low"], r)
    return float(max(difference - down, -1.0)), float(min(difference + up, 1.0))


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


def _closed_form(
    rows: Rows, a: str, b: str, metric: str, decides: Deciding
) -> tuple[float, float, float, str]:
    """Ends, p value and method."""
    right_a, right_b = rows.predicted[a] == rows.truth, rows.predicted[b] == rows.truth
    cell = rows.attribute.codes * rows.n_classes + rows.truth
    masks = (right_a & ~right_b, right_b & ~right_a, right_a & right_b, np.ones_like(right_a))
    only_a, only_b, both, n = (np.bincount(cell[mask], minlength=decides.cells.size) for mask in masks)
    if metric == "accuracy":
        low, high = paired_difference(only_a.sum(), only_b.sum(), n.sum())
        p = float(sign_test(only_a.sum(), only_b.sum()))
        return float(low), float(high), p, "Bonett-Price; McNemar mid-p"
    counted = decides.cells.ravel()  # the others count as without rows
    found = lowest_share_difference(*(v * counted for v in (only_a, only_b, both, n)))
    return float(found.low), float(found.high), float("nan"), _DELTA


def paired_counts(
    rows: Rows, a: str, b: str, metric: str, decides: Deciding
) -> tuple[Array, Array, Array, Array]:
    """[n_families, n_groups] rows hit by a alone, by b alone, by both, and all rows, for the rates behind a gap.

    Rates that decide nothing have no rows.
    """
    every = list(range(rows.n_classes))
    labels = [rows.positive] if rows.n_classes == 2 and metric != "tpr_gap_max" else every
    families = []
    for label in labels:
        labelled = rows.truth == label
        insides = {
            "true_positive_rate": labelled,
            "false_positive_rate": ~labelled,
            "selection_rate": np.ones_like(labelled),
        }
        for rate in _RATES[metric]:
            hit_a, hit_b = rows.predicted[a] == label, rows.predicted[b] == label
            masks = (hit_a & ~hit_b, hit_b & ~hit_a, hit_a & hit_b, np.ones_like(hit_a))
            kept = decides.rates[rate][:, label]
            families.append([_by_group(rows, insides[rate] & mask) * kept for mask in masks])
    counts = np.array(families).transpose(1, 0, 2)
    return counts[0], counts[1], counts[2], counts[3]


def _by_group(rows: Rows, mask: NDArray[np.bool_]) -> Array:
    return np.bincount(rows.attribute.codes[mask], minlength=len(rows.attribute.groups)).astype(float)


def _values(
    rows: Rows, n_bootstrap: int, rng: np.random.Generator
) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]], Deciding]:
    """Each model's measures as observed, and [n_bootstrap] under resampling of the same rows for all models.

    Which rates count is settled as observed: a draw may leave one empty, but never changes it.
    """
    categories, where = _categories(rows)
    observed = np.bincount(where, rows.weights, len(categories.first))[None].astype(float)
    squared = None if rows.weights is None else rows.weights**2
    squares = np.bincount(where, squared, len(categories.first))[None].astype(float)
    first = next(iter(rows.predicted))
    counts = Counts(*(categories.confusion(first, v, rows)[0] for v in (observed, squares)))
    decides = deciding(counts, rows.attribute.known, rows.min_group)

    def measured(drawn: Array) -> dict[str, dict[str, Array]]:
        found = {m: categories.measured(m, drawn, rows, decides) for m in rows.predicted}
        return {m: {**v, "tpr_gap_rms_corrected": v["tpr_gap_rms"]} for m, v in found.items()}

    points = {m: {k: v[0] for k, v in one.items()} for m, one in measured(observed).items()}
    drawn = _draws(observed[0], where, rows.weights, len(rows.truth), n_bootstrap, rng)
    chunks = [measured(one) for one in drawn]
    draws = {m: {k: np.concatenate([c[m][k] for c in chunks]) for k in COMPARED} for m in rows.predicted}
    return points, draws, decides


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
        shape = (*rows.shape, rows.n_classes)
        result = np.zeros((len(drawn), int(np.prod(shape))))
        result[:, index[order][starts]] = np.add.reduceat(drawn[:, order], starts, axis=1)
        return result.reshape(len(drawn), *shape)

    def measured(self, model: str, drawn: Array, rows: Rows, decides: Deciding) -> dict[str, Array]:
        """Measures of [n_draws] resamples, in chunks that fit in memory."""
        cells = len(rows.attribute.groups) * rows.n_classes**2
        step = max(1, 4_000_000 // cells)
        chunks = []
        for start in range(0, len(drawn), step):
            sums = self.confusion(model, drawn[start : start + step], rows)
            chunks.append(summary_values(Counts(sums, sums), rows.positive, decides))
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
