"""From a short list of words to the whole concept: what else stands where a probe of the listed words fires."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from debias_ssae.selection.absorption import TokenProbe
from debias_ssae.selection.scores import LatentScores, corrected_p_values


def propagate(
    scores: LatentScores, blocks: Iterable[tuple[np.ndarray, np.ndarray]], probe: TokenProbe
) -> LatentScores:
    """Add what the listed words' probe finds in other tokens to ``scores`` of the listed words themselves.

    ``blocks`` yields tokens ``x`` [c, d_in] outside the list with their latents [c, d_sae]. A latent's change is
    its mean where the probe fires for value b less its mean where it fires for value a; the new score is the old
    one plus the size of the change, each divided by its largest. ``effect`` gets the change as one more row, and
    ``p_value`` the smaller of both, doubled. Where the probe does not fire for both values nothing is added.
    """
    n_latents = len(scores.score)
    count, total, squares = np.zeros(2), np.zeros((2, n_latents)), np.zeros((2, n_latents))
    for x, latents in blocks:
        projection = probe.project(x)
        fires = probe.fires(projection)
        for side, here in enumerate((fires & (projection < 0), fires & (projection > 0))):
            fired = np.asarray(latents)[here].astype(np.float64)
            count[side] += len(fired)
            total[side] += fired.sum(axis=0)
            squares[side] += np.square(fired).sum(axis=0)
    if not count.all():
        return scores
    mean = total / count[:, None]
    change = mean[1] - mean[0]
    variance = (np.maximum(squares / count[:, None] - mean**2, 0) / count[:, None]).sum(axis=0)
    z = np.divide(change, np.sqrt(variance), out=np.zeros(n_latents), where=variance > 0)
    return replace(
        scores,
        method=f"{scores.method}, propagated",
        score=_relative(scores.score) + _relative(np.abs(change)),
        sign=np.where(_relative(np.abs(change)) > _relative(scores.score), np.sign(change), scores.sign),
        effect=np.concatenate([scores.effect, change[None]]),
        p_value=np.minimum(2 * np.minimum(scores.p_value, corrected_p_values(z)), 1.0),
    )


def _relative(size: np.ndarray) -> np.ndarray:
    return size / max(float(size.max()), 1e-300)
