"""Products with the few active latents of a batch, without a dense latents matrix or an m x d temporary.

Every product is one call of torch's embedding_bag or of the gradient of its weights; both run over contiguous
rows of W_enc, W_dec or the batch.
"""

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

    def between(self, low: int, high: int) -> "ByColumn":
        """Return those of the latents from ``low`` to before ``high``."""
        if (low, high) == (0, len(self.offsets) - 1):
            return self
        start, end = int(self.offsets[low]), int(self.offsets[high])
        return ByColumn(self.order[start:end], self.rows[start:end], self.offsets[low : high + 1] - start)


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
    return ByColumn(
        order, active.rows[order], offsets_from_counts(torch.bincount(columns, minlength=n_columns))
    )


def keep(active: Active, mask: Tensor) -> Active:
    """Return the active latents where ``mask`` [m] is true."""
    rows = active.rows[mask]
    return Active(
        rows,
        active.columns[mask],
        offsets_from_counts(torch.bincount(rows, minlength=len(active.offsets) - 1)),
    )


def offsets_from_counts(counts: Tensor) -> Tensor:
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
