"""One training step's gradient, written by hand: sparse products where the latents are sparse.

The loss is that of ``tests/sae/reference_loss.py``, whose autograd gradient the tests hold this one
to. What makes it fast for the top-k family: pre-activations exist a chunk of rows at a time and, where the processor
is faster so, in bfloat16; they only propose which latents may be active, the choice and the values are exact; every
product with the active latents is one call of ``embedding_bag`` or of the gradient of its weights; and gradients
exist for the latents that fired only.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.device import has_fast_bf16
from debias_ssae.sae.model import SparseAutoencoder, nested_widths

DENSE_SHARE = 0.15
"""Above this share of active latents dense products cost less than sparse ones (measured on CPU)."""
SAMPLED_ROWS = 128
"""Rows by which a step of relu and jumprelu is found to be dense or sparse."""
SAMPLED_BLOCKS = 16
"""Blocks of 4 rows from which the bound of a batch is guessed; a bad guess costs a second pass, no more."""
CHUNK_ROWS = 256
"""Rows of pre-activations that exist at a time on the CPU, where they then stay in its cache."""
MIN_GROUPS = 64
"""Groups of latents whose maxima bound the k largest of a row; fewer are not compared faster."""
NO_WEIGHT = 1e-30
"""A row of less weight may leave no trace in a float32 gradient."""

PreActs = Callable[[int, int], Tensor]
"""From the bounds of some rows to their pre-activations [rows, d_sae]."""
Weigh = Callable[[Tensor], Tensor]
"""From the rows' losses [n] to their weights [n], which sum to 1."""


@dataclass
class Weights:
    """The trained tensors, or the gradients of some of their rows; one contiguous row a latent."""

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
    """What a step computed."""

    gradient: Weights
    """Of the latents ``rows``."""
    rows: Tensor | None
    """[r] int64, rising: the latents that have a gradient; None is all of them, in a step of relu or jumprelu."""
    errors: Tensor
    """[n]: squared error of each row divided by d_in."""
    fired: Tensor
    """[d_sae] int64: above 0 for each latent that was active on some row."""
    n_active: int
    """Active latents over all rows; 0 in a dense step of relu that is not measured."""
    threshold: float = 0.0
    """The smallest selected pre-activation (batchtopk, matryoshka)."""
    aux_loss: float = 0.0
    """AuxK's term of the loss."""
    penalty: float = 0.0
    """The penalty's term of the loss; of relu only where it is measured."""


def compute_step(
    weights: Weights,
    x: Tensor,
    knobs: Knobs,
    weigh: Weigh,
    *,
    dead: Tensor | None = None,
) -> Step:
    """Return the gradient on rows ``x`` [n, d_in]; ``dead`` [d_sae] marks the latents that AuxK trains."""
    centred = x - weights.b_dec
    latents = None
    if dead is not None and knobs.aux_coefficient > 0 and bool(dead.any()):
        latents = dead.nonzero().squeeze(1)
    thresholded = knobs.cfg.architecture in ("relu", "jumprelu")
    run = _thresholded_step if thresholded else _selected_step
    step, error, dead_pre = run(weights, centred, knobs, weigh, latents)
    if latents is not None and dead_pre is not None:
        _add_aux(step, weights, centred[::2], dead_pre, -error[::2], latents, knobs)
    return step


# ---------------------------------------------------------------- products with the active latents


class Active(NamedTuple):
    """The active latents of n rows, row after row; m of them in all."""

    rows: Tensor
    """[m] int64, not falling."""
    columns: Tensor
    """[m] int64, the latent."""
    offsets: Tensor
    """[n + 1] int64: row i's are offsets[i] to offsets[i + 1]."""


class ByColumn(NamedTuple):
    """The same active latents in the order of the latents."""

    order: Tensor
    """[m] int64: positions in the row order."""
    rows: Tensor
    """[m] int64, in the new order."""
    columns: Tensor
    """[r] int64, rising: the latents that are active on some row."""
    offsets: Tensor
    """[r + 1] int64: where each of them begins."""


