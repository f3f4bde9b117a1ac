"""Texts that say the same: equal after folding case, spaces and punctuation, or with nearly equal vectors."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_NOT_WORD = re.compile(r"[\W_]+")
_BLOCK_ROWS = 1024


def fold(text: str) -> str:
    """Return ``text`` without case, spaces, punctuation and differences of encoding, to compare texts by."""
    return _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def without(corpus: Sequence[str], held_out: Iterable[str]) -> list[str]:
    """Return the texts that say nothing that one of ``held_out`` says, by ``fold``; repeats stay."""
    return [text for text, keep in zip(corpus, unsaid(corpus, held_out), strict=True) if keep]


def unsaid(corpus: Sequence[str], held_out: Iterable[str]) -> NDArray[np.bool_]:
    """Return which texts ``[n]`` say nothing that one of ``held_out`` says, by ``fold``."""
    unwanted = {fold(text) for text in held_out}
    return np.array([not unwanted or fold(text) not in unwanted for text in corpus], dtype=bool)


def new_texts(corpus: Iterable[str], known: Iterable[str]) -> NDArray[np.int64]:
    """Return the positions of texts that are not empty, not among ``known`` and not said before."""
    seen = {text_key(""), *map(text_key, known)}
    kept = []
    for i, text in enumerate(corpus):
        key = text_key(text)
        if key not in seen:
            seen.add(key)
            kept.append(i)
    return np.asarray(kept, np.int64)


def text_key(text: str) -> int:
    """Return 56 bits that tell folded texts apart, so that not all of them need be kept."""
    digest = hashlib.blake2b(fold(text).encode("utf-8", "replace"), digest_size=7).digest()
    return int.from_bytes(digest, "little")


def drop_near(
    ranked: NDArray[np.int64],
    vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    known: NDArray[np.float32],
    n_texts: int,
    threshold: float,
) -> tuple[NDArray[np.int64], int]:
    """Walk down ``ranked`` and keep the first ``n_texts`` whose vectors are new.

    A text is dropped when its cosine with a row of ``known`` or with one kept before is above ``threshold``.
    ``vectors_of`` gives the unit vectors of some texts; it is asked only as far down as needed. Returns the
    texts kept and how many were dropped on the way.
    """
    kept: list[int] = []
    dropped = 0
    kept_vectors = np.empty((n_texts, known.shape[1]), np.float32)
    for start in range(0, len(ranked), _BLOCK_ROWS):
        block = ranked[start : start + _BLOCK_ROWS]
        x = np.ascontiguousarray(vectors_of(block), dtype=np.float32)
        near = _near_any(x, known, threshold) | _near_any(x, kept_vectors[: len(kept)], threshold)
        pairs = np.triu(x @ x.T > threshold, k=1)
        for i, row in enumerate(block.tolist()):
            if near[i]:
                dropped += 1
                continue
            near |= pairs[i]
            kept_vectors[len(kept)] = x[i]
            kept.append(row)
            if len(kept) == n_texts:
                return np.asarray(kept, np.int64), dropped
    return np.asarray(kept, np.int64), dropped


def _near_any(x: NDArray[np.float32], others: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    near = np.zeros(len(x), bool)
    for start in range(0, len(others), 4096):
        near |= (x @ others[start : start + 4096].T > threshold).any(1)
    return near
