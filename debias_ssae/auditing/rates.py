"""Rates by group from confusion counts. An undefined rate is NaN, never 0.

Everything works on counts of shape [..., n_groups, n_classes, n_classes] (group, label, prediction); leading
axes are bootstrap draws.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from debias_ssae.auditing.inputs import Codes

Array = NDArray[np.float64]


class Share(NamedTuple):
    """Numerator and denominator of a rate."""

    hits: Array
    n: Array

    @property
    def value(self) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.n > 0, self.hits / self.n, np.nan)


def confusion(
    groups: Codes, y_true: Codes, y_pred: Codes, shape: tuple[int, int], weights: Array | None = None
) -> Array:
    """[n_groups, n_classes, n_classes] sums of weights; ``shape`` is (n_groups, n_classes)."""
    n_groups, n_classes = shape
    joint = (groups * n_classes + y_true) * n_classes + y_pred
    counts = np.bincount(joint, weights=weights, minlength=n_groups * n_classes * n_classes)
    return counts.reshape(n_groups, n_classes, n_classes).astype(float)


def accuracy(counts: Array) -> Share:
    """[..., n_groups] share of right predictions."""
    return Share(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def cell_accuracy(counts: Array) -> Share:
    """[..., n_groups, n_classes] accuracy in each cell group x label, which is the label's true positive
    rate.
    """
    return Share(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1))


def one_vs_rest(counts: Array) -> dict[str, Share]:
    """Each [..., n_groups, n_classes]: true and false positive rate, precision, selection rate, base rate."""
    total = counts.sum(axis=(-2, -1))[..., None] + np.zeros(counts.shape[-1])
    hits, labelled, chosen = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)
    return {
        "true_positive_rate": Share(hits, labelled),
        "false_positive_rate": Share(chosen - hits, total - labelled),
        "precision": Share(hits, chosen),
        "selection_rate": Share(chosen, total),
        "base_rate": Share(labelled, total),
    }


def lowest(values: Array) -> tuple[float, tuple[int, ...] | None]:
    """The lowest defined value and where it is; (NaN, None) when none is defined."""
    if np.isnan(values).all():
        return float("nan"), None
    where = np.unravel_index(int(np.nanargmin(values)), values.shape)
    return float(values[where]), tuple(int(i) for i in where)


def spread(values: Array) -> tuple[float, Any]:
    """Highest minus lowest along axis 0 over defined values, (index of highest, of lowest); NaN with fewer
    than two.
    """
    if int((~np.isnan(values)).sum()) < 2:
        return float("nan"), None
    top, bottom = int(np.nanargmax(values)), int(np.nanargmin(values))
    return float(values[top] - values[bottom]), (top, bottom)
