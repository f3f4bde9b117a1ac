"""From the listed words to others that mean the same: a probe of the list, and what it finds in other tokens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.selection.scores import CHUNK, LatentScores, corrected_p_values

Floats = NDArray[np.floating[Any]]
_NORMAL_MAD = 0.6745  # median absolute deviation of a standard normal


@dataclass(frozen=True)
class TokenProbe:
    """Where a token stands between the two values of a concept. It fires at or beyond either limit."""

    direction: Floats
    """[d_in], length 1, from value a to value b."""
    center: Floats
    """[d_in], the mean of tokens that hold no word of the concept."""
    limits: tuple[float, float]
    """Projections, below and above 0, from which value a and value b count as present."""

    def project(self, x: Floats) -> Floats:
        """Return the signed projection [n] of tokens ``x`` [n, d_in] onto the direction, from the centre."""
        return _along(np.asarray(x), self.center, self.direction)

    def fires(self, projection: Floats) -> NDArray[np.bool_]:
        """Return where projections [n] reach a limit."""
        return (projection <= self.limits[0]) | (projection >= self.limits[1])


def fit_token_probe(a: Floats, b: Floats, neutral: Floats, *, shrinkage: float = 0.3) -> TokenProbe:
    """Fit a probe on the words of counterfactual pairs: ``a`` and ``b`` [m, d_in] are the same places in both
    pairs, ``neutral`` [k, d_in] tokens outside the concept.

    The direction is the mean difference in the metric of the tokens' covariance (Fisher), shrunk towards a
    sphere. A limit lies half-way from the centre to the typical word of that value, at least three robust
    standard deviations of the neutral tokens away: what the list does not hold may stand among them.

    Raises InputError when the pairs do not differ.
    """
    means = [side.mean(axis=0, dtype=np.float64) for side in (a, b, neutral)]
    difference, center = means[1] - means[0], means[2]
    if not np.linalg.norm(difference) > 0:
        raise InputError("both versions have the same activations: the concept's words change nothing here")
    scatter = np.sum([_scatter(x, mean) for x, mean in zip((a, b, neutral), means, strict=True)], axis=0)
    covariance = scatter / (2 * len(a) + len(neutral))
    sphere = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + (shrinkage * sphere + 1e-12) * np.eye(len(covariance))
    direction = np.linalg.solve(covariance, difference)
    direction /= np.linalg.norm(direction)
    at_a, at_b, at_neutral = (_along(side, center, direction) for side in (a, b, neutral))
    spread = float(np.median(np.abs(at_neutral - np.median(at_neutral)))) / _NORMAL_MAD
    low, high = float(np.median(at_a)), float(np.median(at_b))
    return TokenProbe(direction, center, (min(low / 2, -3 * spread), max(high / 2, 3 * spread)))


def _along(x: Floats, center: Floats, direction: Floats) -> Floats:
    return np.concatenate([(part - center) @ direction for part in _chunks(x)])


def _scatter(x: Floats, mean: Floats) -> Floats:
    """Sum of the outer products of the rows less ``mean``."""
    total = np.zeros((len(mean), len(mean)))
    for part in _chunks(x):
        inside = part - mean
        total += inside.T @ inside
    return total


def _chunks(x: Floats) -> Iterator[Floats]:
    """There may be millions of rows, and float64 doubles them."""
    yield from (x[start : start + CHUNK] for start in range(0, max(len(x), 1), CHUNK))


def propagate(
    scores: LatentScores, n_listed: int, blocks: Iterable[tuple[np.ndarray, np.ndarray]], probe: TokenProbe
) -> LatentScores:
    """Add what the listed words' probe finds in other tokens to ``scores`` of the ``n_listed`` listed words themselves.

    ``blocks`` yields tokens ``x`` [c, d_in] outside the list with their latents [c, d_sae]. A latent's change is
    its mean where the probe fires for value b less its mean where it fires for value a; the new score is the mean
    of both changes' sizes over all words, listed and found: a few found words cannot outweigh thousands of listed
    ones, nor the other way round. ``effect`` gets the change as one more row, and ``p_value`` the smaller of both,
    doubled. Where the probe does not fire for both values nothing is added.
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
    listed, found = n_listed * scores.score, count.sum() * np.abs(change)
    return replace(
        scores,
        method=f"{scores.method}, propagated",
        score=(listed + found) / (n_listed + count.sum()),
        sign=np.where(found > listed, np.sign(change), scores.sign),
        effect=np.concatenate([scores.effect, change[None]]),
        p_value=np.minimum(2 * np.minimum(scores.p_value, corrected_p_values(z)), 1.0),
    )
