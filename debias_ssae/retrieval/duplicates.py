"""Texts that say the same: equal after folding case, spaces and punctuation, or with nearly equal vectors."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_NOT_WORD = re.compile(r"[\W_]+")


def fold(text: str) -> str:
    """Return ``text`` without case, accents' encoding, spaces and punctuation, to compare texts by."""
    return _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def new_texts(corpus: Sequence[str], known: Iterable[str]) -> NDArray[np.int64]:
    """Return the positions of texts that are not empty, not among ``known`` and not said before."""
    seen = {fold(text) for text in known} | {""}
    kept = []
    for i, text in enumerate(corpus):
        key = fold(text)
        if key not in seen:
            seen.add(key)
            kept.append(i)
    return np.asarray(kept, np.int64)


def drop_near(
    ranked: NDArray[np.int64],
    vectors: NDArray[np.float32],
    known: NDArray[np.float32],
    n_texts: int,
    threshold: float,
) -> tuple[NDArray[np.int64], int]:
    """Walk down ``ranked`` and keep the first ``n_texts`` rows of ``vectors`` that are new.

    A row is dropped when its cosine with a row of ``known`` or with one kept before is above ``threshold``.
    ``vectors`` and ``known`` hold unit rows. Returns the rows kept and how many were dropped on the way.
    """
    kept: list[int] = []
    dropped = 0
    kept_vectors = np.empty((n_texts, vectors.shape[1]), np.float32)
    block_rows = 1024
    for start in range(0, len(ranked), block_rows):
        block = ranked[start : start + block_rows]
        x = np.ascontiguousarray(vectors[block])
        near = np.zeros(len(block), bool)
        for others in (known, kept_vectors[: len(kept)]):
            for piece in range(0, len(others), 4096):
                near |= (x @ others[piece : piece + 4096].T > threshold).any(1)
        within = np.triu(x @ x.T > threshold, k=1)
        for i, row in enumerate(block):
            if near[i]:
                dropped += 1
                continue
            near |= within[i]
            kept_vectors[len(kept)] = x[i]
            kept.append(int(row))
            if len(kept) == n_texts:
                return np.asarray(kept, np.int64), dropped
    return np.asarray(kept, np.int64), dropped
