"""Which latents are active: candidates by a cheap bound on the pre-activations, then the exact choice.

Candidates may come from pre-activations in bfloat16; the choice is made on values computed in full.
Latents that are not above zero are never active: they would add nothing.
"""

import numpy as np
import torch
from torch import Tensor

from debias_ssae.sae.processes import Processes
from debias_ssae.sae.sparse_ops import Active, keep, offsets_from_counts

SAMPLED_ROWS = 32
"""Rows from which the bound of a batch is guessed; a bad guess costs a second look, never a wrong choice."""


def select_where(mask: Tensor) -> Active:
    """Return the true entries of ``mask`` [n, d_sae]."""
    n, width = mask.shape
    if mask.device.type == "cpu":
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    else:
        flat = mask.flatten().nonzero().squeeze(1)
    rows = flat.div(width, rounding_mode="floor")
    return Active(rows, flat - rows * width, offsets_from_counts(torch.bincount(rows, minlength=n)))


def topk_candidates(pre_acts: Tensor, k: int) -> Active:
    """Return, for each row of [n, d_sae], its ``k`` largest positive entries and perhaps some more.

    The latents are dealt into more than ``k`` groups. The k-th largest of the groups' maxima is reached by
    k entries at least, so that everything below it cannot be among the k largest. One pass over the matrix
    and a small sort take the place of a sort of every row.
    """
    width = pre_acts.shape[1]
    ordered = _sortable(pre_acts)
    size = width // (3 * k)
    if size < 2:
        bound = ordered.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    else:
        groups = width // size
        maxima = ordered[:, : groups * size].unflatten(1, (size, groups)).amax(1)
        bound = maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    return select_where(ordered >= bound.clamp_min(_smallest_positive(ordered)))


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


def batch_topk_candidates(pre_acts: Tensor, n_active: int, processes: Processes) -> Active:
    """Return the ``n_active`` largest positive entries over the whole batch of all ranks, and some more.

    ``pre_acts`` [n, d_sae] are this rank's rows. The bound is the quantile of a sample of the rows, lowered
    until enough entries pass.
    """
    n, width = pre_acts.shape
    sample = pre_acts[:: max(1, n // SAMPLED_ROWS)].flatten()
    sample = sample if sample.dtype == torch.float64 else sample.float()
    share = n_active / (processes.total(n) * width)
    margin = 1.25
    ordered = _sortable(pre_acts)
    while True:
        rank = int(share * margin * len(sample)) + 1
        bound = float(sample.kthvalue(len(sample) - rank + 1).values) if rank <= len(sample) else 0.0
        bound = processes.lowest(max(bound, 0.0))
        limit = _sortable(torch.tensor([[bound]], dtype=pre_acts.dtype, device=pre_acts.device))
        mask = ordered >= limit.clamp_min(_smallest_positive(ordered))
        if bound == 0.0 or processes.total(_count(mask)) >= n_active:
            return select_where(mask)
        margin *= 2


def keep_batch_topk(values: Tensor, n_active: int, processes: Processes) -> tuple[Tensor, float]:
    """Return which candidates [m] are among the ``n_active`` largest of all ranks, and the smallest."""
    everyone = processes.gather(values)
    positive = values > 0
    if len(everyone) <= n_active:
        smallest = float(everyone[everyone > 0].min()) if bool((everyone > 0).any()) else 0.0
        return positive, smallest
    threshold = float(everyone.kthvalue(len(everyone) - n_active + 1).values)
    return (values >= threshold) & positive, max(threshold, 0.0)


def narrow(active: Active, values: Tensor, mask: Tensor) -> tuple[Active, Tensor]:
    """Return the active latents and values where ``mask`` is true."""
    return (active, values) if bool(mask.all()) else (keep(active, mask), values[mask])


def _sortable(values: Tensor) -> Tensor:
    """Return bfloat16 as integers: positive ones keep their order, and the processor compares them faster."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values


def _smallest_positive(ordered: Tensor) -> float:
    return 1 if ordered.dtype == torch.int16 else torch.finfo(ordered.dtype).tiny


def _count(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())
