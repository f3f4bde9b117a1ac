"""Interval for the difference of two models' lowest cells, measured on the same rows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.intervals.extremes import Extreme
from debias_ssae.intervals.proportions import wilson

Array = NDArray[np.float64]


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
    results = np.array([_one(a, b, ab, size, z, confidence) for a, b, ab, size in zip(*flat, strict=True)])
    value, low, high = results.T.reshape(3, *lead)
    return Extreme(value, low, high)


def _one(
    only_a: Array, only_b: Array, both: Array, n: Array, z: Array, confidence: float
) -> tuple[float, float, float]:
    filled = n > 0
    if not filled.any():
        return (float("nan"),) * 3
    only_a, only_b, both, n = (v[filled] for v in (only_a, only_b, both, n))
    noise_a, noise_b = _paired_noise(only_a, only_b, both, n, z[:, :, filled])
    k_a, k_b = only_a + both, only_b + both
    a, b = k_a / n, k_b / n
    value = a.min() - b.min()
    tail = (1 - confidence) / 2
    ends: list[tuple[float, float]] = []
    # one cell each, exactly as observed; then every cell that could be the lowest
    for set_a, set_b in ((a == a.min(), b == b.min()), (_candidates(k_a, n), _candidates(k_b, n))):
        if len(ends) == 0:
            set_a, set_b = _first(set_a), _first(set_b)
        moved = noise_a[:, set_a].min(axis=1) - noise_b[:, set_b].min(axis=1)
        top, bottom = np.quantile(moved, [1 - tail, tail])
        ends.append((value - top, value - bottom))
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    return float(value), float(max(low, -1.0)), float(min(high, 1.0))


def _first(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    only = np.zeros_like(chosen)
    only[int(np.argmax(chosen))] = True
    return only


def _candidates(k: Array, n: Array) -> NDArray[np.bool_]:
    """Cells whose own interval reaches below the lowest upper bound."""
    low, high = wilson(k, n)
    return np.asarray(low <= high.min())


def _paired_noise(only_a: Array, only_b: Array, both: Array, n: Array, z: Array) -> tuple[Array, Array]:
    """[n_draws, n_cells] normal noise of a's and b's shares, correlated as the rows are; smoothed by half a
    row each.
    """
    total = n + 1
    a, b, joint = (only_a + both + 0.5) / total, (only_b + both + 0.5) / total, (both + 0.25) / total
    sd_a, sd_b = np.sqrt(a * (1 - a) / total), np.sqrt(b * (1 - b) / total)
    r = np.clip((joint - a * b) / (np.sqrt(a * (1 - a) * b * (1 - b))), -1, 1)
    return sd_a * z[0], sd_b * (r * z[0] + np.sqrt(1 - r * r) * z[1])
