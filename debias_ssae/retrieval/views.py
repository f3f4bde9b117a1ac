"""Corpora that are views: an index's texts and vectors, read part by part, and some texts of a larger corpus."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from debias_ssae.retrieval.index import CorpusIndex


class IndexedTexts(Sequence[str]):
    """The texts of an index, or their sources, by position."""

    def __init__(self, index: CorpusIndex, *, sources: bool = False) -> None:
        self._index, self._column = index, int(sources)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        for start, vectors in self._index.parts():
            yield from self.take(range(start, start + len(vectors)))

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        ids = range(len(self))[key]
        return self.take([ids])[0] if isinstance(ids, int) else self.take(ids)

    def take(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return those at ``ids``, each part of the index read once."""
        return [pair[self._column] for pair in self._index.texts(ids)]


class IndexedVectors:
    """The vectors of an index: products with a query and chosen rows."""

    def __init__(self, index: CorpusIndex) -> None:
        self._index = index

    def __matmul__(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the inner products [n] of every row with ``query`` [d]."""
        products = [vectors @ query for _, vectors in self._index.parts()]
        return np.concatenate([np.zeros(0, np.float32), *products])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors [m, d] at positions ``rows`` [m]."""
        return self._index.vectors(rows)


class PartOfTexts(Sequence[str]):
    """Some texts of a larger sequence; vectors are made, and kept, for the whole of it, and serve every part."""

    def __init__(self, whole: Sequence[str], rows: NDArray[np.int64]) -> None:
        """``rows`` are positions in ``whole``."""
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        rows = self.rows[key]
        return [self.whole[i] for i in rows.tolist()] if isinstance(key, slice) else self.whole[int(rows)]

    def vectors(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the vectors ``[n, d]`` of this part by embedding the whole."""
        return embed(self.whole)[self.rows]


def take(texts: Sequence[str], ids: NDArray[np.int64]) -> list[str]:
    """Return the texts at ``ids`` of a list or an index."""
    return texts.take(ids) if isinstance(texts, IndexedTexts) else [texts[i] for i in ids]
