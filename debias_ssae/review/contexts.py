"""Where a latent fires: the strongest texts, its words marked by strength."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from debias_ssae.model import Activations

LEVELS = 4
N_WORDS = 5
_FOR_WORDS = 300
"""Strongest tokens from which a latent's words are read."""


class Piece(NamedTuple):
    """A stretch of text; ``level`` is 0 where the latent is silent, else 1 (faint) to LEVELS (strongest)."""

    text: str
    level: int


Context = tuple[Piece, ...]


class Readings(NamedTuple):
    """What one latent does on the texts."""

    words: tuple[str, ...]
    """Words on which it fires most, in lower case, strongest first."""
    contexts: tuple[Context, ...]


def read_latent(
    texts: Sequence[str], rows: Activations, fired: np.ndarray, *, n_contexts: int, width: int = 60
) -> Readings:
    """Read one latent, whose activations on ``rows`` are ``fired [n_rows]``.

    A context is a text's strongest token with about ``width`` characters on either side, one a text, strongest
    first. Word pieces are joined: a word is marked as strongly as its strongest piece.
    """
    order = np.argsort(-fired, kind="stable")
    order = order[fired[order] > 0]
    if not len(order):
        return Readings((), ())
    owners, spans = rows.text_ids.numpy(), rows.offsets.numpy()
    weights: dict[str, float] = {}
    for row in order[:_FOR_WORDS]:
        text = texts[owners[row]]
        start, end = whole_word(text, *spans[row])
        if text[start:end].strip():
            word = text[start:end].lower()
            weights[word] = weights.get(word, 0.0) + float(fired[row])
    first = dict.fromkeys(int(owners[row]) for row in order)
    strongest = float(fired[order[0]])
    contexts = []
    for owner in list(first)[:n_contexts]:
        mine = slice(*np.searchsorted(owners, (owner, owner + 1)))
        contexts.append(_context(texts[owner], spans[mine], fired[mine] / strongest, width))
    words = sorted(weights, key=lambda word: -weights[word])[:N_WORDS]
    return Readings(tuple(words), tuple(contexts))


def whole_word(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span of the word that the characters ``start`` to ``end`` are a piece of."""
    start, end = int(start), int(end)
    while start < end and text[start].isspace():
        start += 1
    if start < end and text[start].isalnum():
        while start > 0 and text[start - 1].isalnum():
            start -= 1
    if start < end and text[end - 1].isalnum():
        while end < len(text) and text[end].isalnum():
            end += 1
    return start, end


def _context(text: str, spans: np.ndarray, strength: np.ndarray, width: int) -> Context:
    words: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(strength > 0):
        word = whole_word(text, *spans[i])
        words[word] = max(words.get(word, 0.0), float(strength[i]))
    top = whole_word(text, *spans[int(strength.argmax())])
    low, _ = whole_word(text, max(0, top[0] - width), max(0, top[0] - width) + 1)
    _, high = whole_word(text, min(len(text), top[1] + width) - 1, min(len(text), top[1] + width))
    while high > top[1] and text[high - 1].isspace():
        high -= 1
    pieces, at = [Piece("…", 0)] if low > 0 else [], low
    for (start, end), value in sorted(words.items()):
        if start < at or end > high or start >= end:
            continue
        pieces += [Piece(text[at:start], 0), Piece(text[start:end], max(1, int(np.ceil(LEVELS * value))))]
        at = end
    pieces += [Piece(text[at:high], 0), Piece("…" if high < len(text) else "", 0)]
    return tuple(piece for piece in pieces if piece.text)
