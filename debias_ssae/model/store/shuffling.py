"""Batches of rows in random order from files that do not fit in memory."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Gather = Callable[[NDArray[np.int64], int], Tensor]
"""From blocks [m, 2] (shard, first row), in the order of the files, and a block's size to their rows."""


class ShuffledRows(Iterator[Tensor]):
    """Batches [batch_size, d] float32 in random order, each row once an epoch, the epochs end to end.

    Blocks of neighbouring rows are drawn at random into a buffer, which is shuffled and handed out. An epoch's
    order depends on the seed and its number only, so that ``seek`` reads no more than one buffer.
    """

    def __init__(
        self,
        gather: Gather,
        shard_rows: Sequence[int],
        *,
        batch_size: int,
        buffer_rows: int,
        block_rows: int,
        n_epochs: int | None,
        random_state: int | None,
    ) -> None:
        self._gather, self._sizes, self._block_rows = gather, np.asarray(shard_rows, np.int64), block_rows
        self._batch_size, self._per_buffer = batch_size, buffer_rows // block_rows
        self._n_rows = int(self._sizes.sum())
        self._end = None if n_epochs is None else n_epochs * self._n_rows
        self.seed = int(np.random.default_rng().integers(1 << 31)) if random_state is None else random_state
        self._position = 0
        self._epoch = self._buffer = -1
        self._blocks = np.empty((0, 2), np.int64)
        self._starts = np.zeros(1, np.int64)
        self._rows, self._order = torch.empty(0), torch.empty(0, dtype=torch.int64)

    def seek(self, n_batches: int) -> None:
        """Go to where the stream is after ``n_batches`` batches."""
        self._position = n_batches * self._batch_size

    def __next__(self) -> Tensor:
        if self._end is not None and self._position + self._batch_size > self._end:
            raise StopIteration
        parts, missing = [], self._batch_size
        while missing:
            epoch, offset = divmod(self._position, self._n_rows)
            buffer = self._buffer_at(epoch, offset)
            within = offset - int(self._starts[buffer])
            rows = self._rows[self._order[within : within + missing]].float()
            parts.append(rows)
            self._position += len(rows)
            missing -= len(rows)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _buffer_at(self, epoch: int, offset: int) -> int:
        """Load the buffer that holds row ``offset`` of an epoch; returns its number."""
        if epoch != self._epoch:
            self._epoch, self._buffer = epoch, -1
            self._draw_blocks(np.random.default_rng([self.seed, epoch]))
        number = int(np.searchsorted(self._starts, offset, side="right")) - 1
        if number != self._buffer:
            self._rows = torch.empty(0)  # let go of the old one before the new one is read
            chosen = self._blocks[number * self._per_buffer : (number + 1) * self._per_buffer]
            self._rows = self._gather(chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))], self._block_rows)
            rng = np.random.default_rng([self.seed, epoch, number])
            self._order, self._buffer = torch.from_numpy(rng.permutation(len(self._rows))), number
        return number

    def _draw_blocks(self, rng: np.random.Generator) -> None:
        """Put all blocks in this epoch's order, and note at which row each buffer starts."""
        blocks = np.concatenate(
            [
                np.stack([np.full(-(-n // self._block_rows), i), np.arange(0, n, self._block_rows)], axis=1)
                for i, n in enumerate(self._sizes.tolist())
            ]
        )
        self._blocks = blocks[rng.permutation(len(blocks))]
        counts = np.minimum(self._block_rows, self._sizes[self._blocks[:, 0]] - self._blocks[:, 1])
        ends = np.cumsum(counts)[self._per_buffer - 1 :: self._per_buffer]
        self._starts = np.concatenate([[0], ends[ends < self._n_rows]]).astype(np.int64)
