"""What is minimised: the SAE's loss, readable and differentiable, and tilted empirical risk (Li et al. 2021,
arXiv 2007.01162) on its per-row losses.

Training takes its gradient by hand (:mod:`debias_ssae.sae.fast`), to be held to autograd's gradient of
:func:`reference_loss`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.sae.model import SparseAutoencoder, nested_widths

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


def reference_loss(
    sae: SparseAutoencoder,
    x: Tensor,
    row_weights: Tensor,
    *,
    base: Tensor | float = 0.0,
    sparsity: float = 0.0,
    bandwidth: float = 0.05,
    log_threshold: Tensor | None = None,
) -> Tensor:
    """Return ``sum_i w_i l_i`` plus the penalty, a scalar; ``l_i = |x_i - x_hat_i|^2 / d_in`` on rows x [n, d_in].

    ``row_weights`` [n] sum to 1. A matrix ``base`` [n, d_in] is added to the reconstruction. l is, for matryoshka, the
    mean over the nested widths. relu pays ``sparsity`` for the latents' sum over sqrt(d_in); jumprelu, whose
    thresholds are exp(``log_threshold``) [d_sae], for ``(L0 / k - 1)^2``. batchtopk and matryoshka choose over the
    batch, as in training.
    """
    cfg, pre = sae.cfg, sae.pre_acts(x)
    penalty: Tensor | float = 0.0
    if cfg.architecture == "topk":
        top, where = pre.topk(cfg.k)
        latents = torch.zeros_like(pre).scatter(1, where, top.relu())
    elif cfg.architecture == "relu":
        latents = pre.relu()
        penalty = sparsity * latents.sum(1).mean() / cfg.d_in**0.5
    elif cfg.architecture == "jumprelu":
        if log_threshold is None:
            raise InputError("jumprelu needs log_threshold")
        latents = _Jump.apply(pre, log_threshold.exp(), bandwidth)
        count = _Fires.apply(pre, log_threshold.exp(), bandwidth).sum(1).mean()
        penalty = sparsity * (count / cfg.k - 1).square()
    else:
        bound = pre.detach().flatten().topk(len(x) * cfg.k).values.min()
        latents = torch.where(pre >= bound, pre, 0.0).relu()
    losses = [
        (latents[:, :width] @ sae.W_dec[:width] + sae.b_dec + base - x).square().sum(1) / cfg.d_in
        for width in nested_widths(cfg)
    ]
    return (torch.stack(losses).mean(0) * row_weights).sum() + penalty


class _Jump(torch.autograd.Function):
    """pre where it is above theta; with the pseudo-derivatives of arXiv 2407.14435, eq. 11."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return torch.where(pre > theta, pre, 0.0)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        (slope,), (pre, theta) = slopes, ctx.saved_tensors
        window = (((pre - theta) / ctx.bandwidth).abs() < 0.5).to(pre)
        return slope * (pre > theta), -(theta / ctx.bandwidth * window * slope).sum(0), None


class _Fires(torch.autograd.Function):
    """1 where pre is above theta; eq. 12."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return (pre > theta).to(pre)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor, None]:
        (slope,), (pre, theta) = slopes, ctx.saved_tensors
        window = (((pre - theta) / ctx.bandwidth).abs() < 0.5).to(pre)
        return None, -(window / ctx.bandwidth * slope).sum(0), None
