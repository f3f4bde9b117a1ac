"""Concept regime: no attribute labels; what changes when only the attribute's words change."""

from collections.abc import Sequence

import numpy as np
import torch

from debias_ssae.activations import Activations, LanguageModel, harvest
from debias_ssae.attribution.scores import CHUNK, LatentScores, corrected_p_values
from debias_ssae.concept import Concept
from debias_ssae.exceptions import InputError
from debias_ssae.sae.model import SparseAutoencoder

Spans = Sequence[tuple[int, int]]


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
    order = np.random.default_rng(random_state).permutation(len(texts))
    twins = concept.twins([texts[i] for i in order], limit=max_texts)
    if not twins:
        raise InputError(
            f"none of the {len(texts)} texts holds a word of the concept {concept.name!r} "
            f"({', '.join(list(concept.words)[:4])}, ...); give a concept whose words occur in the texts"
        )
    sides = []
    for wordings, spans in (
        ([t.text_a for t in twins], [t.spans_a for t in twins]),
        ([t.text_b for t in twins], [t.spans_b for t in twins]),
    ):
        rows = harvest(model, wordings, hookpoint, progress=progress)
        sides.append((rows, _word_of_row(rows, spans)))
    n_words = sum(len(t.spans_a) for t in twins)
    (a, in_a, fired_a), (b, in_b, fired_b) = (_word_means(sae, *side, n_words) for side in sides)
    whole = in_a & in_b  # a word cut off by the model's length limit has no pair
    if not whole.any():
        raise InputError("every swapped word lies beyond the model's length limit; raise max_length")
    return _scores((b - a)[whole], (a + b)[whole] / 2, (fired_a + fired_b) / 2, concept)


def _scores(change: np.ndarray, level: np.ndarray, firing_rate: np.ndarray, concept: Concept) -> LatentScores:
    mean, spread = change.mean(axis=0), change.std(axis=0)
    z = np.divide(mean * np.sqrt(len(change)), spread, out=np.zeros_like(mean), where=spread > 0)
    return LatentScores(
        method="counterfactual_contrast",
        score=np.abs(mean),
        sign=np.sign(mean),
        effect=mean[None],
        firing_rate=firing_rate,
        mass=level.mean(axis=0),
        p_value=corrected_p_values(z),
        values=concept.values,
    )


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


def _word_means(
    sae: SparseAutoencoder, rows: Activations, word: np.ndarray, n_words: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean latents of each word ``[n_words, d_sae]``, which words have rows, firing rate over those rows."""
    touched = np.flatnonzero(word >= 0)
    sums = torch.zeros(n_words, sae.cfg.d_sae)
    fired = torch.zeros(sae.cfg.d_sae)
    for start in range(0, len(touched), CHUNK):
        part = touched[start : start + CHUNK]
        with torch.no_grad():
            f = sae.encode(rows.x[torch.as_tensor(part)]).cpu()
        sums.index_add_(0, torch.as_tensor(word[part]), f)
        fired += (f > 0).sum(0)
    sizes = np.bincount(word[touched], minlength=n_words)
    means = sums.numpy() / np.maximum(sizes, 1)[:, None]
    return means, sizes > 0, (fired / max(len(touched), 1)).numpy()
