"""Products with the few active latents of a batch, without a dense latents matrix or an m x d temporary.

Every product is one call of torch's embedding_bag or of the gradient of its weights; both run over contiguous
rows of W_enc, W_dec or the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


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
    offsets: Tensor
    """[d_sae + 1] int64."""


def combine(active: Active, values: Tensor, W: Tensor) -> Tensor:
    """Return A @ W, [n, d], where A [n, d_sae] holds ``values`` [m] at ``active``, and W is [d_sae, d]."""
    return _bags(active.columns, W, active.offsets, values)


def combine_by_column(by_column: ByColumn, values: Tensor, rows: Tensor) -> Tensor:
    """Return A.T @ rows, [d_sae, d]; A [n, d_sae] holds ``values`` [m] in row order, rows is [n, d]."""
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
    return ByColumn(order, active.rows[order], _offsets(torch.bincount(columns, minlength=n_columns)))


def select_topk(pre_acts: Tensor, k: int) -> Active:
    """Return the ``k`` largest of each row of [n, d_sae]."""
    n = len(pre_acts)
    columns = pre_acts.topk(k, dim=1, sorted=False).indices.flatten()
    rows = torch.arange(n, device=columns.device).repeat_interleave(k)
    return Active(rows, columns, torch.arange(0, n * k + 1, k, device=columns.device))


def select_above(pre_acts: Tensor, bound: float) -> Active:
    """Return all entries of [n, d_sae] above ``bound``."""
    n, width = pre_acts.shape
    mask = pre_acts > bound
    if mask.device.type == "cpu":
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    else:
        flat = mask.flatten().nonzero().squeeze(1)
    rows = flat.div(width, rounding_mode="floor")
    return Active(rows, flat - rows * width, _offsets(torch.bincount(rows, minlength=n)))


def keep(active: Active, mask: Tensor) -> Active:
    """Return the active latents where ``mask`` [m] is true."""
    rows = active.rows[mask]
    return Active(
        rows, active.columns[mask], _offsets(torch.bincount(rows, minlength=len(active.offsets) - 1))
    )


def select_batch_topk(
    pre_acts: Tensor,
    n_active: int,
    *,
    agree_bound: Callable[[float], float] = lambda bound: bound,
    agree_count: Callable[[int], int] = lambda count: count,
    kth_largest: Callable[[Tensor, int], float] | None = None,
) -> tuple[Active, float]:
    """Return the ``n_active`` largest positive entries of the whole batch, and the smallest of them.

    A sample of the rows gives a bound that a few more entries than needed pass; only those are ranked. The
    three callables make several processes agree: the lowest bound, the sum of counts, the k-th of all values.
    """
    share = n_active / pre_acts.numel()
    sample = pre_acts[:: max(1, len(pre_acts) // 64)].flatten()
    margin = 1.3
    while True:
        rank = int(share * margin * len(sample)) + 1
        bound = float(sample.kthvalue(len(sample) - rank + 1).values) if rank <= len(sample) else 0.0
        bound = agree_bound(max(bound, 0.0))
        active = select_above(pre_acts, bound)
        if bound == 0.0 or agree_count(len(active.rows)) >= n_active:
            break
        margin *= 2
    values = pre_acts[active.rows, active.columns]
    if agree_count(len(values)) <= n_active:
        return active, bound
    if kth_largest is None:
        threshold = float(values.float().kthvalue(len(values) - n_active + 1).values)
    else:
        threshold = kth_largest(values, n_active)
    return keep(active, values >= threshold), threshold


def _offsets(counts: Tensor) -> Tensor:
    offsets = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def _bags(indices: Tensor, weight: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    if len(indices) == 0:
        return weight.new_zeros(len(offsets) - 1, weight.shape[1])
    return embedding_bag(
        indices, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )
