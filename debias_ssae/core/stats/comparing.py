"""Intervals for the difference of two models' lowest cells or widest gaps, measured on the same rows."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.core.stats.extremes import Extreme
from debias_ssae.core.stats.proportions import newcombe, wilson

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_NOTHING = (float("nan"),) * 3


def lowest_share_difference(
    only_a: ArrayLike,
    only_b: ArrayLike,
    both: ArrayLike,
    n: ArrayLike,
    *,
    confidence: float = 0.95,
    n_draws: int = 2000,
    random_state: int | None = 0,
) -> Extreme:
    """``min over cells of a's share - min over cells of b's share``, from paired counts [..., n_cells].

    ``only_a``: rows right in a alone, ``both``: right in both. A minimum has no derivative where cells tie,
    so the interval is the union of two: the cells observed lowest are the lowest; and all cells that could be
    lowest are tied (directional delta method, Fang and Santos 2019), with paired normal noise. Cells without
    rows are left out.
    """
    counts = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (only_a, only_b, both, n)))
    lead = counts[0].shape[:-1]
    flat = [c.reshape(-1, c.shape[-1]) for c in counts]
    z = np.random.default_rng(random_state).standard_normal((2, n_draws, flat[0].shape[-1]))
    found = [_lowest(*one, z=z, confidence=confidence) for one in zip(*flat, strict=True)]
    value, low, high = np.array(found).T.reshape(3, *lead)
    return Extreme(value, low, high)


def widest_gap_difference(
    only_a: ArrayLike,
    only_b: ArrayLike,
    both: ArrayLike,
    n: ArrayLike,
    *,
    confidence: float = 0.95,
    n_draws: int = 2000,
    random_state: int | None = 0,
) -> Extreme:
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
    z = np.random.default_rng(random_state).standard_normal((2, n_draws, flat[0].size))
    noise = _paired_noise(flat[0], flat[1], flat[2], flat[3], z)
    sides = []
    for k, e in zip((flat[0] + flat[2], flat[1] + flat[2]), noise, strict=True):
        difference = k[first] / flat[3][first] - k[second] / flat[3][second]
        low, high = newcombe(k[first], flat[3][first], k[second], flat[3][second])
        candidates = np.flatnonzero(low <= high.min())
        observed = np.array([int(np.argmin(difference))])
        moved = [(e[:, first[i]] - e[:, second[i]]).min(axis=1) for i in (observed, candidates)]
        sides.append((difference.min(), moved))
    value, low_end, high_end = _union(sides[0], sides[1], confidence)
    return Extreme(-value, max(-high_end, -1.0), min(-low_end, 1.0))


def _ordered_pairs(n: Array) -> tuple[Any, Any]:
    """Flat indices of every ordered pair of groups with rows, family by family."""
    families, groups = n.shape
    a, b = np.nonzero(~np.eye(groups, dtype=bool))
    first = (np.arange(families)[:, None] * groups + a).ravel()
    second = (np.arange(families)[:, None] * groups + b).ravel()
    filled = (n.ravel()[first] > 0) & (n.ravel()[second] > 0)
    return first[filled], second[filled]


def _lowest(
    only_a: Array, only_b: Array, both: Array, n: Array, *, z: Array, confidence: float
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
    value, low_end, high_end = _union(sides[0], sides[1], confidence)
    return value, max(low_end, -1.0), min(high_end, 1.0)


def _union(
    a: tuple[float, list[Array]], b: tuple[float, list[Array]], confidence: float
) -> tuple[float, float, float]:
    """Ends that hold under both readings: the observed minima are the minima; everything that could be is
    tied.
    """
    value, tail = float(a[0] - b[0]), (1 - confidence) / 2
    ends = np.array([np.quantile(x - y, [1 - tail, tail]) for x, y in zip(a[1], b[1], strict=True)])
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
