"""Batches of rows from memory, in a random order that is known from its seed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from debias_ssae.exceptions import InputError


class ShuffledBatches(Iterator[Tensor]):
    """Endless batches of rows of ``x`` [n, d]: every epoch is a new permutation of all rows.

    The order depends on ``random_state`` and n only, and ``seek`` goes to any batch at once, so that a
    resumed training sees the same rows.
    """

    def __init__(self, x: Tensor, batch_size: int, random_state: int | None = None) -> None:
        if x.dim() != 2 or len(x) == 0:
            raise InputError(f"Expected activations [n, d] with at least one row, got shape {tuple(x.shape)}")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be at least 1")
        self.x = x
        self.batch_size = batch_size
        self.seed = int(torch.seed() % (1 << 31)) if random_state is None else random_state
        self._position = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def seek(self, n_batches: int) -> None:
        """Go to where the stream is after ``n_batches`` batches."""
        self._position = n_batches * self.batch_size

    def __next__(self) -> Tensor:
        n, parts, missing = len(self.x), [], self.batch_size
        while missing:
            epoch, start = divmod(self._position, n)
            taken = min(missing, n - start)
            parts.append(self._permutation(epoch)[start : start + taken])
            self._position += taken
            missing -= taken
        return self.x[torch.cat(parts)].float() if self.x.dtype != torch.float64 else self.x[torch.cat(parts)]

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed + 1_000_003 * epoch) % (1 << 63))
            self._order, self._epoch = torch.randperm(len(self.x), generator=generator), epoch
        return self._order


def shuffled_batches(x: Tensor, batch_size: int, random_state: int | None = None) -> ShuffledBatches:
    """Return endless shuffled batches [batch_size, d] of the rows of ``x`` [n, d], in float32 or float64."""
    return ShuffledBatches(x, batch_size, random_state)
