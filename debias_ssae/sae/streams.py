"""Batches of rows: from memory in a random order that is known from its seed; and checked, from anywhere."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError


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
        self.seed = torch.Generator().seed() % (1 << 31) if random_state is None else int(random_state)
        self._position = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def seek(self, n_batches: int) -> None:
        """Go to where the stream is after ``n_batches`` batches."""
        self._position = n_batches * self.batch_size

    def __next__(self) -> Tensor:
        n, missing = len(self.x), self.batch_size
        parts = []
        while missing:
            epoch, start = divmod(self._position, n)
            taken = min(missing, n - start)
            parts.append(self._permutation(epoch)[start : start + taken])
            self._position += taken
            missing -= taken
        rows = self.x[torch.cat(parts)]
        return rows if rows.dtype == torch.float64 else rows.float()

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed + 1_000_003 * epoch) % (1 << 63))
            self._order, self._epoch = torch.randperm(len(self.x), generator=generator), epoch
        return self._order


def shuffled_batches(x: Tensor, batch_size: int, random_state: int | None = None) -> ShuffledBatches:
    """Return endless shuffled batches [batch_size, d] of the rows of ``x`` [n, d], in float32 or float64."""
    return ShuffledBatches(x, batch_size, random_state)


class CheckedStream(Iterator[tuple[Tensor, Tensor | None]]):
    """The batches of a stream with their rows' weights, if any; a bad one is an InputError."""

    def __init__(self, stream: Any, d_in: int, dtype: torch.dtype, *, n_steps: int, skip: int = 0) -> None:
        """``skip`` batches were used before: passed over with the stream's ``seek``, or one by one."""
        self.stream, self.d_in, self.dtype, self.n_steps = iter(stream), d_in, dtype, n_steps
        self.position = 0
        if skip and hasattr(self.stream, "seek"):
            self.stream.seek(skip)
            self.position = skip
        while self.position < skip:
            self._next()

    def __next__(self) -> tuple[Tensor, Tensor | None]:
        item = self._next()
        number = self.position - 1
        x, weights = item if isinstance(item, tuple) else (item, None)
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != self.d_in or len(x) == 0:
            came = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise InputError(
                f"Batch {number} of the stream has {came}; expected a tensor [n, {self.d_in}]: "
                "take the activations of the hookpoint that d_in was set for"
            )
        x = x.to(self.dtype)
        if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).any(1).sum())
            raise InputError(
                f"Batch {number} of the stream holds NaN or infinity in {bad} of {len(x)} rows: drop them"
            )
        if weights is None:
            return x, None
        return x, self._checked_weights(weights, len(x), number)

    def _next(self) -> Any:
        try:
            item = next(self.stream)
        except StopIteration:
            if self.position == 0:
                message = "The stream is empty; it must yield tensors of rows"
            else:
                message = (
                    f"The stream ended after {self.position} batches; n_steps={self.n_steps} asks for more: "
                    "give an endless stream (shuffled_batches) or lower n_steps"
                )
            raise InputError(message) from None
        self.position += 1
        return item

    @staticmethod
    def _checked_weights(weights: Any, n_rows: int, number: int) -> Tensor:
        weights = torch.as_tensor(weights, dtype=torch.float64)
        sound = weights.shape == (n_rows,) and bool((torch.isfinite(weights) & (weights >= 0)).all())
        if not sound or not float(weights.sum()) > 0:
            raise InputError(
                f"The weights of batch {number} must be {n_rows} finite numbers of at least 0, not all 0"
            )
        return weights
