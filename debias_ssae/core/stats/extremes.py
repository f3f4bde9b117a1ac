"""Intervals for the lowest of several shares, the widest gap and the lowest ratio between them.

A minimum over noisy cells is biased downwards and a maximum gap upwards, so percentile intervals miss. Here
the end on the biased side is a single-cell bound (it is enough that the truly lowest cell's own bound holds)
and the other end holds for all cells together (any of them could be the lowest). All functions work on the
last axis; leading axes are independent data sets.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.core.stats.proportions import critical_value, newcombe, share_ratio, wilson

Array = NDArray[np.float64]


class Extreme(NamedTuple):
    """Value and ends, one each a data set (leading axes); NaN where too few shares are defined."""

    value: Any
    low: Any
    high: Any


MAX_GROUPS_IN_PAIRS = 250


def lowest_share(hits: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> Extreme:
    """The lowest share over cells [..., n_cells]; cells with ``n == 0`` are left out (the caller lists them).

    Lower end: the lowest single-cell Wilson bound. Upper end: the lowest of the bounds that hold together.
    """
    k, size = _floats(hits, n)
    low, _ = wilson(k, size, confidence=confidence)
    _, high = wilson(k, size, z=_over(critical_value, confidence, (size > 0).sum(axis=-1)))
    return Extreme(_lowest(_share(k, size)), _lowest(low), _lowest(high))


def widest_gap(hits: ArrayLike, n: ArrayLike, *, confidence: float = 0.95, families: int = 1) -> Extreme:
    """Highest minus lowest share over groups [..., n_groups], from Newcombe's interval of every pair.

    Lower end: the highest of the pairs' bounds that hold together, 0 at least. Upper end: the highest
    single-pair bound. NaN with fewer than two groups that have rows. ``families``: how many such gaps the
    caller takes the largest of. Beyond 250 groups the pairs are not listed and wider, group-wise bounds are
    used.
    """
    k, size = _floats(hits, n)
    if k.shape[-1] > MAX_GROUPS_IN_PAIRS:
        return _groupwise_gap(k, size, confidence, families)
    pairs = _Pairs.of(k, size)
    _, high = newcombe(*pairs.counts, confidence=confidence)
    low, _ = newcombe(
        *pairs.counts, z=_over(critical_value, confidence, families * pairs.defined.sum(axis=-1))
    )
    gap = _share(pairs.counts[0], pairs.counts[1]) - _share(pairs.counts[2], pairs.counts[3])
    return Extreme(-_lowest(-gap), np.maximum(-_lowest(-low), 0.0), -_lowest(-high))


def _groupwise_gap(k: Array, size: Array, confidence: float, families: int) -> Extreme:
    defined = (size > 0).sum(axis=-1)
    z = _over(critical_value, confidence, families * defined)
    low, high = wilson(k, size, z=z)
    share = np.where((defined >= 2)[..., None], _share(k, size), np.nan)
    gap = -_lowest(-share) - _lowest(share)
    return Extreme(gap, np.maximum(-_lowest(-low) - _lowest(high), 0.0), -_lowest(-high) - _lowest(low))


def lowest_ratio(hits: ArrayLike, n: ArrayLike, *, confidence: float = 0.95, families: int = 1) -> Extreme:
    """Lowest share over highest share over groups [..., n_groups] (the impact ratio of the four-fifths rule).

    Beyond 250 groups only the value is given; the ends are NaN.
    """
    k, size = _floats(hits, n)
    if k.shape[-1] > MAX_GROUPS_IN_PAIRS:
        share = _share(k, size)
        ratio = _lowest(share) / -_lowest(-share)
        return Extreme(ratio, np.full_like(ratio, np.nan), np.full_like(ratio, np.nan))
    pairs = _Pairs.of(k, size)
    k_high, n_high, k_low, n_low = pairs.counts
    low, _ = share_ratio(k_low, n_low, k_high, n_high, confidence=confidence)
    z = _over(critical_value, confidence, families * pairs.defined.sum(axis=-1))
    _, high = share_ratio(k_low, n_low, k_high, n_high, z=z)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = _share(k_high, n_high)
        ratio = np.where(top > 0, _share(k_low, n_low) / top, np.nan)
    return Extreme(_lowest(ratio), _lowest(low), np.minimum(_lowest(high), 1.0))


class _Pairs(NamedTuple):
    """Every pair of groups, the one with the higher share first: hits and sizes [..., n_pairs]."""

    counts: tuple[Array, Array, Array, Array]
    defined: NDArray[np.bool_]

    @classmethod
    def of(cls, k: Array, size: Array) -> "_Pairs":
        a, b = np.triu_indices(k.shape[-1], 1)
        share = _share(k, size)
        swap = share[..., b] > share[..., a]
        k_a, k_b, n_a, n_b = k[..., a], k[..., b], size[..., a], size[..., b]
        first = np.where(swap, k_b, k_a), np.where(swap, n_b, n_a)
        second = np.where(swap, k_a, k_b), np.where(swap, n_a, n_b)
        return cls((*first, *second), (n_a > 0) & (n_b > 0))


def _floats(hits: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    k, size = np.broadcast_arrays(np.asarray(hits, dtype=float), np.asarray(n, dtype=float))
    return k, size


def _share(k: Array, size: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, k / size, np.nan)


def _lowest(values: Array) -> Any:
    """Minimum over the last axis of what is defined; NaN where nothing is."""
    filled = np.where(np.isnan(values), np.inf, values).min(axis=-1, initial=np.inf)
    return np.where(np.isinf(filled), np.nan, filled)


def _over(function: Any, confidence: float, counts: Any) -> Array:
    """Critical values for different numbers of comparisons, shaped to broadcast over the last axis."""
    distinct, where = np.unique(counts, return_inverse=True)
    values = np.array([function(confidence, int(c)) for c in distinct])
    return values[where].reshape(np.shape(counts))[..., None]
