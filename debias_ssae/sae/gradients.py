"""One training step's gradient, written by hand: sparse where the latents are sparse."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from debias_ssae.config import SAEConfig
from debias_ssae.sae.sparse_ops import (
    Active,
    combine,
    combine_by_column,
    order_by_column,
    sampled_dot,
    select_batch_topk,
    select_topk,
)


@dataclass
class Weights:
    """The trained tensors (or their gradients); one contiguous row a latent."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


@dataclass
class Step:
    """What a step computed beside the gradient."""

    gradient: Weights
    losses: Tensor
    """[n]: squared error of each row divided by d_in."""
    fired: Tensor
    """[d_sae]: on how many rows each latent was active."""
    threshold: float
    """The smallest selected pre-activation (batchtopk)."""
    aux_loss: float


def pre_activations(weights: Weights, centred: Tensor, *, bfloat16: bool) -> Tensor:
    """Return the pre-activations [n, d_sae] of centred rows, in bfloat16 if asked."""
    W, b, x = weights.W_enc, weights.b_enc, centred
    if bfloat16:
        W, b, x = W.bfloat16(), b.bfloat16(), x.bfloat16()
    return torch.addmm(b, x, W.T)


def sparse_step(
    weights: Weights,
    x: Tensor,
    cfg: SAEConfig,
    weigh: Callable[[Tensor], Tensor],
    dead: Tensor | None = None,
    *,
    aux_coefficient: float = 0.0,
    k_aux: int = 0,
    bfloat16: bool = False,
) -> Step:
    """Return the gradient of ``sum_i w_i |x_i - x_hat_i|^2 / d_in`` (+ AuxK) on rows ``x`` [n, d_in].

    ``weigh`` turns the rows' losses into their weights, which are constants of the gradient. ``dead`` [d_sae]
    marks the latents that AuxK trains.
    """
    n, d_in = x.shape
    centred = x - weights.b_dec
    pre = pre_activations(weights, centred, bfloat16=bfloat16)
    threshold = 0.0
    if cfg.architecture == "topk":
        active = select_topk(pre, cfg.k)
    else:
        active, threshold = select_batch_topk(pre, n * cfg.k)
    if bfloat16:
        values = sampled_dot(active, centred, weights.W_enc) + weights.b_enc[active.columns]
    else:
        values = pre[active.rows, active.columns]
    values = values.relu()
    error = combine(active, values, weights.W_dec) - centred
    losses = error.square().sum(1) / d_in
    slope = error * (weigh(losses) * (2.0 / d_in)).unsqueeze(1)
    gradient, fired = _backward(weights, centred, active, values, slope)
    gradient.b_dec += slope.sum(0)
    aux_loss = 0.0
    if dead is not None and aux_coefficient > 0:
        aux_loss = _add_aux(gradient, weights, centred, pre, error, dead, aux_coefficient, k_aux)
    return Step(gradient, losses, fired, threshold, aux_loss)


def _backward(
    weights: Weights, centred: Tensor, active: Active, values: Tensor, slope: Tensor
) -> tuple[Weights, Tensor]:
    """Return the gradient that ``slope`` = d loss / d x_hat [n, d] sends to the weights, and firings."""
    n_latents = len(weights.b_enc)
    by_column = order_by_column(active, n_latents)
    to_values = sampled_dot(active, slope, weights.W_dec)
    to_values = torch.where(values > 0, to_values, 0.0)
    b_enc = torch.zeros_like(weights.b_enc).index_add_(0, active.columns, to_values)
    gradient = Weights(
        W_enc=combine_by_column(by_column, to_values, centred),
        b_enc=b_enc,
        W_dec=combine_by_column(by_column, values, slope),
        b_dec=-(b_enc @ weights.W_enc),
    )
    return gradient, torch.bincount(active.columns[values > 0], minlength=n_latents)


def _add_aux(
    gradient: Weights,
    weights: Weights,
    centred: Tensor,
    pre: Tensor,
    error: Tensor,
    dead: Tensor,
    coefficient: float,
    k_aux: int,
) -> float:
    """Add the gradient of AuxK: dead latents reconstruct the error, in units of the error's variance."""
    latents = dead.nonzero().squeeze(1)
    if len(latents) == 0:
        return 0.0
    target = -error
    scale = target.square().sum().clamp_min(1e-12)
    part = Weights(weights.W_enc[latents], weights.b_enc[latents], weights.W_dec[latents], weights.b_dec)
    active = select_topk(pre[:, latents], min(k_aux, len(latents)))
    values = (sampled_dot(active, centred, part.W_enc) + part.b_enc[active.columns]).relu()
    aux_error = combine(active, values, part.W_dec) - target
    slope = aux_error * (2.0 * coefficient / scale)
    inner, _ = _backward(part, centred, active, values, slope)
    gradient.W_enc.index_add_(0, latents, inner.W_enc)
    gradient.b_enc.index_add_(0, latents, inner.b_enc)
    gradient.W_dec.index_add_(0, latents, inner.W_dec)
    return float(coefficient * aux_error.square().sum() / scale)
