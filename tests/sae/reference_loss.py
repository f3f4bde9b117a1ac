"""The SAE's loss, readable and differentiable: what the gradients taken by hand are held to."""

from typing import Any

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.sae.model import SparseAutoencoder, nested_widths


def reference_loss(
    sae: SparseAutoencoder,
    x: Tensor,
    row_weights: Tensor,
    *,
    sparsity: float = 0.0,
    bandwidth: float = 0.05,
    log_threshold: Tensor | None = None,
) -> Tensor:
    """Return ``sum_i w_i l_i`` plus the penalty, a scalar; ``l_i = |x_i - x_hat_i|^2 / d_in`` on rows x [n, d_in].

    ``row_weights`` [n] sum to 1. l is, for matryoshka, the mean over the nested widths. relu pays ``sparsity`` for the
    latents' sum over sqrt(d_in); jumprelu, whose thresholds are exp(``log_threshold``) [d_sae], for ``(L0 / k - 1)^2``.
    batchtopk and matryoshka choose over the batch, as in training.
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
        (latents[:, :width] @ sae.W_dec[:width] + sae.b_dec - x).square().sum(1) / cfg.d_in
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
