"""Which sequences run together: sorted by length, as many as a budget of tokens allows."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def token_batches(lengths: Sequence[int] | NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of each batch, longest sequences first.

    A batch holds at most ``budget`` tokens, padding included, and at least one sequence. Sequences of length
    0 are in no batch. The same lengths give the same batches.
    """
    widths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-widths, kind="stable")
    order = order[widths[order] > 0]
    start = 0
    while start < len(order):
        stop = start + max(1, budget // int(widths[order[start]]))
        yield order[start:stop]
        start = stop