def combine(active: Active, values: Tensor, W: Tensor) -> Tensor:
    """Return A @ W, [n, d], where A [n, d_sae] holds ``values`` [m] at ``active``, and W is [d_sae, d]."""
    return _bags(active.columns, W, active.offsets, values)


def combine_by_column(by_column: ByColumn, values: Tensor, rows: Tensor) -> Tensor:
    """Return the rows ``by_column.columns`` of A.T @ rows, [r, d]; A [n, d_sae] holds ``values`` [m] in row order."""
    return _bags(by_column.rows, rows, by_column.offsets, values[by_column.order])


def sampled_dot(active: Active, left: Tensor, right: Tensor) -> Tensor:
    """Return the m products ``left[row] . right[column]`` of left [n, d] and right [d_sae, d]."""
    if len(active.columns) == 0:
        return left.new_zeros(0)
    product = torch.ops.aten._embedding_bag_per_sample_weights_backward
    return product(left, right, active.columns, active.offsets[:-1], active.rows, 0)


def order_by_column(active: Active, n_columns: int) -> ByColumn:
    """Return the active latents sorted by latent, rows in order within each (a stable sort)."""
    columns = active.columns
    if columns.device.type == "cpu":
        # numpy sorts 16-bit keys by radix, on one thread
        keys = columns.numpy().astype(np.uint16) if n_columns <= 1 << 16 else columns.numpy()
        order = torch.from_numpy(np.argsort(keys, kind="stable"))
    else:
        order = torch.sort(columns, stable=True).indices
    counts = torch.bincount(columns, minlength=n_columns)
    found = counts.nonzero().squeeze(1)
    return ByColumn(order, active.rows[order], found, _offsets(counts[found]))


def active_at(flat: Tensor, n: int, width: int) -> Active:
    """Return the active latents at positions ``flat`` [m], rising, of a matrix [n, width]."""
    rows = flat.div(width, rounding_mode="floor")
    return _active(rows, flat - rows * width, n)


def where(mask: Tensor) -> Tensor:
    """Return the positions of the true entries of ``mask`` [n, width], in the order of its memory."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)


def _narrow(active: Active, values: Tensor, mask: Tensor) -> tuple[Active, Tensor]:
    """Return the active latents and values where ``mask`` [m] is true."""
    if bool(mask.all()):
        return active, values
    return _active(active.rows[mask], active.columns[mask], len(active.offsets) - 1), values[mask]


def _active(rows: Tensor, columns: Tensor, n: int) -> Active:
    return Active(rows, columns, _offsets(torch.bincount(rows, minlength=n)))


def _offsets(counts: Tensor) -> Tensor:
    """Return [len + 1] offsets of consecutive groups of the given sizes."""
    offsets = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def _bags(indices: Tensor, weight: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    if len(indices) == 0:
        return weight.new_zeros(len(offsets) - 1, weight.shape[1])
    return embedding_bag(
        indices, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )


# ---------------------------------------------------------------- which latents are active


def active_latents(sae: SparseAutoencoder, x: Tensor) -> tuple[Active, Tensor]:
    """Return which latents are active on rows ``x`` [n, d_in] and their values [m]: ``sae.encode(x)`` less its zeros.

    Where the processor is faster so, a product in bfloat16 proposes them, with a margin that its rounding cannot
    exceed (by Cauchy-Schwarz); their values are exact. Pre-activations of all latents exist a chunk of rows at a time.
    """
    with torch.no_grad():
        if not sae.is_elementwise:
            latents = sae.encode(x)
            flat = where(latents > 0)
            return active_at(flat, *latents.shape), latents.flatten()[flat]
        threshold = sae.threshold.clamp_min(0) * (sae.cfg.architecture != "relu")
        centred = x.to(sae.W_enc) - sae.b_dec
        low = sae.W_enc.dtype == torch.float32 and float(threshold.min()) > 0 and has_fast_bf16(x.device.type)
        W, b = (sae.W_enc.bfloat16(), sae.b_enc.bfloat16()) if low else (sae.W_enc, sae.b_enc)
        slack = float(sae.W_enc.norm(dim=1).max()) * 2.0**-7 if low else 0.0
        flats = []
        for i, part in enumerate(centred.split(CHUNK_ROWS)):
            bound = threshold * (1 - 2.0**-7) - part.norm(dim=1, keepdim=True) * slack if low else threshold
            pre = _sortable(linear(part.to(W.dtype), W, b))
            least = _sortable(bound.to(W.dtype)).clamp_min(_smallest_positive(pre))
            flats.append(where(pre >= least) + i * CHUNK_ROWS * sae.cfg.d_sae)
        found = active_at(torch.cat(flats), len(x), sae.cfg.d_sae)
        values = sampled_dot(found, centred, sae.W_enc) + sae.b_enc[found.columns]
        limit = threshold if threshold.dim() == 0 else threshold[found.columns]
        return _narrow(found, values, values > limit)


class Candidates(NamedTuple):
    """Latents that may be active, row after row."""

    active: Active
    values: Tensor
    """[m]: their pre-activations, in float32 or finer."""
    dead_pre_acts: Tensor | None
    """[n / 2, n_dead]: every second row's pre-activations of the dead latents, where they were asked for."""


