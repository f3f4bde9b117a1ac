"""Intervals for the lowest of several shares, the widest gap and the lowest ratio between them, and for two models'
differences of these on the same rows.

A minimum over noisy cells is biased downwards and a maximum gap upwards, so percentile intervals miss. Here
the end on the biased side is a single-cell bound (it is enough that the truly lowest cell's own bound holds)
and the other end holds for all cells together (any of them could be the lowest). All functions of one
model work on the last axis; leading axes are independent data sets.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from debias_ssae.core.stats.shares import Array, Mask, critical_value, newcombe, share_ratio, wilson

_NOTHING = (float("nan"),) * 3


class Extreme(NamedTuple):
    """Value and ends, one each a data set (leading axes); NaN where too few shares are defined."""

    value: Any
    low: Any
    high: Any


MAX_GROUPS_IN_PAIRS = 250
TAILS = [0.025, 0.975]
"""Of a 95% interval."""
N_DRAWS = 2000
"""Of normal noise, in the difference of two models."""


def lowest_share(hits: ArrayLike, n: ArrayLike) -> Extreme:
    """The lowest share over cells [..., n_cells]; cells with ``n == 0`` are left out (the caller lists them).

    Lower end: the lowest single-cell Wilson bound. Upper end: the lowest of the bounds that hold together.
    """
    k, size = _floats(hits, n)
    low, _ = wilson(k, size)
    _, high = wilson(k, size, z=_over((size > 0).sum(axis=-1)))
    return Extreme(_lowest(_share(k, size)), _lowest(low), _lowest(high))


def widest_gap(hits: ArrayLike, n: ArrayLike, *, families: int = 1) -> Extreme:
    """Highest minus lowest share over groups [..., n_groups], from Newcombe's interval of every pair.

    Lower end: the highest of the pairs' bounds that hold together, 0 at least. Upper end: the highest
    single-pair bound. NaN with fewer than two groups that have rows. ``families``: how many such gaps the
    caller takes the largest of. Beyond 250 groups the pairs are not listed and wider, group-wise bounds are
    used.
    """
    k, size = _floats(hits, n)
    if k.shape[-1] > MAX_GROUPS_IN_PAIRS:
        return _groupwise_gap(k, size, families)
    pairs = _Pairs.of(k, size)
    _, high = newcombe(*pairs.counts)
    low, _ = newcombe(*pairs.counts, z=_over(families * pairs.defined.sum(axis=-1)))
    gap = _share(pairs.counts[0], pairs.counts[1]) - _share(pairs.counts[2], pairs.counts[3])
    return Extreme(-_lowest(-gap), np.maximum(-_lowest(-low), 0.0), -_lowest(-high))


def _groupwise_gap(k: Array, size: Array, families: int) -> Extreme:
    defined = (size > 0).sum(axis=-1)
    z = _over(families * defined)
    low, high = wilson(k, size, z=z)
    share = np.where((defined >= 2)[..., None], _share(k, size), np.nan)
    gap = -_lowest(-share) - _lowest(share)
    return Extreme(gap, np.maximum(-_lowest(-low) - _lowest(high), 0.0), -_lowest(-high) - _lowest(low))


def lowest_ratio(hits: ArrayLike, n: ArrayLike, *, families: int = 1) -> Extreme:
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
    low, _ = share_ratio(k_low, n_low, k_high, n_high)
    z = _over(families * pairs.defined.sum(axis=-1))
    _, high = share_ratio(k_low, n_low, k_high, n_high, z=z)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = _share(k_high, n_high)
        ratio = np.where(top > 0, _share(k_low, n_low) / top, np.nan)
    return Extreme(_lowest(ratio), _lowest(low), np.minimum(_lowest(high), 1.0))


class _Pairs(NamedTuple):
    """Every pair of groups, the one with the higher share first: hits and sizes [..., n_pairs]."""

    counts: tuple[Array, Array, Array, Array]
    defined: Mask

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


def _over(counts: Any) -> Array:
    """Critical values for different numbers of comparisons, shaped to broadcast over the last axis."""
    distinct, where = np.unique(counts, return_inverse=True)
    values = np.array([critical_value(0.95, int(c)) for c in distinct])
    return values[where].reshape(np.shape(counts))[..., None]


def lowest_share_difference(only_a: ArrayLike, only_b: ArrayLike, both: ArrayLike, n: ArrayLike) -> Extreme:
    """``min over cells of a's share - min over cells of b's share``, from paired counts [..., n_cells].

    ``only_a``: rows right in a alone, ``both``: right in both. A minimum has no derivative where cells tie,
    so the interval is the union of two: the cells observed lowest are the lowest; and all cells that could be
    lowest are tied (directional delta method, Fang and Santos 2019), with paired normal noise. Cells without
    rows are left out.
    """
    counts = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (only_a, only_b, both, n)))
    lead = counts[0].shape[:-1]
    flat = [c.reshape(-1, c.shape[-1]) for c in counts]
    z = np.random.default_rng(0).standard_normal((2, N_DRAWS, flat[0].shape[-1]))
    found = [_lowest_difference(*one, z=z) for one in zip(*flat, strict=True)]
    value, low, high = np.array(found).T.reshape(3, *lead)
    return Extreme(value, low, high)


def widest_gap_difference(only_a: ArrayLike, only_b: ArrayLike, both: ArrayLike, n: ArrayLike) -> Extreme:
    """``a's widest gap - b's``, each over families and pairs of groups, from paired counts [n_families,
    n_groups].

    Made as :func:`lowest_share_difference`: the lowest signed difference between two groups is minus the
    widest gap. Families (classes) are taken as independent. NaN where no family has two groups with rows.
    """
    counts = [np.asarray(v, dtype=float) for v in (only_a, only_b, both, n)]
    first, second = _ordered_pairs(counts[3])
    if not len(first):
        return Extreme(*_NOTHING)
    flat = [c.ravel() for c in counts]
    z = np.random.default_rng(0).standard_normal((2, N_DRAWS, flat[0].size))
    noise = _paired_noise(flat[0], flat[1], flat[2], flat[3], z)
    sides = []
    for k, e in zip((flat[0] + flat[2], flat[1] + flat[2]), noise, strict=True):
        difference = k[first] / flat[3][first] - k[second] / flat[3][second]
        low, high = newcombe(k[first], flat[3][first], k[second], flat[3][second])
        candidates = np.flatnonzero(low <= high.min())
        observed = np.array([int(np.argmin(difference))])
        moved = [(e[:, first[i]] - e[:, second[i]]).min(axis=1) for i in (observed, candidates)]
        sides.append((difference.min(), moved))
    value, low_end, high_end = _union(sides[0], sides[1])
    return Extreme(-value, max(-high_end, -1.0), min(-low_end, 1.0))


def _ordered_pairs(n: Array) -> tuple[Any, Any]:
    """Flat indices of every ordered pair of groups with rows, family by family."""
    families, groups = n.shape
    a, b = np.nonzero(~np.eye(groups, dtype=bool))
    first = (np.arange(families)[:, None] * groups + a).ravel()
    second = (np.arange(families)[:, None] * groups + b).ravel()
    filled = (n.ravel()[first] > 0) & (n.ravel()[second] > 0)
    return first[filled], second[filled]


def _lowest_difference(
    only_a: Array, only_b: Array, both: Array, n: Array, *, z: Array
) -> tuple[float, float, float]:
    filled = n > 0
    if not filled.any():
        return _NOTHING
    only_a, only_b, both, n = (v[filled] for v in (only_a, only_b, both, n))
    noise = _paired_noise(only_a, only_b, both, n, z[:, :, filled])
    sides = []
    for k, e in zip((only_a + both, only_b + both), noise, strict=True):
        low, high = wilson(k, n)
        share = k / n
        moved = [e[:, int(np.argmin(share))], e[:, np.asarray(low <= high.min())].min(axis=1)]
        sides.append((share.min(), moved))
    value, low_end, high_end = _union(sides[0], sides[1])
    return value, max(low_end, -1.0), min(high_end, 1.0)


def _union(a: tuple[float, list[Array]], b: tuple[float, list[Array]]) -> tuple[float, float, float]:
    """Ends that hold under both readings: the observed minima are the minima; everything that could be is
    tied.
    """
    value = float(a[0] - b[0])
    ends = np.array([np.quantile(x - y, TAILS[::-1]) for x, y in zip(a[1], b[1], strict=True)])
    return value, float((value - ends[:, 0]).min()), float((value - ends[:, 1]).max())


def _paired_noise(only_a: Array, only_b: Array, both: Array, n: Array, z: Array) -> tuple[Array, Array]:
    """[n_draws, n_cells] normal noise of a's and b's shares, correlated as the rows are.

    Shares are smoothed by half a row, so that a share of 0 or 1 is not taken for certain.
    """
    total = n + 1
    a, b, joint = (only_a + both + 0.5) / total, (only_b + both + 0.5) / total, (both + 0.25) / total
    sd_a, sd_b = np.sqrt(a * (1 - a) / total), np.sqrt(b * (1 - b) / total)
    r = np.clip((joint - a * b) / (np.sqrt(a * (1 - a) * b * (1 - b))), -1, 1)
    return sd_a * z[0], sd_b * (r * z[0] + np.sqrt(1 - r * r) * z[1])
