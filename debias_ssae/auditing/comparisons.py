"""Models in pairs, on the same rows: signed differences with intervals."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from debias_ssae.auditing.inputs import Attribute, Codes
from debias_ssae.auditing.measures import Row
from debias_ssae.auditing.rates import Array, Counts, cell_accuracy, summary_values
from debias_ssae.intervals import (
    count_draws,
    lowest_share_difference,
    paired_difference,
    row_draws,
    sign_test,
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


def comparison_rows(rows: Rows, n_bootstrap: int, rng: np.random.Generator) -> list[Row]:
    """One row a pair of models x measure: ``model_a - model_b``.

    Accuracy and worst-group accuracy have intervals of their own (Bonett and Price; directional delta). The
    rest is bootstrapped with rows paired; because gaps are biased under resampling the interval is the union
    of the percentile and the reflected one. Weighted rows are bootstrapped one by one, and the method says
    so.
    """
    if len(rows.predicted) < 2:
        return []
    points, draws = _values(rows, n_bootstrap, rng)
    table = []
    for a, b in combinations(rows.predicted, 2):
        for metric in COMPARED:
            value = float(points[a][metric] - points[b][metric])
            low, high, method = _ends(draws[a][metric] - draws[b][metric], value, rows.weights is not None)
            row: Row = {
                "section": rows.section,
                "model_a": a,
                "model_b": b,
                "metric": metric,
                "difference": value,
            }
            row |= {"ci_low": low, "ci_high": high, "p": float("nan"), "method": method}
            if rows.weights is None and metric in ("accuracy", "worst_group_accuracy"):
                row |= _closed_form(rows, a, b, metric)
            row["outcome"] = _outcome(row["ci_low"], row["ci_high"], metric)
            table.append(row)
    return table


def _outcome(low: float, high: float, metric: str) -> str:
    if np.isnan(low) or np.isnan(high):
        return "undefined"
    if low <= 0 <= high:
        return "no difference found"
    higher_is_better = "accuracy" in metric
    return "a better" if (low > 0) == higher_is_better else "b better"


def _ends(draws: Array, value: float, weighted: bool) -> tuple[float, float, str]:
    method = "row bootstrap" if weighted else "count bootstrap"
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or len(draws) < 2:
        return float("nan"), float("nan"), method
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(min(low, 2 * value - high)), float(max(high, 2 * value - low)), method


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
    return {"ci_low": float(found.low), "ci_high": float(found.high), "method": "directional delta, paired"}


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
    return np.asarray(cell_accuracy(counts).effective[1] >= max(rows.min_cell, 1e-9))


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
