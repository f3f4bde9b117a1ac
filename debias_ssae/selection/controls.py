"""The controls without which a choice of latents means nothing: alike in all but meaning."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.text.concept import Concept

NEAREST = 10
"""A control is drawn among this many times as many that are most alike."""
N_SWAPS = 64
"""Pairs of words of the control by random swaps."""


def random_swaps(texts: Sequence[str], concept: Concept, *, random_state: int | None = None) -> Concept:
    """Return a concept of N_SWAPS pairs of other words that occur, together, about as often in ``texts`` as its own.

    Many pairs, so that no meaning adds up: what answers to these answers to any change of words. Raises
    InputError when the texts have too few words.
    """
    counts = Counter(word for text in texts for word in re.findall(r"[^\W\d_]+", text.casefold()))
    listed = {part for word in concept.words for part in word.casefold().split()}
    free = sorted(set(counts) - listed)
    if len(free) < 2 * N_SWAPS:
        raise InputError(f"the texts have {len(free)} other words, too few for {N_SWAPS} random swaps")
    wanted = sum(counts[word] for word in listed) / (2 * N_SWAPS)
    distance = np.abs(np.log1p([counts[word] for word in free]) - np.log1p(wanted))
    alike = np.argsort(distance, kind="stable")[: NEAREST * N_SWAPS]
    drawn = np.random.default_rng(random_state).permutation(alike)[: 2 * N_SWAPS]
    words = [free[i] for i in drawn]
    return Concept.from_words(list(zip(words[::2], words[1::2], strict=True)), name="random swaps")


def matched_random_latents(
    chosen: Sequence[int] | np.ndarray,
    firing_rate: np.ndarray,
    mass: np.ndarray,
    *,
    random_state: int | None = None,
) -> np.ndarray:
    """Return as many latents as ``chosen``, disjoint from them, matched in firing rate and mean activation.

    Each chosen latent, in random order, takes one of its NEAREST free neighbours in standardised
    (log firing rate, log mass). Arrays are ``[d_sae]``. Raises InputError when fewer latents are free than chosen.
    """
    wanted = np.asarray(chosen, dtype=int)
    rng = np.random.default_rng(random_state)
    place = np.column_stack([np.log(firing_rate + 1e-6), np.log(mass + 1e-9)])
    place = (place - place.mean(axis=0)) / np.maximum(place.std(axis=0), 1e-12)
    free = np.setdiff1d(np.arange(len(firing_rate)), wanted)
    if len(free) < len(wanted):
        raise InputError(
            f"{len(wanted)} of {len(firing_rate)} latents are chosen: too few are left for a control"
        )
    picked = []
    for latent in rng.permutation(wanted):
        distance = np.square(place[free] - place[latent]).sum(axis=1)
        near = np.argsort(distance, kind="stable")[: min(NEAREST, len(free))]
        taken = rng.choice(near)
        picked.append(int(free[taken]))
        free = np.delete(free, taken)
    return np.array(picked, dtype=int)
