"""Which latents are active: candidates by a cheap bound on the pre-activations, then the exact choice.

Pre-activations exist a chunk of rows at a time. Latents that are not above zero are never active: they would
add nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from debias_ssae.sae.processes import Processes
from debias_ssae.sae.sparse_ops import Active, keep, offsets_from_counts

SAMPLED_BLOCKS = 16
"""Blocks of 4 rows from which the bound of a batch is guessed; a bad guess costs a second look, no more."""
CHUNK_ROWS = 256
"""Rows of pre-activations that exist at a time on the CPU, where they then stay in its cache."""

PreActs = Callable[[int, int], Tensor]
"""From the bounds of some rows to their pre-activations [rows, d_sae]."""


class Candidates(NamedTuple):
    """Latents that may be active, row after row."""

    active: Active
    values: Tensor
    """[m]: their pre-activations, in float32 or finer."""
    dead_pre_acts: Tensor | None
    """[n / 2, n_dead]: every second row's pre-activations of the dead latents, where they were asked for."""


def topk_candidates(pre_acts: PreActs, n: int, k: int, dead: Tensor | None = None) -> Candidates:
    """Return, for each of ``n`` rows, its ``k`` largest positive entries and perhaps some more."""
    return _collect(pre_acts, n, lambda ordered: _row_bound(ordered, k), dead)


def batch_topk_candidates(
    pre_acts: PreActs, n: int, n_active: int, processes: Processes, dead: Tensor | None = None
) -> Candidates:
    """Return the ``n_active`` largest positive entries over the rows of all ranks, and some more.

    ``n`` rows are this rank's. The bound is the quantile of a sample of them, lowered until enough pass.
    """
    step = max(1, n // SAMPLED_BLOCKS)
    sample = torch.cat([pre_acts(i, min(i + 4, n)) for i in range(0, n, step)][:SAMPLED_BLOCKS])
    width = sample.shape[1]
    flat = (sample if sample.dtype == torch.float64 else sample.float()).flatten()
    share = n_active / (processes.total(n) * width)
    margin = 1.25
    while True:
        rank = int(share * margin * len(flat)) + 1
        guess = float(flat.kthvalue(len(flat) - rank + 1).values) if rank <= len(flat) else 0.0
        bound = processes.lowest(max(guess, 0.0))
        limit = _sortable(torch.tensor([[bound]], dtype=sample.dtype, device=sample.device))
        found = _collect(pre_acts, n, lambda ordered, limit=limit: limit, dead)  # type: ignore[misc]
        if bound == 0.0 or processes.total(len(found.values)) >= n_active:
            return found
        margin *= 2


def where(mask: Tensor) -> Tensor:
    """Return the positions of the true entries of ``mask`` [n, width], in the order of its memory."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)


def active_at(flat: Tensor, n: int, width: int) -> Active:
    """Return the active latents at positions ``flat`` [m], rising, of a matrix [n, width]."""
    rows = flat.div(width, rounding_mode="floor")
    return Active(rows, flat - rows * width, offsets_from_counts(torch.bincount(rows, minlength=n)))


def count(mask: Tensor) -> int:
    """Return how many entries are true."""
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())


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
    size = width // (3 * k)
    if size < 2:
        return ordered.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    groups = width // size
    maxima = ordered[:, : groups * size].unflatten(1, (size, groups)).amax(1)
    return maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)


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
