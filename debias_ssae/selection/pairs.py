"""Counterfactual pairs at a hookpoint: what changes when only the attribute's words change. No attribute labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations, LanguageModel, harvest
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.naming import whole_word
from debias_ssae.selection.propagation import TokenProbe, fit_token_probe
from debias_ssae.selection.scores import LatentScores, corrected_p_values, pooled_latents
from debias_ssae.text.concept import Concept

Spans = Sequence[tuple[int, int]]
WORDS = 1024
"""Swapped words encoded at a time; bounds the dense latents."""


def harvest_pairs(
    model: LanguageModel,
    texts: Sequence[str],
    concept: Concept,
    hookpoint: str = "embeddings",
    *,
    max_texts: int = 2000,
    random_state: int | None = None,
) -> "PairActivations":
    """Run at most ``max_texts`` of ``texts``, in random order, in both versions up to ``hookpoint``.

    Raises InputError when no text holds a word of the concept.
    """
    concept.check_occurs(texts)
    order = np.random.default_rng(random_state).permutation(len(texts))
    counterfactuals = concept.counterfactual_pairs([texts[i] for i in order], limit=max_texts)
    a = harvest(model, [t.text_a for t in counterfactuals], hookpoint)
    b = harvest(model, [t.text_b for t in counterfactuals], hookpoint)
    word_a, word_b = (
        _word_of_row(a, [t.spans_a for t in counterfactuals]),
        _word_of_row(b, [t.spans_b for t in counterfactuals]),
    )
    return PairActivations(
        texts=[t.text_a for t in counterfactuals],
        a=a,
        b=b,
        words_a=_Words.of(a, word_a),
        words_b=_Words.of(b, word_b),
        versions=np.array([t.values for t in counterfactuals for _ in t.spans_a]).reshape(-1, 2),
        listed=word_a >= 0,
        values=concept.values,
    )


class _Words(NamedTuple):
    """The rows of one version that belong to a swapped word, in the words' order."""

    x: Tensor
    word: np.ndarray
    """Which word each row belongs to."""

    @classmethod
    def of(cls, rows: Activations, word: np.ndarray) -> "_Words":
        at = np.flatnonzero(word >= 0)
        return cls(rows.x[torch.from_numpy(at)], word[at])

    def latent_means(self, sae: SparseAutoencoder, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean latents of the words ``first`` to ``stop``, and which of them have rows."""
        low, high = np.searchsorted(self.word, (first, stop))
        latents = torch.zeros(0, sae.cfg.d_sae)
        if high > low:
            with torch.no_grad():
                latents = sae.encode(self.x[low:high]).float().cpu()
        return _grouped(latents, self.word[low:high] - first, stop - first)


class Others(NamedTuple):
    """Tokens outside the list, of which only those count at which the listed words' probe fires."""

    probe: TokenProbe
    firing: Tensor
    """Rows ``[m, d]`` of those that are whole words: a piece of *meniscus* does not speak of men."""


@dataclass(frozen=True, eq=False)
class PairActivations:
    """The rows of texts in both versions, the swapped words among them, and what else stands there."""

    texts: Sequence[str]
    """Version a."""
    a: Activations
    b: Activations
    words_a: _Words
    words_b: _Words
    versions: np.ndarray
    """Indices of the two values that each swapped word shows, in a and in b ``[n_words, 2]``."""
    listed: np.ndarray
    """Which rows of version a belong to a word of the list."""
    values: tuple[str, ...]

    @property
    def n_words(self) -> int:
        return len(self.versions)

    def unlisted(self) -> Tensor:
        """Rows of the tokens outside the list ``[k, d]``, in version a."""
        return self.a.x[torch.from_numpy(~self.listed)]

    def is_whole_word(self, row: int) -> bool:
        """Whether this row of version a is a word, and not a piece of one."""
        start, end = self.a.offsets[row].tolist()
        low, high = whole_word(self.texts[int(self.a.text_ids[row])], start, end)
        return low >= start and high <= end

    @cached_property
    def others(self) -> Others | None:
        """None where there are no others, no word in both versions, or more than two values: its probe has two ends."""
        rows, (words_a, words_b) = self.unlisted(), self.means()
        if len(self.values) > 2 or len(rows) < 2 or not len(words_a):
            return None
        probe = fit_token_probe(words_a, words_b, rows.numpy())
        at = np.flatnonzero(~self.listed)[probe.fires(probe.project(rows.numpy()))]
        whole = at[[self.is_whole_word(row) for row in at.tolist()]] if len(at) else at
        return Others(probe, self.a.x[torch.from_numpy(whole)])

    def change(self, sae: SparseAutoencoder, towards: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Mean change of ``sae``'s latents ``[d_sae]`` towards one value, over the words that show it in one version,
        and its z statistic; of two values the second, so b - a.

        Raises InputError where every word was cut off.
        """
        if not len(self.means()[0]):
            raise InputError("every swapped word lies beyond the model's length limit; raise max_length")
        total, squares, n = np.zeros(sae.cfg.d_sae), np.zeros(sae.cfg.d_sae), 0
        sign = (self.versions[:, 1] == towards).astype(float) - (self.versions[:, 0] == towards)
        for first in range(0, self.n_words, WORDS):
            stop = min(first + WORDS, self.n_words)
            (mean_a, in_a), (mean_b, in_b) = (
                side.latent_means(sae, first, stop) for side in (self.words_a, self.words_b)
            )
            # a word that the length limit cuts off in one version has no pair
            used = np.flatnonzero(in_a & in_b & (sign[first:stop] != 0))
            change = (mean_b - mean_a)[used] * sign[first:stop][used, None]
            total, squares, n = total + change.sum(axis=0), squares + (change**2).sum(axis=0), n + len(change)
        mean = total / max(n, 1)
        spread = np.sqrt(np.maximum(squares / max(n, 1) - mean**2, 0))
        return mean, np.divide(mean * np.sqrt(n), spread, out=np.zeros_like(mean), where=spread > 0)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean rows of each swapped word in both versions ``[m, d]``; words without a row in one are left out."""
        (a, in_a), (b, in_b) = (_grouped(*side, self.n_words) for side in (self.words_a, self.words_b))
        return a[in_a & in_b], b[in_a & in_b]

    def contrast(
        self, sae: SparseAutoencoder, pooled: tuple[np.ndarray, np.ndarray] | None = None
    ) -> LatentScores:
        """Score ``sae``'s latents by the signed change between the versions, in context.

        For each swapped word, the difference of the latents' mean over its tokens: value b minus value a. The score
        is the absolute mean over all swapped words, so a latent that responds to whichever word happens to stand there
        cancels out. Of more than two values, each is set against the values that stood in its place (the mean change
        towards it), and the largest over values counts, as with labels. ``pooled``: ``pooled_latents(sae, self.a)``,
        where it is known. Raises InputError where every word was cut off.
        """
        towards = [1] if len(self.values) == 2 else range(len(self.values))
        means, zs = (
            np.stack(rows) for rows in zip(*(self.change(sae, value) for value in towards), strict=True)
        )
        at = (np.abs(means).argmax(axis=0), np.arange(means.shape[1]))
        mean, z = means[at], zs[at]
        latents, firing_rate = pooled or pooled_latents(sae, self.a)
        return LatentScores(
            method="counterfactual_contrast",
            score=np.abs(mean),
            sign=np.sign(mean),
            effect=mean[None],
            firing_rate=firing_rate,
            mass=latents.mean(axis=0),
            p_value=np.minimum(corrected_p_values(z) * len(means), 1.0),
            values=self.values,
        )


def _grouped(x: Tensor, group: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the rows of each group ``[n, d]``, and which groups have any."""
    sums = torch.zeros(n, x.shape[1]).index_add_(0, torch.from_numpy(group), x)
    sizes = np.bincount(group, minlength=n)
    return sums.numpy() / np.maximum(sizes, 1)[:, None], sizes > 0


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
