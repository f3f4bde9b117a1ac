"""From what the user gives to integer codes; everything wrong with it is said here, in one line."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.text.checks import column, named_columns

Codes = NDArray[np.int64]
UNKNOWN = "unknown"
MAX_CLASSES = 1000


class Attribute(NamedTuple):
    """One attribute (or a crossing of several): a group code for each row, the groups' names."""

    name: str
    codes: Codes
    groups: tuple[str, ...]


def check_lengths(lengths: Mapping[str, int]) -> int:
    """Return the common length. Raises InputError that lists every length when they differ or there is no
    row.
    """
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
    fractional = [c for c in classes if isinstance(c, float) and not float(c).is_integer()]
    if len(classes) > MAX_CLASSES or (fractional and len(classes) > 20):
        raise InputError(
            f"Selection {len(classes)} different labels (such as {(fractional or classes)[0]!r}); this looks"
            " like scores or"
            " a regression target: pass predicted labels as y_pred and scores as y_score"
        )
    truth = set(_plain(levels["y_true"]))
    for name, found in levels.items():
        if not truth & set(_plain(found)):
            raise InputError(
                f"{name} shares no value with y_true ({_sorted_values(set(_plain(found)))[:3]} against"
                f" {_sorted_values(truth)[:3]}); use the same labels, of the same type, in both"
            )


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
    whole = all(not isinstance(v, float) or float(v).is_integer() for v in levels)
    names = [
        str(int(v) if whole and isinstance(v, float) else v) for v in levels
    ]  # 1.0 where a gap made floats
    if len(set(names)) != len(names):  # 1 and "1" would merge under one name
        names = [f"{v} ({type(v).__name__})" for v in levels]
    order = np.argsort(np.array(names, dtype=object)) if _textual(levels) else np.argsort(np.asarray(levels))
    rank = np.empty(len(names) + 1, dtype=np.int64)
    rank[order], rank[-1] = np.arange(len(names)), len(names)  # code -1: missing, last
    groups = [names[i] for i in order]
    if (codes < 0).any():
        groups.append(UNKNOWN if UNKNOWN not in groups else f"{UNKNOWN} (missing)")
    return Attribute(name, rank[codes], tuple(groups))


def _textual(levels: Any) -> bool:
    return not all(isinstance(v, int | float | np.number | np.bool_) for v in levels)


def cross(attributes: list[Attribute]) -> Attribute:
    """All combinations of the attributes' groups, also those without a row (they are cells nobody can speak
    for).
    """
    codes, groups = attributes[0].codes, list(attributes[0].groups)
    for other in attributes[1:]:
        codes = codes * len(other.groups) + other.codes
        groups = [f"{a}, {b}" for a in groups for b in other.groups]
    return Attribute(" x ".join(a.name for a in attributes), codes, tuple(groups))


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
