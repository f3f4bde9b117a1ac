"""Nearest rows by comparing with every row, part by part."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hits:
    """What a search found, best first; fewer rows than asked for are filled with id -1 and score -inf."""

    ids: NDArray[np.int64]
    """[n_queries, k] positions in the index."""
    scores: NDArray[np.float32]
    """[n_queries, k] cosines."""


class Vectors(Protocol):
    """Unit vectors on disk, by position: what a search needs of a corpus."""

    directory: Path

    def __len__(self) -> int: ...

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]: ...

    def parts(self) -> Iterable[tuple[int, NDArray[np.float32]]]: ...


def exact_search(
    parts: Iterable[tuple[int, NDArray[np.float32]]], queries: NDArray[np.float32], k: int
) -> Hits:
    """Return the ``k`` rows of largest inner product with each query, reading one part at a time."""
    import faiss

    queries = np.ascontiguousarray(queries, np.float32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    for start, vectors in parts:
        here = min(k, len(vectors))
        found, rows = faiss.knn(
            queries, np.ascontiguousarray(vectors), here, metric=faiss.METRIC_INNER_PRODUCT
        )
        scores, ids = np.hstack([scores, found]), np.hstack([ids, rows + start])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
    return Hits(ids, scores)
