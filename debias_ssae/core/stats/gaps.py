"""Intervals for a root mean square of differences between groups, which noise alone makes positive."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class RmsGap(NamedTuple):
    """Root mean square gap over classes; one each a data set (leading axes)."""

    value: Array
    """As the formula reads: biased upwards."""
    corrected: Array
    """With the expected square of the noise taken away."""
    low: Array
    high: Array


def rms_gap(
    hits: ArrayLike,
    n: ArrayLike,
    *,
    confidence: float = 0.95,
    n_draws: int = 2000,
    random_state: int | None = 0,
) -> RmsGap:
    """``sqrt(mean over classes of mean over pairs of groups of (share_g - share_h)**2)`` with its interval.

    ``hits`` and ``n`` are [..., n_classes, n_groups]; pairs with an empty group are left out, and so is a
    class without a pair. With two groups this is the GAP RMS of De-Arteaga et al. 2019. The interval inverts
    the test of each possible true value along the observed direction, the noise being normal with the shares'
    own (smoothed) variances; unlike a bootstrap it does not take the noise for a gap. NaN where no pair is
    defined.
    """
    k, size = np.broadcast_arrays(np.asarray(hits, dtype=float), np.asarray(n, dtype=float))
    lead = k.shape[:-2]
    k, size = k.reshape(-1, *k.shape[-2:]), size.reshape(-1, *size.shape[-2:])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(size > 0, k / size, np.nan)
        smooth = (k + 1) / (size + 2)
        noise = np.where(size > 0, np.sqrt(smooth * (1 - smooth) / size), 0.0)
    weight = _class_weights(size > 0)
    observed = _centred(share, size > 0)
    square = (weight[..., None] * observed**2).sum(axis=(-2, -1))
    z = np.random.default_rng(random_state).standard_normal((n_draws, *k.shape[-2:]))
    results = [
        _inverted(*one, z, confidence) for one in zip(observed, noise, size > 0, weight, square, strict=True)
    ]
    expected, low, high = (np.array(column).reshape(lead) for column in zip(*results, strict=True))
    value = np.where(weight.sum(axis=-1) > 0, np.sqrt(square), np.nan).reshape(lead)
    corrected = np.sqrt(np.maximum(value**2 - expected, 0.0))
    undefined = np.isnan(value)
    return RmsGap(value, corrected, np.where(undefined, np.nan, low), np.where(undefined, np.nan, high))


def _class_weights(defined: NDArray[np.bool_]) -> Array:
    """[..., n_classes]: factor that turns a class's sum of squares around its mean into its share of the
    mean.

    The mean of (x_g - x_h)**2 over pairs is 2 / (m - 1) times the sum of squares around the mean of m groups.
    """
    m = defined.sum(axis=-1)
    counted = m >= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(counted, 2.0 / (m - 1), 0.0)
        return factor / np.maximum(counted.sum(axis=-1, keepdims=True), 1)


def _centred(values: Array, defined: NDArray[np.bool_]) -> Array:
    filled = np.where(defined, values, 0.0)
    mean = filled.sum(axis=-1, keepdims=True) / np.maximum(defined.sum(axis=-1, keepdims=True), 1)
    return np.where(defined, filled - mean, 0.0)


def _inverted(
    observed: Array,
    noise: Array,
    defined: NDArray[np.bool_],
    weight: Array,
    square: float,
    z: Array,
    confidence: float,
) -> tuple[float, float, float]:
    """Expected square of the noise and the ends of the interval, for one data set.

    With truth ``t * d`` (d the observed direction, of square 1) a draw of noise e gives the square
    ``t**2 + 2 t <d, e> + <e, e>``; each draw's root is the truth at which it would read what was observed.
    """
    e = _centred(noise * z, defined)
    own = (weight[:, None] * e**2).sum(axis=(-2, -1))
    # noisy classes look wide by noise alone: each counts by what its square exceeds its noise's by
    excess = np.maximum((observed**2).sum(axis=-1) - (noise**2).sum(axis=-1) / 2, 0.0)
    shrunk = observed * np.sqrt(excess / np.maximum((observed**2).sum(axis=-1), 1e-300))[:, None]
    direction = shrunk if shrunk.any() else observed
    norm = np.sqrt((weight[:, None] * direction**2).sum())
    direction = direction / norm if norm > 0 else direction
    cross = (weight[:, None] * direction * e).sum(axis=(-2, -1))
    inside = cross**2 - (own - square)
    roots = np.where(inside > 0, np.maximum(np.sqrt(np.maximum(inside, 0.0)) - cross, 0.0), 0.0)
    low, high = np.quantile(roots, [(1 - confidence) / 2, (1 + confidence) / 2])
    variance = noise**2
    m = np.maximum(defined.sum(axis=-1), 1)
    expected = float((weight * variance.sum(axis=-1) * (1 - 1 / m)).sum())
    return expected, float(low), float(high)