def pre_activations(weights: Weights, centred: Tensor, *, bfloat16: bool = False) -> PreActs:
    """Return a function from bounds of rows to their pre-activations, in bfloat16 if asked."""
    W, b, x = weights.W_enc, weights.b_enc, centred
    if bfloat16:
        W, b, x = W.bfloat16(), b.bfloat16(), x.bfloat16()
    return lambda start, end: linear(x[start:end], W, b)


def topk_candidates(pre_acts: PreActs, n: int, k: int, dead: Tensor | None = None) -> Candidates:
    """Return, for each of ``n`` rows, its ``k`` largest positive entries and perhaps some more."""
    return _collect(pre_acts, n, lambda ordered: _row_bound(ordered, k), dead)


def batch_topk_candidates(pre_acts: PreActs, n: int, n_active: int, dead: Tensor | None = None) -> Candidates:
    """Return the ``n_active`` largest positive entries over ``n`` rows, and some more.

    The bound is the quantile of a sample of the rows, reduced until enough pass.
    """
    step = max(1, n // SAMPLED_BLOCKS)
    sample = torch.cat([pre_acts(i, min(i + 4, n)) for i in range(0, n, step)][:SAMPLED_BLOCKS])
    width = sample.shape[1]
    flat = (sample if sample.dtype == torch.float64 else sample.float()).flatten()
    share = n_active / (n * width)
    margin = 1.25
    while True:
        rank = int(share * margin * len(flat)) + 1
        guess = float(flat.kthvalue(len(flat) - rank + 1).values) if rank <= len(flat) else 0.0
        bound = max(guess, 0.0)
        limit = _sortable(torch.tensor([[bound]], dtype=sample.dtype, device=sample.device))
        found = _collect(pre_acts, n, lambda ordered, limit=limit: limit, dead)  # type: ignore[misc]
        if bound == 0.0 or len(found.values) >= n_active:
            return found
        margin *= 2


def keep_topk(active: Active, values: Tensor, k: int) -> Tensor:
    """Return which of the candidates [m] are among the ``k`` largest ``values`` of their row."""
    counts = active.offsets.diff()
    longest = int(counts.max()) if len(counts) else 0
    positive = values > 0
    if longest <= k:
        return positive
    table = values.new_full((len(counts), longest), -torch.inf)
    table[active.rows, torch.arange(len(values), device=values.device) - active.offsets[active.rows]] = values
    bound = table.topk(k, dim=1, sorted=False).values.amin(1)
    return (values >= bound[active.rows]) & positive


def keep_batch_topk(values: Tensor, n_active: int) -> tuple[Tensor, float]:
    """Return which candidates [m] are among the ``n_active`` largest, and the smallest of those."""
    positive = values > 0
    if len(values) <= n_active:
        return positive, float(values[positive].min()) if bool(positive.any()) else 0.0
    threshold = float(values.kthvalue(len(values) - n_active + 1).values)
    return (values >= threshold) & positive, max(threshold, 0.0)


def _collect(
    pre_acts: PreActs, n: int, bound_of: Callable[[Tensor], Tensor], dead: Tensor | None
) -> Candidates:
    """Return the positive entries that reach ``bound_of`` their rows, chunk by chunk."""
    flats, values, dead_parts, width, step = [], [], [], 0, CHUNK_ROWS
    for start in range(0, n, step):
        pre = pre_acts(start, min(start + step, n))
        width = pre.shape[1]
        ordered = _sortable(pre)
        flat = where(ordered >= bound_of(ordered).clamp_min(_smallest_positive(ordered)))
        chosen = pre.flatten()[flat]
        values.append(chosen if chosen.dtype == torch.float64 else chosen.float())
        flats.append(flat + start * width)
        if dead is not None:
            dead_parts.append(pre[::2].index_select(1, dead))
    active = active_at(torch.cat(flats), n, width)
    return Candidates(active, torch.cat(values), torch.cat(dead_parts) if dead_parts else None)


def _row_bound(ordered: Tensor, k: int) -> Tensor:
    """Return a bound [n, 1] that the k largest entries of each row reach.

    The latents are dealt into more than ``k`` groups. The k-th largest of the groups' maxima is reached by
    k entries at least, so that nothing below it is among the k largest. One pass over the matrix and a small
    sort take the place of a sort of every row.
    """
    width = ordered.shape[1]
    size = width // max(3 * k, MIN_GROUPS)
    if size < 2:
        return ordered.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    groups = width // size
    maxima = ordered[:, : groups * size].unflatten(1, (size, groups)).amax(1)
    return maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)


