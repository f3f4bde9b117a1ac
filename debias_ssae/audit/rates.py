"""From what the user gives to codes, from codes to counts, from counts to rates by group.

What is wrong with an input is said here, in one line. Counts have the shape [..., n_groups, n_classes, n_classes]
(group, label, prediction); leading axes are bootstrap draws. An undefined rate is NaN, never 0.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError, brief
from debias_ssae.text.checks import MOST_FRACTIONS, check_not_measured, column, named_columns

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]
UNKNOWN = "unknown"
MAX_CLASSES = 1000


class Attribute(NamedTuple):
    """One attribute (or a crossing of several): a group code for each row, the groups' names."""

    name: str
    codes: Codes
    groups: tuple[str, ...]
    known: Mask
    """[n_groups]: False where the attribute's value is missing; such rows are shown, and compared with nobody."""


def check_lengths(lengths: Mapping[str, int]) -> int:
    """Return the common length. Raises InputError that lists all lengths where they differ or are 0."""
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name}: {n}" for name, n in lengths.items())
        raise InputError(f"All inputs need one entry a row, but the lengths differ ({listed})")
    n = next(iter(lengths.values()))
    if n == 0:
        raise InputError("There is no row to audit; pass at least one")
    return n


def label_codes(
    y_true: Any, predictions: Mapping[str, Any]
) -> tuple[Codes, dict[str, Codes], tuple[Any, ...]]:
    """Codes of the labels and of each model's predictions over their common, sorted classes.

    Raises InputError on missing values, on scores passed for labels, and when labels and predictions share no
    value.
    """
    series = {"y_true": column(y_true, "y_true")}
    series |= {f"y_pred {name!r}": column(values, f"y_pred {name!r}") for name, values in predictions.items()}
    check_lengths({name: len(values) for name, values in series.items()})
    for name, values in series.items():
        missing = int(values.isna().sum())
        if missing:
            raise InputError(f"{name} has {missing} missing value(s); drop or fill those rows first")
    levels = {name: pd.unique(values) for name, values in series.items()}
    classes = _sorted_values({v for found in levels.values() for v in _plain(found)})
    _check_classes(classes, levels)
    # not by an index of pandas, to which True and 1 are different
    place = {label: code for code, label in enumerate(classes)}
    coded = [_coded(values, place) for values in series.values()]
    return coded[0], dict(zip(predictions, coded[1:], strict=True)), tuple(classes)


def _coded(values: pd.Series, place: Mapping[Any, int]) -> Codes:
    codes, levels = pd.factorize(values)
    return np.array([place[level] for level in _plain(levels)], dtype=np.int64)[codes]


def _plain(values: Any) -> list[Any]:
    return list(np.asarray(values).tolist())


def _check_classes(classes: list[Any], levels: Mapping[str, Any]) -> None:
    _check_spelling(classes, "labels", "y_true and y_pred")
    truth = set(_plain(levels["y_true"]))
    if all(_fraction(label) == 0 for label in truth):
        for name, found in levels.items():
            if parts := [value for value in _plain(found) if _fraction(value) > 0]:
                raise InputError(
                    f"{name} holds {brief(parts[0])} where every label of y_true is a whole number; this looks like"
                    " scores: threshold them for y_pred, such as (scores >= 0.5), and pass the scores as y_score"
                )
    fractional = [c for c in classes if isinstance(c, float) and not float(c).is_integer()]
    if len(classes) > MAX_CLASSES or (fractional and len(classes) > MOST_FRACTIONS):
        raise InputError(
            f"There are {len(classes)} different labels (such as {(fractional or classes)[0]!r}); this looks like"
            " scores or a regression target: pass predicted labels as y_pred and scores as y_score"
        )
    for name, found in levels.items():
        if not truth & set(_plain(found)):
            raise InputError(
                f"{name} shares no value with y_true ({_sorted_values(set(_plain(found)))[:3]} against"
                f" {_sorted_values(truth)[:3]}); use the same labels, of the same type, in both"
            )


