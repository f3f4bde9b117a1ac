"""One training step's gradient, written by hand: sparse products where the latents are sparse.

The loss is ``sum_i w_i l_i`` with ``l_i = |x_i - x_hat_i|^2 / d_in`` (matryoshka: its mean over the nested
widths), plus a penalty on the latents (relu, jumprelu) and AuxK. The weights w are constants of the gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from debias_ssae.core.config import SAEConfig
from debias_ssae.sae import selection
from debias_ssae.sae.processes import Processes
from debias_ssae.sae.products import product
from debias_ssae.sae.sparse_ops import (
    Active,
    combine,
    combine_by_column,
    keep,
    order_by_column,
    sampled_dot,
)

DENSE_SHARE = 0.15
"""Above this share of active latents dense products cost less than sparse ones (measured on CPU)."""


SAMPLED_ROWS = 128
"""Rows by which a step is found to be dense or sparse."""

NO_WEIGHT = 1e-30
"""A row of less weight may leave no trace in a float32 gradient."""


@dataclass
class Weights:
    """The trained tensors, or their gradients; one contiguous row a latent."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    log_threshold: Tensor | None = None
    """[d_sae], jumprelu only."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that there are, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if value is not None}


@dataclass
class Knobs:
    """What a step's gradient depends on beside weights and rows."""

    cfg: SAEConfig
    processes: Processes = field(default_factory=lambda: Processes(torch.device("cpu")))
    bfloat16: bool = False
    sparsity: float = 0.0
    """Weight of the penalty of relu (on the latents' sum / sqrt(d_in)) and jumprelu."""
    bandwidth: float = 0.05
    """Width of the window in which jumprelu's threshold feels a pre-activation."""
    aux_coefficient: float = 0.0
    k_aux: int = 64
    measure: bool = True
    """Whether the step's numbers are wanted, or only its gradient."""


@dataclass
class Step:
    """What a step computed beside the gradient; of this rank's rows."""

    gradient: Weights
    errors: Tensor
    """[n]: squared error of each row divided by d_in."""
    fired: Tensor
    """[d_sae] int64: above 0 for each latent that was active on some row."""
    n_active: int
    """Active latents over all rows; 0 in a dense step of relu that is not measured."""
    threshold: float = 0.0
    """The smallest selected pre-activation of all ranks (batchtopk, matryoshka)."""
    aux_loss: float = 0.0
    """AuxK's term of the loss."""
    penalty: float = 0.0
    """The penalty's term of the loss; of relu only where it is measured."""


Weigh = Callable[[Tensor], Tensor]
"""From the rows' losses [n] to their weights [n], which sum to 1 over all ranks."""


def compute_step(
    weights: Weights,
    x: Tensor,
    knobs: Knobs,
    weigh: Weigh,
    *,
    dead: Tensor | None = None,
    base: Tensor | None = None,
) -> Step:
    """Return the gradient on rows ``x`` [n, d_in].

    ``dead`` [d_sae] marks the latents that AuxK trains; ``base`` [n, d_in] is added to the reconstruction
    (the frozen latents'). Gradients of several ranks are to be summed.
    """
    centred = x - weights.b_dec
    target = centred if base is None else centred - base
    latents = None
    if dead is not None and knobs.aux_coefficient > 0 and bool(dead.any()):
        latents = dead.nonzero().squeeze(1)
    if knobs.cfg.architecture in ("relu", "jumprelu"):
        step, error, dead_pre = _thresholded_step(weights, centred, target, knobs, weigh, latents)
    else:
        step, error, dead_pre = _selected_step(weights, centred, target, knobs, weigh, latents)
    if latents is not None and dead_pre is not None:
        step.aux_loss = _add_aux(step.gradient, weights, centred[::2], dead_pre, -error[::2], latents, knobs)
    return step


