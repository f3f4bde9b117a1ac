"""Concept regime: no attribute labels; what changes when only the attribute's words change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from debias_ssae.activations import Activations, LanguageModel, harvest
from debias_ssae.attribution.scores import LatentScores, corrected_p_values, pooled_latents
from debias_ssae.concept import Concept
from debias_ssae.exceptions import InputError
from debias_ssae.sae.model import SparseAutoencoder

Spans = Sequence[tuple[int, int]]
WORDS = 1024
"""Swapped words encoded at a time; bounds the dense latents."""


def counterfactual_contrast(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    concept: Concept,
    *,
    hookpoint: str = "embeddings",
    max_texts: int = 2000,
    random_state: int | None = None,
    progress: bool = False,
) -> LatentScores:
    """Score latents by the signed change between counterfactual twins, in context.

    For each swapped word, the difference of the latents' mean over its tokens: value b minus value a. The score
    is the absolute mean over all swapped words of at most ``max_texts`` texts, so a latent that answers to
    whichever word happens to stand there cancels out.

    Raises InputError when no text holds a word of the concept.
    """
    options: dict[str, Any] = {"max_texts": max_texts, "random_state": random_state, "progress": progress}
    return harvest_twins(model, texts, concept, hookpoint, **options).contrast(sae)


def harvest_twins(
    model: LanguageModel,
    texts: Sequence[str],
    concept: Concept,
    hookpoint: str = "embeddings",
    *,
    max_texts: int = 2000,
    random_state: int | None = None,
    **options: Any,
) -> "TwinRows":
    """Run at most ``max_texts`` of ``texts``, in random order, in both wordings up to ``hookpoint``.

    ``options`` (max_length, token_budget, progress) go to ``harvest``.
    Raises InputError when no text holds a word of the concept.
    """
    concept.check_occurs(texts)
    order = np.random.default_rng(random_state).permutation(len(texts))
    twins = concept.twins([texts[i] for i in order], limit=max_texts)
    a = harvest(model, [t.text_a for t in twins], hookpoint, **options)
    b = harvest(model, [t.text_b for t in twins], hookpoint, **options)
    return TwinRows(
        source=order[[t.index for t in twins]],
        a=_Side.of(a, [t.spans_a for t in twins]),
        b=_Side.of(b, [t.spans_b for t in twins]),
        n_words=sum(len(t.spans_a) for t in twins),
        values=concept.values,
    )


class _Side(NamedTuple):
    """One wording of all twins: its rows, and those that belong to a swapped word, in order."""

    rows: Activations
    touched: np.ndarray
    word: np.ndarray

    @classmethod
    def of(cls, rows: Activations, spans: Sequence[Spans]) -> "_Side":
        word = _word_of_row(rows, spans)
        touched = np.flatnonzero(word >= 0)
        return cls(rows, touched, word[touched])

    def at_words(self) -> "_Side":
        """The swapped words' rows alone."""
        at = torch.from_numpy(self.touched)
        names = ("x", "text_ids", "token_ids", "offsets")
        rows = replace(self.rows, **{name: getattr(self.rows, name)[at] for name in names})
        return _Side(rows, np.arange(len(at)), self.word)

    def word_means(self, sae: SparseAutoencoder, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean latents of the words ``first`` to ``stop``, and which of them have rows."""
        low, high = np.searchsorted(self.word, (first, stop))
        word = self.word[low:high] - first
        sums = torch.zeros(stop - first, sae.cfg.d_sae)
        if high > low:
            with torch.no_grad():
                f = sae.encode(self.rows.x[torch.as_tensor(self.touched[low:high])]).float().cpu()
            sums.index_add_(0, torch.as_tensor(word), f)
        sizes = np.bincount(word, minlength=stop - first)
        return sums.numpy() / np.maximum(sizes, 1)[:, None], sizes > 0


class TwinRows(NamedTuple):
    """The rows of texts in both wordings."""

    source: np.ndarray
    """Which of the texts given each twin is."""
    a: _Side
    b: _Side
    n_words: int
    values: tuple[str, str]

    def change(self, sae: SparseAutoencoder) -> tuple[np.ndarray, np.ndarray]:
        """Mean change of ``sae``'s latents over the words ``[d_sae]``, b - a, and its z statistic.

        Raises InputError where every word was cut off.
        """
        mean, z, n = _change(sae, self.a, self.b, self.n_words)
        if n == 0:
            raise InputError("every swapped word lies beyond the model's length limit; raise max_length")
        return mean, z

    def contrast(
        self, sae: SparseAutoencoder, pooled: tuple[np.ndarray, np.ndarray] | None = None
    ) -> LatentScores:
        """The counterfactual contrast of ``sae``'s latents; ``pooled``: ``pooled_latents(sae, self.a.rows)``, where
        it is known. Raises InputError where every word was cut off.
        """
        mean, z = self.change(sae)
        latents, firing_rate = pooled or pooled_latents(sae, self.a.rows)
        return LatentScores(
            method="counterfactual_contrast",
            score=np.abs(mean),
            sign=np.sign(mean),
            effect=mean[None],
            firing_rate=firing_rate,
            mass=latents.mean(axis=0),
            p_value=corrected_p_values(z),
            values=self.values,
        )

    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean rows of each swapped word in both wordings ``[m, d]``; words without a row in one are left out."""
        (a, in_a), (b, in_b) = (_means(side, self.n_words) for side in (self.a, self.b))
        both = in_a & in_b
        return a[both], b[both]

    def at_words(self) -> "TwinRows":
        """The same with the swapped words' rows alone, which is all that ``change`` asks for."""
        return self._replace(a=self.a.at_words(), b=self.b.at_words())

    def others(self) -> Tensor:
        """Rows of the tokens outside the list ``[k, d]``, in wording a."""
        outside = np.ones(len(self.a.rows.x), dtype=bool)
        outside[self.a.touched] = False
        return self.a.rows.x[torch.from_numpy(outside)]


def _means(side: _Side, n_words: int) -> tuple[np.ndarray, np.ndarray]:
    sums = torch.zeros(n_words, side.rows.x.shape[1])
    sums.index_add_(0, torch.from_numpy(side.word), side.rows.x[torch.from_numpy(side.touched)])
    sizes = np.bincount(side.word, minlength=n_words)
    return sums.numpy() / np.maximum(sizes, 1)[:, None], sizes > 0


def _change(sae: SparseAutoencoder, a: _Side, b: _Side, n_words: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean change b - a over words ``[d_sae]``, its z statistic, and how many words have both wordings."""
    total, squares, n = np.zeros(sae.cfg.d_sae), np.zeros(sae.cfg.d_sae), 0
    for first in range(0, n_words, WORDS):
        stop = min(first + WORDS, n_words)
        (mean_a, in_a), (mean_b, in_b) = a.word_means(sae, first, stop), b.word_means(sae, first, stop)
        # a word that the length limit cuts off in one wording has no pair
        change = (mean_b - mean_a)[in_a & in_b]
        total, squares, n = total + change.sum(axis=0), squares + (change**2).sum(axis=0), n + len(change)
    mean = total / max(n, 1)
    spread = np.sqrt(np.maximum(squares / max(n, 1) - mean**2, 0))
    z = np.divide(mean * np.sqrt(n), spread, out=np.zeros_like(mean), where=spread > 0)
    return mean, z, n


def _word_of_row(rows: Activations, spans: Sequence[Spans]) -> np.ndarray:
    """For each row, the index of the swapped word it belongs to, or -1."""
    first = np.cumsum([0, *(len(s) for s in spans)])
    starts = np.searchsorted(rows.text_ids.numpy(), np.arange(len(spans) + 1))
    offsets = rows.offsets.numpy()
    word = np.full(len(offsets), -1)
    for i, text_spans in enumerate(spans):
        here = offsets[starts[i] : starts[i + 1]]
        for j, (begin, end) in enumerate(text_spans):
            touched = (here[:, 0] < end) & (here[:, 1] > begin)
            word[starts[i] : starts[i + 1]][touched] = first[i] + j
    return word