def _sortable(values: Tensor) -> Tensor:
    """Return bfloat16 as integers: positive ones keep their order, and the processor compares them faster."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values


def _smallest_positive(ordered: Tensor) -> float:
    return 1 if ordered.dtype == torch.int16 else torch.finfo(ordered.dtype).tiny


def _select(
    weights: Weights, centred: Tensor, knobs: Knobs, dead: Tensor | None
) -> tuple[Active, Tensor, float, Tensor | None]:
    """Return the active latents, their values, the smallest chosen one of a batch, and AuxK's input."""
    cfg, n = knobs.cfg, len(centred)
    pre = pre_activations(weights, centred, bfloat16=knobs.bfloat16)
    if cfg.architecture == "topk":
        found = topk_candidates(pre, n, cfg.k, dead)
        values = _exact_values(weights, centred, found, knobs)
        chosen, threshold = keep_topk(found.active, values, cfg.k), 0.0
    else:
        found = batch_topk_candidates(pre, n, n * cfg.k, dead)
        values = _exact_values(weights, centred, found, knobs)
        chosen, threshold = keep_batch_topk(values, n * cfg.k)
    return *_narrow(found.active, values, chosen), threshold, found.dead_pre_acts


def _exact_values(weights: Weights, centred: Tensor, found: Candidates, knobs: Knobs) -> Tensor:
    """Return the candidates' values in full precision: bfloat16 only proposes, for its ties and its error."""
    if not knobs.bfloat16:
        return found.values
    return sampled_dot(found.active, centred, weights.W_enc) + weights.b_enc[found.active.columns]


# ---------------------------------------------------------------- topk, batchtopk, matryoshka


def _selected_step(
    weights: Weights, centred: Tensor, knobs: Knobs, weigh: Weigh, dead: Tensor | None
) -> tuple[Step, Tensor, Tensor | None]:
    """The step of topk, batchtopk and matryoshka; with the error x_hat - x [n, d_in] and AuxK's input."""
    active, values, threshold, dead_pre = _select(weights, centred, knobs, dead)
    widths = nested_widths(knobs.cfg)
    groups = _split(active, values, widths)
    slopes, errors, error = _nested_errors(groups, weights.W_dec, centred, weigh)
    to_values = torch.empty_like(values)
    for (part, mask, _), slope in zip(groups, slopes, strict=True):
        to_values[mask] = sampled_dot(part, slope, weights.W_dec)
    rows, gradient = _sparse_gradient(weights, centred, active, values, to_values, slopes, widths)
    gradient.b_dec += slopes[0].sum(0)
    fired = torch.zeros_like(weights.b_enc, dtype=torch.long)
    fired[rows] = 1
    return Step(gradient, rows, errors, fired, len(values), threshold), error, dead_pre


