"""What a choice of latents is held against: matched random latents."""

from collections.abc import Sequence

import numpy as np

from debias_ssae.core.errors import InputError

NEAREST = 10
"""A control is drawn among this many times as many that are most alike."""


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
