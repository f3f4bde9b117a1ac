"""Rates by group from confusion counts. An undefined rate is NaN, never 0.

Everything works on counts of shape [..., n_groups, n_classes, n_classes] (group, label, prediction); leading
axes are bootstrap draws.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from debias_ssae.audit.inputs import Codes

Array = NDArray[np.float64]


class Share(NamedTuple):
    """Numerator and denominator of a rate; ``squares`` is the sum of squared weights of the denominator's
    rows.
    """

    hits: Array
    n: Array
    squares: Array

    @property
    def value(self) -> Array:
        """The rate; NaN where no row counts."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.n > 0, self.hits / self.n, np.nan)

    @property
    def effective(self) -> tuple[Array, Array]:
        """Hits and size as if the rows were unweighted (Kish 1965: squared sum over sum of squares)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.where(self.squares > 0, self.n**2 / self.squares, 0.0)
        return np.nan_to_num(self.value) * size, size

    def of(self, label: int) -> "Share":
        """The rates of one class, by group."""
        return Share(self.hits[..., label], self.n[..., label], self.squares[..., label])


class Counts(NamedTuple):
    """Confusion counts (sums of weights) and sums of squared weights; both [..., n_groups, n_classes,
    n_classes].
    """

    sums: Array
    squares: Array

    def pooled(self) -> "Counts":
        """All groups as one."""
        return Counts(*(v.sum(axis=-3, keepdims=True) for v in self))


def confusion(
    groups: Codes, y_true: Codes, y_pred: Codes, shape: tuple[int, int], weights: Array | None = None
) -> Counts:
    """Counts of (group, label, prediction); ``shape`` is (n_groups, n_classes)."""
    n_groups, n_classes = shape
    joint = (groups * n_classes + y_true) * n_classes + y_pred
    size = n_groups * n_classes * n_classes

    def counted(weight: Array | None) -> Array:
        return np.bincount(joint, weight, size).reshape(n_groups, n_classes, n_classes).astype(float)

    sums = counted(weights)
    return Counts(sums, sums if weights is None else counted(weights**2))


def accuracy(counts: Counts) -> Share:
    """[..., n_groups] share of right predictions."""
    sums, squares = counts
    return Share(np.trace(sums, axis1=-2, axis2=-1), sums.sum(axis=(-2, -1)), squares.sum(axis=(-2, -1)))


def cell_accuracy(counts: Counts) -> Share:
    """[..., n_groups, n_classes] accuracy in each cell group x label, which is the label's true positive
    rate.
    """
    sums, squares = counts
    return Share(np.diagonal(sums, axis1=-2, axis2=-1), sums.sum(axis=-1), squares.sum(axis=-1))


def large_enough(counts: Counts, min_cell: int) -> NDArray[np.bool_]:
    """[..., n_groups, n_classes]: cells of ``min_cell`` rows; weighted ones count by their effective size."""
    return np.asarray(cell_accuracy(counts).effective[1] >= min_cell * (1 - 1e-9))


def one_vs_rest(counts: Counts) -> dict[str, Share]:
    """Each [..., n_groups, n_classes]: true and false positive rate, precision, selection rate, base rate."""
    sums, squares = counts
    every = np.zeros(sums.shape[-1])
    total, total2 = (v.sum(axis=(-2, -1))[..., None] + every for v in counts)
    hits, labelled, chosen = np.diagonal(sums, axis1=-2, axis2=-1), sums.sum(axis=-1), sums.sum(axis=-2)
    labelled2, chosen2 = squares.sum(axis=-1), squares.sum(axis=-2)
    return {
        "true_positive_rate": Share(hits, labelled, labelled2),
        "false_positive_rate": Share(chosen - hits, total - labelled, total2 - labelled2),
        "precision": Share(hits, chosen, chosen2),
        "selection_rate": Share(chosen, total, total2),
        "base_rate": Share(labelled, total, total2),
    }


def by_class(rates: dict[str, Share], n_classes: int, positive: int) -> list[tuple[str, int, Share]]:
    """The rates worth showing and testing, without repetitions.

    With two classes: precision, selection and base rate of the positive class; the true and the false
    positive rate of both (each is one minus the other class's other). With more classes, everything of every
    class.
    """
    rows = []
    for metric, share in rates.items():
        for label in range(n_classes):
            if n_classes > 2 or label == positive or metric == "true_positive_rate":
                rows.append((metric, label, share.of(label)))
    return rows


def lowest(values: Array) -> tuple[float, tuple[int, ...] | None]:
    """The lowest defined value and where it is; (NaN, None) when none is defined."""
    if np.isnan(values).all():
        return float("nan"), None
    where = np.unravel_index(int(np.nanargmin(values)), values.shape)
    return float(values[where]), tuple(int(i) for i in where)


def spread(values: Array) -> Array:
    """Highest minus lowest along the last axis over defined values; NaN with fewer than two."""
    defined = ~np.isnan(values)
    high = np.where(defined, values, -np.inf).max(axis=-1)
    low = np.where(defined, values, np.inf).min(axis=-1)
    return np.where(defined.sum(axis=-1) >= 2, high - low, np.nan)


def mean_over_pairs(values: Array) -> Array:
    """Mean over pairs of groups (last axis) of the squared difference; NaN with fewer than two defined
    values.
    """
    defined = ~np.isnan(values)
    m = defined.sum(axis=-1)
    filled = np.where(defined, values, 0.0)
    mean = filled.sum(axis=-1) / np.maximum(m, 1)
    squares = (np.where(defined, values - mean[..., None], 0.0) ** 2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m >= 2, 2 * squares / (m - 1), np.nan)


def _nan_over(function: str, values: Array) -> Array:
    """nanmax, nanmin or nanmean over the last axis, NaN (without a warning) where nothing is defined."""
    defined = ~np.isnan(values)
    n = defined.sum(axis=-1)
    if function == "mean":
        result = np.where(defined, values, 0.0).sum(axis=-1) / np.maximum(n, 1)
    elif function == "max":
        result = np.where(defined, values, -np.inf).max(axis=-1)
    else:
        result = np.where(defined, values, np.inf).min(axis=-1)
    return np.where(n > 0, result, np.nan)


def summary_values(counts: Counts, positive: int, counted: NDArray[np.bool_]) -> dict[str, Array]:
    """Every measure as a number, one each a leading axis; ``counted`` [n_groups, n_classes]: cells large
    enough.
    """
    cells, rates = cell_accuracy(counts), one_vs_rest(counts)
    n_classes = counts.sums.shape[-1]
    labels = [positive] if n_classes == 2 else list(range(n_classes))

    def gaps(metric: str, chosen: list[int]) -> Array:
        return spread(np.moveaxis(rates[metric].value[..., chosen], -1, -2))

    selected = np.moveaxis(rates["selection_rate"].value[..., labels], -1, -2)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = _nan_over("max", selected)
        ratio = np.where(
            (top > 0) & ((~np.isnan(selected)).sum(-1) >= 2), _nan_over("min", selected) / top, np.nan
        )
    recall = cell_accuracy(counts.pooled()).value[..., 0, :]
    cell = np.where(counted, cells.value, np.nan)
    # undefined where either part is: half of the odds do not make them equal
    odds = np.maximum(gaps("true_positive_rate", labels), gaps("false_positive_rate", labels))
    return {
        "accuracy": accuracy(counts.pooled()).value[..., 0],
        "balanced_accuracy": _nan_over("mean", recall),
        "worst_group_accuracy": _nan_over("min", cell.reshape(*cell.shape[:-2], -1)),
        "accuracy_gap": spread(accuracy(counts).value),
        "tpr_gap_max": _nan_over("max", gaps("true_positive_rate", list(range(n_classes)))),
        "tpr_gap_rms": np.sqrt(_nan_over("mean", mean_over_pairs(np.moveaxis(cells.value, -1, -2)))),
        "demographic_parity_difference": _nan_over("max", gaps("selection_rate", labels)),
        "demographic_parity_ratio": _nan_over("min", ratio),
        "equalized_odds_difference": _nan_over("max", odds),
    }