def _selected_step(
    weights: Weights, centred: Tensor, target: Tensor, knobs: Knobs, weigh: Weigh, dead: Tensor | None
) -> tuple[Step, Tensor, Tensor | None]:
    """The step of topk, batchtopk and matryoshka; with the error x_hat - x [n, d_in] and AuxK's input."""
    active, values, threshold, dead_pre = _select(weights, centred, knobs, dead)
    widths = nested_widths(knobs.cfg)
    groups = _split(active, values, widths)
    slopes, errors, error = _nested_errors(groups, weights.W_dec, target, weigh)
    if len(groups) == 1:
        to_values = sampled_dot(active, slopes[0], weights.W_dec)
    else:
        to_values = torch.empty_like(values)
        for (part, mask, _), slope in zip(groups, slopes, strict=True):
            to_values[mask] = sampled_dot(part, slope, weights.W_dec)
    gradient = _sparse_gradient(weights, centred, active, values, to_values, slopes, widths)
    gradient.b_dec += slopes[0].sum(0)
    fired = torch.bincount(active.columns, minlength=knobs.cfg.d_sae)
    return Step(gradient, errors, fired, len(values), threshold), error, dead_pre


def pre_activations(weights: Weights, centred: Tensor, *, bfloat16: bool = False) -> selection.PreActs:
    """Return a function from bounds of rows to their pre-activations, in bfloat16 if asked."""
    W, b, x = weights.W_enc, weights.b_enc, centred
    if bfloat16:
        W, b, x = W.bfloat16(), b.bfloat16(), x.bfloat16()
    return lambda start, end: product(x[start:end], W, b)


