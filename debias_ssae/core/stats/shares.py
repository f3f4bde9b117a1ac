"""Intervals and tests for shares: one, two, paired, many tests at once; resampling of counts and of rows."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtrc, ndtr, ndtri

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_CHUNK = 8_000_000  # numbers held at once


def critical_value(confidence: float, n_comparisons: int = 1) -> float:
    """Two-sided standard normal quantile (1.96 at 0.95) that holds ``n_comparisons`` intervals at once (Sidak 1967)."""
    # expm1/log1p keep the digits that 1 - 0.95**(1/20000) would lose
    error = -math.expm1(math.log1p(-(1.0 - confidence) / 2) / max(1, n_comparisons))
    return float(-ndtri(error))


def wilson(successes: ArrayLike, n: ArrayLike, *, z: Any = None) -> tuple[Any, Any]:
    """Score interval of a share (Wilson 1927): arrays ``low, high`` in [0, 1]; NaN where ``n`` is 0.

    ``successes`` and ``n`` broadcast and may be fractional (an effective sample size). ``z`` is the critical value, by
    default that of 95%.
    """
    k, size = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    z = critical_value(0.95) if z is None else z
    with np.errstate(invalid="ignore", divide="ignore"):
        share = k / size
        shrink = 1.0 + z * z / size
        centre = (share + z * z / (2 * size)) / shrink
        half = z * np.sqrt(share * (1 - share) / size + z * z / (4 * size * size)) / shrink
    # at 0 and 1 the ends are exact; rounding must not leave the value outside its own interval
    low = np.where(share <= 0, 0.0, np.clip(centre - half, 0.0, 1.0))
    high = np.where(share >= 1, 1.0, np.clip(centre + half, 0.0, 1.0))
    undefined = ~(size > 0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def newcombe(
    successes_a: ArrayLike, n_a: ArrayLike, successes_b: ArrayLike, n_b: ArrayLike, *, z: Any = None
) -> tuple[Any, Any]:
    """Interval of ``share_a - share_b`` for independent samples (Newcombe 1998, method 10): ``low, high``."""
    k_a, size_a = np.asarray(successes_a, dtype=float), np.asarray(n_a, dtype=float)
    k_b, size_b = np.asarray(successes_b, dtype=float), np.asarray(n_b, dtype=float)
    low_a, high_a = wilson(k_a, size_a, z=z)
    low_b, high_b = wilson(k_b, size_b, z=z)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = k_a / size_a, k_b / size_b
    difference = a - b
    low = difference - np.sqrt((a - low_a) ** 2 + (high_b - b) ** 2)
    high = difference + np.sqrt((high_a - a) ** 2 + (b - low_b) ** 2)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def paired_difference(only_a: ArrayLike, only_b: ArrayLike, n: ArrayLike) -> tuple[Any, Any]:
    """Interval of the difference of two shares on the same ``n`` rows (Bonett and Price 2012).

    ``only_a`` rows are successes of a alone, ``only_b`` of b alone. Returns ``low, high`` of ``(only_a -
    only_b) / n``.
    """
    a, b, size = (np.asarray(v, dtype=float) for v in (only_a, only_b, n))
    z = critical_value(0.95)
    share_a, share_b = (a + 1) / (size + 2), (b + 1) / (size + 2)
    half = z * np.sqrt((share_a + share_b - (share_a - share_b) ** 2) / (size + 2))
    difference = share_a - share_b
    undefined = ~(size > 0)
    low, high = np.maximum(difference - half, -1.0), np.minimum(difference + half, 1.0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def two_share_test(k_a: ArrayLike, n_a: ArrayLike, k_b: ArrayLike, n_b: ArrayLike) -> Array:
    """Two-sided p value of equal shares: chi-squared with the N - 1 correction (Campbell 2007); NaN where
    undefined.
    """
    a, size_a, b, size_b = (np.asarray(v, dtype=float) for v in (k_a, n_a, k_b, n_b))
    total = size_a + size_b
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (a + b) / total
        variance = pooled * (1 - pooled) * (1 / size_a + 1 / size_b)
        chi2 = (a / size_a - b / size_b) ** 2 / variance * (total - 1) / total
    p = chdtrc(1.0, np.where(variance > 0, chi2, 0.0))
    return np.where((size_a > 0) & (size_b > 0), p, np.nan)


def holm(p_values: ArrayLike) -> Array:
    """Holm (1979) adjusted p values, in the order given; NaN (a test that could not be made) stays NaN."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def sign_test(wins_a: ArrayLike, wins_b: ArrayLike) -> Array:
    """Two-sided mid-p McNemar test of discordant pairs (normal limit above 1,000); 1 where there is none."""
    a, b = np.broadcast_arrays(np.asarray(wins_a, dtype=float), np.asarray(wins_b, dtype=float))
    n, low = a + b, np.minimum(a, b)
    # scipy.special, because scipy.stats takes seconds to import
    trials = np.rint(n).astype(np.int64)
    below = np.where(low > 0, bdtr(np.maximum(low - 1, 0), trials, 0.5), 0.0)
    exact = bdtr(low, trials, 0.5) + below
    with np.errstate(invalid="ignore", divide="ignore"):
        limit = 2 * ndtr(-np.abs(a - b) / np.sqrt(n))
    p = np.where(n > 1000, limit, exact)
    return np.where(n > 0, np.minimum(p, 1.0), 1.0)