def _check_spelling(values: list[Any], what: str, where: str) -> None:
    """Raises InputError for two values that read alike, such as "Male" and "male ", or 1 and "1"."""
    spelled: dict[str, Any] = {}
    for value in values:
        if (other := spelled.setdefault(str(value).strip().casefold(), value)) != value:
            raise InputError(
                f"The {what} {brief(other)} and {brief(value)} differ by spaces, capital letters or type alone; spell"
                f" them alike in {where}"
            )


def _fraction(value: Any) -> float:
    """What a number, or a string that reads as one, has after its point; NaN for anything else."""
    try:
        return float(value) % 1
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _sorted_values(values: set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # labels of mixed types
        return sorted(values, key=lambda v: (type(v).__name__, str(v)))


def attributes_of(sensitive_features: Any, name: str = "sensitive_features") -> list[Attribute]:
    """Every attribute by itself. Missing values are a group of their own, named "unknown"."""
    return [_attribute(key, values) for key, values in named_columns(sensitive_features, name).items()]


def _attribute(name: str, values: pd.Series) -> Attribute:
    codes, levels = pd.factorize(values, use_na_sentinel=True)
    check_not_measured(list(levels), f"Attribute {name!r}")
    whole = all(not isinstance(v, float) or float(v).is_integer() for v in levels)
    # 1.0 where a gap made floats of whole numbers
    names = [str(int(v) if whole and isinstance(v, float) else v) for v in levels]
    if len(set(names)) != len(names):  # 1 and "1" would merge under one name
        names = [f"{v} ({type(v).__name__})" for v in levels]
    _check_spelling([v for v in levels if isinstance(v, str)], "values", f"attribute {name!r}")
    numeric = all(isinstance(v, int | float | np.number | np.bool_) for v in levels)
    order = np.argsort(np.asarray(levels) if numeric else np.array(names, dtype=object))
    rank = np.empty(len(names) + 1, dtype=np.int64)
    rank[order], rank[-1] = np.arange(len(names)), len(names)  # code -1: missing, last
    groups = [names[i] for i in order]
    known = [True] * len(groups)
    if (codes < 0).any():
        groups.append(UNKNOWN if UNKNOWN not in groups else f"{UNKNOWN} (missing)")
        known.append(False)
    return Attribute(name, rank[codes], tuple(groups), np.array(known))


def cross(attributes: list[Attribute]) -> Attribute:
    """All combinations of the attributes' groups, also those without a row: cells nobody can speak for."""
    _, codes, groups, known = attributes[0]
    for other in attributes[1:]:
        codes = codes * len(other.groups) + other.codes
        groups = tuple(f"{a}, {b}" for a in groups for b in other.groups)
        known = (known[:, None] & other.known).ravel()
    return Attribute(" x ".join(a.name for a in attributes), codes, groups, known)


def weights_of(sample_weight: Any, n: int) -> NDArray[np.float64] | None:
    """Row weights as floats. Raises InputError on a wrong length, negative, missing or all-zero weights."""
    if sample_weight is None:
        return None
    try:
        weights = column(sample_weight, "sample_weight").to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample_weight must be numbers: {error}") from error
    check_lengths({"sample_weight": len(weights), "y_true": n})
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise InputError("sample_weight must be finite, not negative, and not all zero")
    return weights


class Share(NamedTuple):
    """Numerator and denominator of a rate; ``squares``: the sum of squared weights of the denominator's rows."""

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

    def where(self, mask: Mask) -> "Share":
        """The rates in ``mask``; the others have no rows."""
        return Share(*(np.where(mask, v, 0.0) for v in self))


class Counts(NamedTuple):
    """Confusion counts (sums of weights), sums of squared weights; [..., n_groups, n_classes, n_classes]."""

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
    """[..., n_groups, n_classes] accuracy in each cell group x label: the label's true positive rate."""
    sums, squares = counts
    return Share(np.diagonal(sums, axis1=-2, axis2=-1), sums.sum(axis=-1), squares.sum(axis=-1))


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


class Deciding(NamedTuple):
    """Which rates have enough rows to decide a gap or a worst group; the others are shown, no more."""

    accuracy: Mask
    """[n_groups]"""
    rates: Mapping[str, Mask]
    """Each [n_groups, n_classes]: the rates of :func:`one_vs_rest`."""
    cells: Mask
    """[n_groups, n_classes]: cells that can be the worst one."""


def deciding(counts: Counts, known: Mask | None = None, min_group: float = 0) -> Deciding:
    """Rates over ``min_group`` rows or more (weighted ones by their effective size) of groups in ``known``."""
    every = np.ones(counts.sums.shape[-3], dtype=bool) if known is None else known
    least = max(min_group * (1 - 1e-9), 1e-300)
    rates = {m: (s.effective[1] >= least) & every[:, None] for m, s in one_vs_rest(counts).items()}
    cells = (cell_accuracy(counts).effective[1] >= least) & every[:, None]
    return Deciding((accuracy(counts).effective[1] >= least) & every, rates, cells)


def spread(values: Array) -> Array:
    """Highest minus lowest along the last axis over defined values; NaN with fewer than two."""
    gap = np.fmax.reduce(values, axis=-1) - np.fmin.reduce(values, axis=-1)
    return np.where((~np.isnan(values)).sum(axis=-1) >= 2, gap, np.nan)


_max, _min = partial(np.fmax.reduce, axis=-1), partial(np.fmin.reduce, axis=-1)
"""Over the last axis; NaN only where nothing is defined."""


def _mean(values: Array) -> Array:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    n = (~np.isnan(values)).sum(axis=-1)
    return np.where(n > 0, np.nansum(values, axis=-1) / np.maximum(n, 1), np.nan)


def mean_over_pairs(values: Array) -> Array:
    """Mean over pairs of groups (last axis) of the squared difference; NaN with fewer than two defined."""
    m = (~np.isnan(values)).sum(axis=-1)
    squares = np.nansum((values - _mean(values)[..., None]) ** 2, axis=-1)
    return np.where(m >= 2, 2 * squares / np.maximum(m - 1, 1), np.nan)


def summary_values(counts: Counts, positive: int, decides: Deciding | None = None) -> dict[str, Array]:
    """Every measure as a number, one each a leading axis; ``decides`` (default: all with rows) counts in gaps."""
    if decides is None:
        decides = deciding(counts)
    cells, rates = cell_accuracy(counts).value, one_vs_rest(counts)
    n_classes = counts.sums.shape[-1]
    labels = [positive] if n_classes == 2 else list(range(n_classes))
    # [..., n_classes, n_groups]
    known = {
        m: np.moveaxis(np.where(mask, rates[m].value, np.nan), -1, -2) for m, mask in decides.rates.items()
    }
    gaps = {m: spread(values) for m, values in known.items()}
    selected = known["selection_rate"][..., labels, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        top = _max(selected)
        ratio = np.where((top > 0) & ((~np.isnan(selected)).sum(-1) >= 2), _min(selected) / top, np.nan)
    worst = np.where(decides.cells, cells, np.nan)
    # undefined where either part is: half of the odds do not make them equal
    odds = np.maximum(gaps["true_positive_rate"], gaps["false_positive_rate"])[..., labels]
    return {
        "accuracy": accuracy(counts.pooled()).value[..., 0],
        "balanced_accuracy": _mean(cell_accuracy(counts.pooled()).value[..., 0, :]),
        "worst_group_accuracy": _min(worst.reshape(*worst.shape[:-2], -1)),
        "accuracy_gap": spread(np.where(decides.accuracy, accuracy(counts).value, np.nan)),
        "tpr_gap_max": _max(gaps["true_positive_rate"]),
        "tpr_gap_rms": np.sqrt(_mean(mean_over_pairs(known["true_positive_rate"]))),
        "demographic_parity_difference": _max(gaps["selection_rate"][..., labels]),
        "demographic_parity_ratio": _min(ratio),
        "equalized_odds_difference": _max(odds),
    }