def nested_widths(cfg: SAEConfig) -> list[int]:
    """Return the nested widths of a matryoshka SAE, or d_sae alone."""
    if cfg.architecture != "matryoshka":
        return [cfg.d_sae]
    return list(cfg.widths) or sorted({max(1, cfg.d_sae // part) for part in (8, 4, 2, 1)})


def _select(
    weights: Weights, centred: Tensor, knobs: Knobs, dead: Tensor | None
) -> tuple[Active, Tensor, float, Tensor | None]:
    """Return the active latents, their values, the smallest chosen one of a batch, and AuxK's input."""
    cfg, n = knobs.cfg, len(centred)
    pre = pre_activations(weights, centred, bfloat16=knobs.bfloat16)
    if cfg.architecture == "topk":
        found = selection.topk_candidates(pre, n, cfg.k, dead)
        values = _exact_values(weights, centred, found, knobs)
        chosen, threshold = selection.keep_topk(found.active, values, cfg.k), 0.0
    else:
        n_active = int(knobs.processes.total(n)) * cfg.k
        found = selection.batch_topk_candidates(pre, n, n_active, knobs.processes, dead)
        values = _exact_values(weights, centred, found, knobs)
        chosen, threshold = selection.keep_batch_topk(values, n_active, knobs.processes)
    return *selection.narrow(found.active, values, chosen), threshold, found.dead_pre_acts


def _exact_values(weights: Weights, centred: Tensor, found: selection.Candidates, knobs: Knobs) -> Tensor:
    """Return the candidates' values in full precision: bfloat16 only proposes, for its ties and its error."""
    if not knobs.bfloat16:
        return found.values
    return sampled_dot(found.active, centred, weights.W_enc) + weights.b_enc[found.active.columns]


Group = tuple[Active, Tensor | slice, Tensor]
"""The active latents of one nested width, where they are among all, and their values."""


def _split(active: Active, values: Tensor, widths: list[int]) -> list[Group]:
    if len(widths) == 1:
        return [(active, slice(None), values)]
    level = torch.bucketize(active.columns, torch.tensor(widths, device=values.device), right=True)
    masks = [level == i for i in range(len(widths))]
    return [(keep(active, mask), mask, values[mask]) for mask in masks]


def _nested_errors(
    groups: list[Group], W_dec: Tensor, target: Tensor, weigh: Weigh
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return, for each group, d loss / d its part of x_hat; the rows' errors; and the full error [n, d]."""
    d_in = target.shape[1]
    error, losses = target, []
    errors: list[Tensor] = []
    for part, _, values in groups:
        rebuilt = combine(part, values, W_dec)
        error = rebuilt.sub_(target) if not errors else rebuilt.add_(error)
        errors.append(error)
        losses.append(_row_losses(error))
    weights = weigh(torch.stack(losses).mean(0) if len(losses) > 1 else losses[0])
    factor = (weights * (2.0 / (d_in * len(groups)))).unsqueeze(1)
    slopes = [error * factor for error in errors]
    for i in range(len(slopes) - 2, -1, -1):
        # a latent of an inner width is part of every reconstruction from there on
        slopes[i] += slopes[i + 1]
    return slopes, losses[-1], error


def _sparse_gradient(
    weights: Weights,
    centred: Tensor,
    active: Active,
    values: Tensor,
    to_values: Tensor,
    slopes: list[Tensor],
    widths: list[int],
) -> Weights:
    """Return the gradient from ``to_values`` = d loss / d values and ``slopes`` = d loss / d x_hat, by group.

    b_dec gets what comes through the encoder's input only.
    """
    by_column = order_by_column(active, len(weights.b_enc))
    b_enc = torch.zeros_like(weights.b_enc).index_add_(0, active.columns, to_values)
    parts = [
        combine_by_column(by_column.between(low, high), values, slope)
        for low, high, slope in zip([0, *widths], widths, slopes, strict=False)
    ]
    return Weights(
        W_enc=combine_by_column(by_column, to_values, centred),
        b_enc=b_enc,
        W_dec=parts[0] if len(parts) == 1 else torch.cat(parts),
        b_dec=-(b_enc @ weights.W_enc),
    )


def _row_losses(error: Tensor) -> Tensor:
    """Return the squared norm of each row over d_in."""
    return torch.linalg.vector_norm(error, dim=1).square_().div_(error.shape[1])


def _thresholded_step(
    weights: Weights, centred: Tensor, target: Tensor, knobs: Knobs, weigh: Weigh, dead: Tensor | None
) -> tuple[Step, Tensor, Tensor | None]:
    """The step of relu and jumprelu, whose latents may be many (early) or few (later)."""
    pre = pre_activations(weights, centred)(0, len(centred))
    dead_pre = None if dead is None else pre[::2].index_select(1, dead)
    theta = None if weights.log_threshold is None else weights.log_threshold.exp()
    lowest = 0.0 if theta is None else (theta - knobs.bandwidth / 2).clamp_min(0.0)
    sample = pre[:: max(1, len(pre) // SAMPLED_ROWS)] > lowest
    if selection.count(sample) > DENSE_SHARE * sample.numel():
        return *_dense_step(weights, centred, target, pre, theta, knobs, weigh), dead_pre
    flat = selection.where(pre > lowest)
    active = selection.active_at(flat, *pre.shape)
    near = pre.flatten()[flat]
    near_theta = None if theta is None else theta[active.columns]
    values = near if near_theta is None else torch.where(near > near_theta, near, 0.0)
    error = combine(active, values, weights.W_dec) - target
    losses = _row_losses(error)
    slope = error * (weigh(losses) * (2.0 / target.shape[1])).unsqueeze(1)
    to_values = sampled_dot(active, slope, weights.W_dec)
    n_firing = int((values > 0).sum())
    to_pre, to_theta, penalty = _through_threshold(
        near, near_theta, values, to_values, n_firing, knobs, len(pre)
    )
    gradient = _sparse_gradient(weights, centred, active, values, to_pre, [slope], [knobs.cfg.d_sae])
    gradient.b_dec += slope.sum(0)
    if theta is not None and to_theta is not None:
        gradient.log_threshold = torch.zeros_like(theta).index_add_(0, active.columns, to_theta) * theta
    fired = torch.bincount(active.columns[values > 0], minlength=knobs.cfg.d_sae)
    return Step(gradient, losses, fired, n_firing, penalty=penalty), error, dead_pre


def _dense_step(
    weights: Weights,
    centred: Tensor,
    target: Tensor,
    pre: Tensor,
    theta: Tensor | None,
    knobs: Knobs,
    weigh: Weigh,
) -> tuple[Step, Tensor]:
    values = pre.relu_() if theta is None else torch.where(pre > theta, pre, 0.0)
    n_firing = selection.count(values > 0) if knobs.measure or theta is not None else 0
    error = product(values, weights.W_dec.T).sub_(target)
    losses = _row_losses(error)
    row_weights = weigh(losses)
    slope = error * (row_weights * (2.0 / target.shape[1])).unsqueeze(1)
    to_values = product(slope, weights.W_dec)
    to_pre, to_theta, penalty = _through_threshold(pre, theta, values, to_values, n_firing, knobs, len(pre))
    b_enc = to_pre.new_ones(len(to_pre)) @ to_pre  # faster than a sum down the columns
    gradient = Weights(
        W_enc=to_pre.T @ centred,
        b_enc=b_enc,
        W_dec=values.T @ slope,
        b_dec=slope.sum(0) - b_enc @ weights.W_enc,
    )
    if theta is not None and to_theta is not None:
        gradient.log_threshold = to_theta.sum(0) * theta
    # a latent that fired has a gradient, unless its rows weigh nothing; the latents are a far larger matrix
    fired = (gradient.W_dec.abs().amax(1) > 0) | (values[row_weights < NO_WEIGHT] > 0).any(0)
    return Step(gradient, losses, fired.long(), n_firing, penalty=penalty), error


def _through_threshold(
    pre: Tensor,
    theta: Tensor | None,
    values: Tensor,
    to_values: Tensor,
    n_firing: int,
    knobs: Knobs,
    n_rows: int,
) -> tuple[Tensor, Tensor | None, float]:
    """Return d loss / d pre, d loss / d theta and the penalty, for vectors of entries or whole matrices.

    relu pays its latents' sum. jumprelu pays ``(L0 / k - 1)^2``; its threshold has the pseudo-derivatives of
    Rajamanoharan et al. 2024 (arXiv 2407.14435, eq. 11-12): a pre-activation within half a bandwidth counts.
    """
    processes = knobs.processes
    n = processes.total(n_rows)
    if theta is None:
        price = knobs.sparsity / (n * pre_scale(knobs.cfg))
        penalty = price * processes.total(float(values.sum())) if knobs.measure else 0.0
        if price > 0:
            to_values.add_(price)
        to_pre = torch.ops.aten.threshold_backward.grad_input(to_values, values, 0.0, grad_input=to_values)
        return to_pre, None, penalty
    excess = processes.total(n_firing) / (n * knobs.cfg.k) - 1.0
    to_count = 2.0 * knobs.sparsity * excess / (n * knobs.cfg.k)
    window = ((pre - theta).abs() < knobs.bandwidth / 2) & (pre > 0)
    to_theta = torch.where(window, (theta * to_values + to_count) * (-1.0 / knobs.bandwidth), 0.0)
    return torch.where(values > 0, to_values, 0.0), to_theta, knobs.sparsity * excess**2


def pre_scale(cfg: SAEConfig) -> float:
    """Return sqrt(d_in): the length of a row of training, in whose units the L1 penalty is counted."""
    return float(cfg.d_in**0.5)


def _add_aux(
    gradient: Weights,
    weights: Weights,
    centred: Tensor,
    pre_acts: Tensor,
    target: Tensor,
    latents: Tensor,
    knobs: Knobs,
) -> float:
    """Add AuxK's gradient: dead latents reconstruct the error ``target``, in units of its square.

    Gao et al. 2024, section 2.4, on every second row of the batch, which halves its cost: ``target`` and
    ``centred`` are [n / 2, d_in], ``pre_acts`` is [n / 2, n_dead]. Returns the loss.
    """
    scale = max(knobs.processes.total(float(target.square().sum())), 1e-30)
    part = Weights(weights.W_enc[latents], weights.b_enc[latents], weights.W_dec[latents], weights.b_dec)
    k = min(knobs.k_aux, len(latents))
    active, values, _ = selection.topk_candidates(lambda low, high: pre_acts[low:high], len(centred), k)
    active, values = selection.narrow(active, values, selection.keep_topk(active, values, k))
    error = combine(active, values, part.W_dec).sub_(target)
    slope = error * (2.0 * knobs.aux_coefficient / scale)
    to_values = sampled_dot(active, slope, part.W_dec)
    inner = _sparse_gradient(part, centred, active, values, to_values, [slope], [len(latents)])
    gradient.W_enc.index_add_(0, latents, inner.W_enc)
    gradient.b_enc.index_add_(0, latents, inner.b_enc)
    gradient.W_dec.index_add_(0, latents, inner.W_dec)
    return knobs.aux_coefficient * knobs.processes.total(float(error.square().sum())) / scale