def rows_needed(share: ArrayLike, half_width: float) -> NDArray[np.int64]:
    """How many rows make the Wilson interval of a share no wider than ``+/- half_width`` (0 where the share
    is NaN).

    From half_width**2 = z**2 * (p(1-p)/n + z**2/4n**2) / (1 + z**2/n)**2, solved for n.
    """
    p = np.asarray(share, dtype=float)
    z2 = critical_value(0.95) ** 2
    h2 = half_width * half_width
    # h2 n^2 + z2 (2 h2 - p(1-p)) n + z2^2 (h2 - 1/4) = 0
    b = z2 * (2 * h2 - p * (1 - p))
    c = z2 * z2 * (h2 - 0.25)
    n = (-b + np.sqrt(b * b - 4 * h2 * c)) / (2 * h2)
    return np.where(np.isnan(p), 0, np.ceil(np.nan_to_num(n) - 1e-9)).astype(np.int64)


def mean_of_shares(successes: ArrayLike, n: ArrayLike, *, z: Any = None) -> tuple[float, float, float]:
    """``value, low, high`` of the plain mean of independent shares (Wilson ends recovered as variances, Zou
    2008).
    """
    k, size = np.ravel(np.asarray(successes, dtype=float)), np.ravel(np.asarray(n, dtype=float))
    low, high = wilson(k, size, z=z)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = k / size
    value = float(share.mean())
    down, up = (float(np.sqrt(((share - end) ** 2).sum())) / len(k) for end in (low, high))
    return value, max(0.0, value - down), min(1.0, value + up)


def share_ratio(
    successes_a: ArrayLike, n_a: ArrayLike, successes_b: ArrayLike, n_b: ArrayLike, *, z: Any = None
) -> tuple[Any, Any]:
    """Interval of ``share_a / share_b`` for independent samples from Wilson ends (Donner and Zou 2012,
    MOVER-R).

    NaN where a sample is empty; the upper end is infinite where ``share_b`` may be 0.
    """
    k_a, size_a, k_b, size_b = (np.asarray(v, dtype=float) for v in (successes_a, n_a, successes_b, n_b))
    low_a, high_a = wilson(k_a, size_a, z=z)
    low_b, high_b = wilson(k_b, size_b, z=z)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = k_a / size_a, k_b / size_b
        ab = a * b
        low = (ab - np.sqrt(np.maximum(ab**2 - low_a * high_b * (2 * a - low_a) * (2 * b - high_b), 0))) / (
            high_b * (2 * b - high_b)
        )
        high = (ab + np.sqrt(np.maximum(ab**2 - high_a * low_b * (2 * a - high_a) * (2 * b - low_b), 0))) / (
            low_b * (2 * b - low_b)
        )
        # where 2b = high_b the quotient is 0/0: the limit is the simple bound
        low = np.where(np.isfinite(low), np.maximum(low, 0.0), low_a / high_b)
        high = np.where(low_b > 0, high, np.inf)
    undefined = ~((size_a > 0) & (size_b > 0))
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def count_draws(counts: ArrayLike, n_draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Bootstrap of rows known only by their category: chunks [n_chunk, n_categories], ``n_draws`` in all.

    Resampling n rows with replacement and counting categories is one multinomial; empty categories stay
    empty.
    """
    flat = np.ravel(np.asarray(counts))
    filled = np.flatnonzero(flat)
    n = round(float(flat.sum()))
    chunk = max(1, _CHUNK // max(1, len(flat)))
    for start in range(0, n_draws, chunk):
        drawn = np.zeros((min(chunk, n_draws - start), len(flat)), dtype=np.int64)
        drawn[:, filled] = rng.multinomial(n, flat[filled] / flat.sum(), size=len(drawn))
        yield drawn


def row_draws(n_rows: int, n_draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Bootstrap of rows: for each draw, how often each row is taken [n_rows]."""
    for _ in range(n_draws):
        yield np.bincount(rng.integers(0, n_rows, n_rows), minlength=n_rows)
