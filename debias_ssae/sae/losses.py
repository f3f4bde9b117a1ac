"""Tilted empirical risk (Li et al. 2021, arXiv 2007.01162) on the SAE's per-row losses.

Training takes the loss's gradient by hand (:mod:`debias_ssae.sae.fast`).
"""

import math

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError

SMALL_TILT = 1e-6
"""Below this |t| the tilted loss is the mean to float32 precision, and its formula would divide by zero."""


def tilted(losses: Tensor, t: float) -> Tensor:
    """Return the tilted loss ``(1/t) log mean exp(t * losses)``, a scalar in float32 or finer (eq. 2).

    ``losses`` is [n], in units of your choice; the trainer divides by the running mean, so that ``t`` means
    the same for every data set. ``t`` = 0 is the mean, +inf the maximum, -inf the minimum. Differentiable:
    the gradient is the sum of the rows' gradients weighted with ``tilt_weights``.
    """
    losses = _as_vector(losses)
    if abs(t) < SMALL_TILT:
        return losses.mean()
    if math.isinf(t):
        return losses.max() if t > 0 else losses.min()
    # shifted before the tilt, so that t = 1e9 keeps the digits of the largest loss
    peak = (losses.max() if t > 0 else losses.min()).detach()
    return peak + (torch.logsumexp(t * (losses - peak), dim=0) - math.log(len(losses))) / t


def tilt_weights(losses: Tensor, t: float) -> Tensor:
    """Return the rows' weights ``softmax(t * losses)`` [n], summing to 1, without gradient (lemma 1)."""
    losses = _as_vector(losses).detach()
    if abs(t) < SMALL_TILT:
        return torch.full_like(losses, 1.0 / len(losses))
    if math.isinf(t):
        hit = losses == (losses.max() if t > 0 else losses.min())
        return hit.to(losses.dtype) / hit.sum()
    peak = losses.max() if t > 0 else losses.min()
    return torch.softmax(t * (losses - peak), dim=0)


def effective_sample_size(weights: Tensor) -> float:
    """Return Kish's ``(sum w)^2 / sum w^2``: how many equally weighted rows the weights are worth."""
    weights = _as_vector(weights)
    return float(weights.sum() ** 2 / weights.square().sum())


def tilt_for_ess(losses: Tensor, share: float, *, t_max: float = 1e4, iterations: int = 30) -> float:
    """Return the t >= 0 whose weights on ``losses`` have an effective sample size of ``share * n``.

    Found by bisection: the effective sample size falls as t grows. Where even ``t_max`` leaves more (equal
    losses), ``t_max`` is returned. Raises InputError when ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"share={share} must be above 0 and at most 1")
    losses = _as_vector(losses).detach()
    target = share * len(losses)
    low, high = 0.0, 1.0
    while high < t_max and effective_sample_size(tilt_weights(losses, high)) > target:
        low, high = high, min(high * 4, t_max)
    for _ in range(iterations):
        middle = (low + high) / 2
        if effective_sample_size(tilt_weights(losses, middle)) > target:
            low = middle
        else:
            high = middle
    return high


def _as_vector(values: Tensor) -> Tensor:
    if values.dim() != 1 or len(values) == 0:
        raise InputError(f"Expected a vector of at least one row, got shape {tuple(values.shape)}")
    return values if values.dtype == torch.float64 else values.float()