Group = tuple[Active, Tensor | slice, Tensor]
"""The active latents of one nested width, where they are among all, and their values."""


def _split(active: Active, values: Tensor, widths: list[int]) -> list[Group]:
    if len(widths) == 1:
        return [(active, slice(None), values)]
    level = torch.bucketize(active.columns, torch.tensor(widths, device=values.device), right=True)
    masks = [level == i for i in range(len(widths))]
    return [
        (_active(active.rows[mask], active.columns[mask], len(active.offsets) - 1), mask, values[mask])
        for mask in masks
    ]


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
) -> tuple[Tensor, Weights]:
    """Return the latents that fired [r], rising, and their gradient from ``to_values`` = d loss / d values and
    ``slopes`` = d loss / d x_hat, by group. b_dec gets what comes through the encoder's input only.
    """
    by_column = order_by_column(active, len(weights.b_enc))
    rows = by_column.columns
    b_enc = torch.zeros_like(weights.b_enc).index_add_(0, active.columns, to_values)[rows]
    ends = [0, *torch.searchsorted(rows, torch.tensor(widths, device=rows.device)).tolist()]
    offsets = by_column.offsets
    parts = []
    for low, high, slope in zip(ends, ends[1:], slopes, strict=False):
        first, last = int(offsets[low]), int(offsets[high])
        inside = slice(first, last)
        part = ByColumn(
            by_column.order[inside], by_column.rows[inside], rows[low:high], offsets[low : high + 1] - first
        )
        parts.append(combine_by_column(part, values, slope))
    gradient = Weights(
        W_enc=combine_by_column(by_column, to_values, centred),
        b_enc=b_enc,
        W_dec=parts[0] if len(parts) == 1 else torch.cat(parts),
        b_dec=-(b_enc @ weights.W_enc[rows]),
    )
    return rows, gradient


def _row_losses(error: Tensor) -> Tensor:
    """Return the squared norm of each row over d_in."""
    return torch.linalg.vector_norm(error, dim=1).square_().div_(error.shape[1])


# ---------------------------------------------------------------- relu, jumprelu


