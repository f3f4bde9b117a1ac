"""What a latent fires on: words by their share of its activation mass, and the strongest texts, words marked."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.scores import CHUNK

LEVELS = 4
SHOWN_SHARE = 0.1
"""A word with less of the latent's activation mass does not name it."""
ENOUGH = 0.8
"""Words are added to the name until they hold this share of the activation mass ..."""
MOST_NAMES = 4
"""... or until there are so many."""
KEPT_WORDS = 20
SAME_WORDS = 0.5
"""Two latents with so much of their activation mass on the same words say the same."""
FOLLOWS = 0.7
"""A word belongs to a phrase where it stands beside the words so far in at least this share of their places."""
FEW_PLACES = 5
"""In fewer places there is no phrase."""
BESIDE = 4
"""Tokens on either side that count as beside: a phrase has commas and particles between its words."""
SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*")
REMAINS = 0.5
"""A sentence of which less than this share of its characters is left says nothing by itself."""


class Piece(NamedTuple):
    """A stretch of text; ``level`` is 0 where the latent is silent, else 1 (faint) to LEVELS (strongest)."""

    text: str
    level: int


Context = tuple[Piece, ...]


class WordedRows(NamedTuple):
    """The token activations of texts, with the word that each token is a piece of."""

    texts: Sequence[str]
    rows: Activations
    spans: np.ndarray
    """First and past-the-last character of each token's word ``[n_rows, 2]``."""
    word_ids: np.ndarray
    """``[n_rows]``, into ``words``."""
    words: tuple[str, ...]
    """In lower case."""
    base: np.ndarray
    """Share of all tokens that belong to each word ``[n_words]``."""


def find_words(texts: Sequence[str], rows: Activations) -> WordedRows:
    """Join the tokens of each text to words: a piece of *hernia* counts for *hernia*, not for *her*."""
    owners, offsets = rows.text_ids.numpy(), rows.offsets.numpy()
    spans = np.empty_like(offsets)
    vocabulary: dict[str, int] = {}
    word_ids = np.empty(len(offsets), dtype=np.int64)
    for row, (owner, (start, end)) in enumerate(zip(owners.tolist(), offsets.tolist(), strict=True)):
        text = texts[owner]
        spans[row] = low, high = whole_word(text, start, end)
        word_ids[row] = vocabulary.setdefault(text[low:high].lower(), len(vocabulary))
    base = np.bincount(word_ids, minlength=len(vocabulary)) / max(len(word_ids), 1)
    return WordedRows(texts, rows, spans, word_ids, tuple(vocabulary), base)


def firing(sae: SparseAutoencoder, x: torch.Tensor, ids: Sequence[int]) -> np.ndarray:
    """Return the activations of the latents ``ids`` on ``x [n, d_in]`` as ``[n, len(ids)]`` float32."""
    out = np.zeros((len(x), len(ids)), np.float32)
    chosen = torch.tensor(list(ids), dtype=torch.long)
    part = sae.slice(chosen) if len(ids) and sae.is_elementwise else None
    with torch.no_grad():
        for start in range(0, len(x), CHUNK) if len(ids) else ():
            rows = x[start : start + CHUNK]
            f = sae.encode(rows)[:, chosen] if part is None else part.encode(rows)
            out[start : start + CHUNK] = f.float().cpu().numpy()
    return out


def word_shares(worded: WordedRows, fired: np.ndarray) -> dict[str, float]:
    """Return the share of the activation mass ``fired [n_rows]`` on each word, most telling first.

    A word tells more, the larger its share is and the larger beside its share of all tokens (the share times the
    logarithm of that ratio). At most KEPT_WORDS are returned; empty where the latent is silent.
    """
    mass = np.bincount(worded.word_ids, weights=fired, minlength=len(worded.words))
    if not mass.sum() > 0:
        return {}
    share = mass / mass.sum()
    told = np.where(share > 0, share * np.log(np.maximum(share, 1e-12) / worded.base), -np.inf)
    best = np.argsort(-told, kind="stable")[:KEPT_WORDS]
    return {worded.words[i]: float(share[i]) for i in best if share[i] > 0 and worded.words[i].strip()}


def naming_words(shares: dict[str, float]) -> list[str]:
    """Return the words that name a latent: those with most of its mass, until they hold enough."""
    names: list[str] = []
    held = 0.0
    for word, share in shares.items():
        if share < SHOWN_SHARE or held >= ENOUGH or len(names) == MOST_NAMES:
            break
        names.append(word)
        held += share
    return names


def quoted(word: str) -> str:
    """The word, in quotes where it has neither letters nor digits: a full stop in a sentence is hard to see."""
    return word if any(c.isalnum() for c in word) else f'"{word}"'


def find_phrase(worded: WordedRows, fired: np.ndarray) -> str:
    """Return the phrase in which a latent, or several, fires: its first word and what nearly always stands around it.

    It starts from the word that tells most and takes in the next word on either side as long as that is the same in
    FOLLOWS of the places. "" where the word stands in fewer than FEW_PLACES, or alone, or among other words each time.
    """
    shares = word_shares(worded, fired)
    if not shares:
        return ""
    owners = worded.rows.text_ids.numpy()
    first = np.flatnonzero(  # of each word its first token
        np.r_[True, (owners[1:] != owners[:-1]) | (worded.spans[1:, 0] != worded.spans[:-1, 0])]
    )
    word, owner = worded.word_ids[first], owners[first]
    wanted = worded.words.index(next(iter(shares)))
    hot = np.maximum.reduceat(fired, first) > 0
    low = high = np.flatnonzero((word == wanted) & hot)
    grown = True
    while grown and len(low) >= FEW_PLACES:
        grown = False
        for step in (1, -1):
            edge = (high if step > 0 else low) + step
            inside = (edge >= 0) & (edge < len(word))
            inside[inside] &= owner[edge[inside]] == owner[low[inside]]
            counts = np.bincount(word[edge[inside]], minlength=1)
            if counts.max() < FOLLOWS * len(low):
                continue
            kept = np.flatnonzero(inside)[word[edge[inside]] == counts.argmax()]
            low, high = low[kept], high[kept]
            low, high = (low, high + 1) if step > 0 else (low - 1, high)
            grown = True
    if len(low) < FEW_PLACES:
        return ""
    start, end = worded.spans[first[low[0]], 0], worded.spans[first[high[0]], 1]
    phrase = worded.texts[owner[low[0]]][start:end].strip(" .,;:")
    return phrase if len(re.findall(r"\w+", phrase)) > 1 else ""


def cut_out(worded: WordedRows, fired: np.ndarray) -> list[str]:
    """Return the texts without the words on which ``fired [n_rows]`` is above 0, and without what stands between two
    such words that are within BESIDE tokens of each other. A sentence of which little REMAINS goes as a whole.
    """
    owners, before = worded.rows.text_ids.numpy(), None
    kept = [np.ones(len(text), dtype=bool) for text in worded.texts]
    for row in np.flatnonzero(fired > 0):
        start, end = worded.spans[row]
        if before is not None and owners[before] == owners[row] and row - before <= BESIDE:
            start = worded.spans[before, 0]
        kept[owners[row]][start:end] = False
        before = row
    texts = list(worded.texts)
    for i in np.unique(owners[fired > 0]).tolist():
        for sentence in SENTENCE.finditer(texts[i]):
            inside = slice(*sentence.span())
            if kept[i][inside].mean() < REMAINS:
                kept[i][inside] = False
        texts[i] = "".join(itertools.compress(texts[i], kept[i])).strip()
    return texts


def find_contexts(
    worded: WordedRows, fired: np.ndarray, *, n_contexts: int, width: int = 60
) -> tuple[Context, ...]:
    """Return a latent's strongest texts: the strongest token with about ``width`` characters on either side.

    One context a text, strongest first. A word is marked as strongly as its strongest piece.
    """
    order = np.argsort(-fired, kind="stable")
    order = order[fired[order] > 0]
    owners = worded.rows.text_ids.numpy()
    contexts = []
    for owner in list(dict.fromkeys(owners[order].tolist()))[:n_contexts]:
        mine = slice(*np.searchsorted(owners, (owner, owner + 1)))
        strength = fired[mine] / float(fired[order[0]])
        contexts.append(_context(worded.texts[owner], worded.spans[mine], strength, width))
    return tuple(contexts)


def whole_word(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span of the word that the characters ``start`` to ``end`` are a piece of."""
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
        word = int(spans[i][0]), int(spans[i][1])
        words[word] = max(words.get(word, 0.0), float(strength[i]))
    top = spans[int(strength.argmax())].tolist()
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


def name_latents(
    sae: SparseAutoencoder, rows: Activations, texts: Sequence[str], ids: Sequence[int] | np.ndarray
) -> list[str]:
    """Return a name for each of the latents ``ids``: the words that hold most of its activation mass on ``texts``.

    Latents that say the same have one name: each joins the first one with which it shares SAME_WORDS of its mass.
    """
    worded = find_words(texts, rows)
    fired = firing(sae, rows.x, [int(i) for i in ids])
    shares = [word_shares(worded, column) for column in fired.T]
    groups: list[list[int]] = []
    for i, own in enumerate(shares):
        for group in groups:
            first = shares[group[0]]
            if sum(min(share, first.get(word, 0.0)) for word, share in own.items()) >= SAME_WORDS:
                group.append(i)
                break
        else:
            groups.append([i])
    names = [""] * len(shares)
    for group in groups:
        words = naming_words(word_shares(worded, fired[:, group].sum(axis=1)))
        for i in group:
            names[i] = " · ".join(map(quoted, words)) or f"latent {int(ids[i])}"
    return names