def _thresholded_step(
    weights: Weights, centred: Tensor, knobs: Knobs, weigh: Weigh, dead: Tensor | None
) -> tuple[Step, Tensor, Tensor | None]:
    """The step of relu and jumprelu, whose latents may be many (early) or few (later)."""
    pre = pre_activations(weights, centred)(0, len(centred))
    dead_pre = None if dead is None else pre[::2].index_select(1, dead)
    theta = None if weights.log_threshold is None else weights.log_threshold.exp()
    lowest = 0.0 if theta is None else (theta - knobs.bandwidth / 2).clamp_min(0.0)
    sample = pre[:: max(1, len(pre) // SAMPLED_ROWS)] > lowest
    if _count(sample) > DENSE_SHARE * sample.numel():
        return *_dense_step(weights, centred, pre, theta, knobs, weigh), dead_pre
    flat = where(pre > lowest)
    active = active_at(flat, *pre.shape)
    near = pre.flatten()[flat]
    near_theta = None if theta is None else theta[active.columns]
    values = near if near_theta is None else torch.where(near > near_theta, near, 0.0)
    error = combine(active, values, weights.W_dec) - centred
    losses = _row_losses(error)
    slope = error * (weigh(losses) * (2.0 / centred.shape[1])).unsqueeze(1)
    to_values = sampled_dot(active, slope, weights.W_dec)
    n_firing = int((values > 0).sum())
    to_pre, to_theta, penalty = _through_threshold(
        near, near_theta, values, to_values, n_firing, knobs, len(pre)
    )
    rows, found = _sparse_gradient(weights, centred, active, values, to_pre, [slope], [knobs.cfg.d_sae])
    W_enc, b_enc, W_dec = (
        _spread(part, rows, knobs.cfg.d_sae) for part in (found.W_enc, found.b_enc, found.W_dec)
    )
    gradient = Weights(W_enc, b_enc, W_dec, found.b_dec + slope.sum(0))
    if theta is not None and to_theta is not None:
        gradient.log_threshold = torch.zeros_like(theta).index_add_(0, active.columns, to_theta) * theta
    fired = torch.bincount(active.columns[values > 0], minlength=knobs.cfg.d_sae)
    return Step(gradient, None, losses, fired, n_firing, penalty=penalty), error, dead_pre


def _spread(part: Tensor, rows: Tensor, d_sae: int) -> Tensor:
    return part.new_zeros(d_sae, *part.shape[1:]).index_copy_(0, rows, part)


def _dense_step(
    weights: Weights,
    centred: Tensor,
    pre: Tensor,
    theta: Tensor | None,
    knobs: Knobs,
    weigh: Weigh,
) -> tuple[Step, Tensor]:
    values = pre.relu_() if theta is None else torch.where(pre > theta, pre, 0.0)
    n_firing = _count(values > 0) if knobs.measure or theta is not None else 0
    error = (values @ weights.W_dec).sub_(centred)
    losses = _row_losses(error)
    row_weights = weigh(losses)
    slope = error * (row_weights * (2.0 / centred.shape[1])).unsqueeze(1)
    to_values = slope @ weights.W_dec.T
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
    return Step(gradient, None, losses, fired.long(), n_firing, penalty=penalty), error


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
    if theta is None:
        price = knobs.sparsity / (n_rows * knobs.cfg.d_in**0.5)
        penalty = price * float(values.sum()) if knobs.measure else 0.0
        if price > 0:
            to_values.add_(price)
        to_pre = torch.ops.aten.threshold_backward.grad_input(to_values, values, 0.0, grad_input=to_values)
        return to_pre, None, penalty
    excess = n_firing / (n_rows * knobs.cfg.k) - 1.0
    to_count = 2.0 * knobs.sparsity * excess / (n_rows * knobs.cfg.k)
    window = ((pre - theta).abs() < knobs.bandwidth / 2) & (pre > 0)
    to_theta = torch.where(window, (theta * to_values + to_count) * (-1.0 / knobs.bandwidth), 0.0)
    return torch.where(values > 0, to_values, 0.0), to_theta, knobs.sparsity * excess**2


def _count(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())


# ---------------------------------------------------------------- AuxK


def _add_aux(
    step: Step,
    weights: Weights,
    centred: Tensor,
    pre_acts: Tensor,
    target: Tensor,
    latents: Tensor,
    knobs: Knobs,
) -> None:
    """Add AuxK to the step: dead latents reconstruct the error ``target``, in units of its square.

    Gao et al. 2024, section 2.4, on every second row of the batch, which halves its cost: ``target`` and
    ``centred`` are [n / 2, d_in], ``pre_acts`` is [n / 2, n_dead].
    """
    scale = max(float(target.square().sum()), 1e-30)
    part = Weights(weights.W_enc[latents], weights.b_enc[latents], weights.W_dec[latents], weights.b_dec)
    k = min(knobs.k_aux, len(latents))
    active, values, _ = topk_candidates(lambda low, high: pre_acts[low:high], len(centred), k)
    active, values = _narrow(active, values, keep_topk(active, values, k))
    error = combine(active, values, part.W_dec).sub_(target)
    slope = error * (2.0 * knobs.aux_coefficient / scale)
    to_values = sampled_dot(active, slope, part.W_dec)
    inner, added = _sparse_gradient(part, centred, active, values, to_values, [slope], [len(latents)])
    step.aux_loss = knobs.aux_coefficient * float(error.square().sum()) / scale
    gradient, rows = step.gradient, latents[inner]
    if step.rows is None:
        at, n_rows = rows, knobs.cfg.d_sae
    else:
        step.rows, both = torch.unique(torch.cat([step.rows, rows]), return_inverse=True)
        own, at = both[: len(gradient.b_enc)], both[len(gradient.b_enc) :]
        n_rows = len(step.rows)
        for name in ("W_enc", "b_enc", "W_dec"):
            setattr(gradient, name, _spread(getattr(gradient, name), own, n_rows))
    for name in ("W_enc", "b_enc", "W_dec"):
        getattr(gradient, name).index_add_(0, at, getattr(added, name))
