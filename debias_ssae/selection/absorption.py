"""Absorption: tokens that carry the concept while the chosen latents do not, and which latents do there.

Arrays only. A latent for "she" may stay silent on "actress", because a latent for that word has absorbed the
concept (Chanin et al. 2024, arXiv 2409.14507). The test is the projection form of SAEBench's absorption
fraction: silent means to carry less than a share of the token's projection onto the probe's direction, because
among many chosen latents one is nearly always a little active.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.sae.evaluation.absorption import SHARE

Floats = NDArray[np.floating[Any]]
CHUNK = 8192
"""Tokens taken at a time in float64."""
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


@dataclass(frozen=True)
class Filler:
    """A latent that carries the concept where the chosen ones do not."""

    latent: int
    n_holes: int
    """Holes in which it alone carries the asked share of the projection."""
    cosine: float
    """Of its decoder row with the probe's direction."""
    precision: float
    """Share of the tokens on which it is active where the probe fires."""


@dataclass(frozen=True)
class AbsorptionReport:
    """Holes before and after the fillers join the chosen latents."""

    n_tokens: int
    n_fires: int
    """Tokens on which the probe fires."""
    n_holes: int
    """Firing tokens on which the chosen latents together carry less than the asked share."""
    n_silent: int
    """Holes in which no chosen latent is active at all (Chanin's stricter rule)."""
    hole_rate_before: float
    """Share of the firing tokens that are holes."""
    hole_rate_after: float
    """The same with the fillers among the chosen."""
    fillers: tuple[Filler, ...]
    """Most holes first."""

    @property
    def latents(self) -> NDArray[np.int64]:
        """Ids of the fillers."""
        return np.array([f.latent for f in self.fillers], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"fillers": [asdict(f) for f in self.fillers]}


def fit_token_probe(a: Floats, b: Floats, neutral: Floats, *, shrinkage: float = 0.3) -> TokenProbe:
    """Fit a probe on the words of counterfactual pairs: ``a`` and ``b`` [m, d_in] are the same places in both
    pairs, ``neutral`` [k, d_in] tokens outside the concept.

    The direction is the mean difference in the metric of the tokens' covariance (Fisher), shrunk towards a
    sphere. A limit lies half-way from the centre to the typical word of that value, at least three robust
    standard deviations of the neutral tokens away: what the list does not hold may stand among them.

    Raises InputError on shapes that do not fit, or when the pairs do not differ.
    """
    a, b, neutral = (np.asarray(x) for x in (a, b, neutral))
    if (
        a.ndim != 2
        or a.shape != b.shape
        or neutral.shape[1:] != a.shape[1:]
        or not len(a)
        or len(neutral) < 2
    ):
        raise InputError(
            f"a token probe needs pairs a, b [m, d] and two or more neutral tokens [k, d], "
            f"got {a.shape}, {b.shape} and {neutral.shape}"
        )
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


def holes(
    fires: NDArray[np.bool_], projection: Floats, chosen: Floats, along: Floats, *, share: float = SHARE
) -> NDArray[np.bool_]:
    """Return the tokens [n] where the probe ``fires`` [n] and the chosen latents carry less than ``share``.

    ``chosen`` [n, m] are their activations, ``along`` [m] their decoder rows times the probe's direction, and
    ``projection`` [n] is the probe's.
    """
    # multiplied out, so that a token that does not fire may have projection 0
    return fires & (np.asarray(chosen) @ along * np.sign(projection) < share * np.abs(projection))


def fill_holes(
    blocks: Iterable[tuple[Floats, Floats]],
    W_dec: Floats,
    probe: TokenProbe,
    chosen: Sequence[int] | NDArray[np.integer[Any]],
    *,
    share: float = SHARE,
    cosine: float = 0.1,
    precision: float = 0.5,
    min_holes: int = 3,
    tokens: tuple[int, NDArray[np.integer[Any]]] | None = None,
) -> AbsorptionReport:
    """Find the latents that alone carry ``share`` of the projection where the chosen ones carry less.

    ``blocks`` yields tokens ``x`` [c, d_in] with all their latents [c, d_sae]; one pass, so memory holds a block
    and the active latents of the holes. ``W_dec`` is [d_sae, d_in]. A latent joins when its decoder row's cosine
    with the direction is at least ``cosine`` in size, it fills ``min_holes`` holes, and the probe fires on at
    least the share ``precision`` of the tokens it is active on (else it is a common word's latent that leans on
    the concept).

    ``tokens`` says how many there are and on how many each latent is active [d_sae], where ``blocks`` hold those alone
    at which the probe fires: the others count for nothing else.

    Raises InputError when blocks, ``W_dec`` and ``chosen`` do not fit.
    """
    W_dec, ids = np.asarray(W_dec), np.asarray(list(chosen), dtype=np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(W_dec):
        raise InputError(
            f"chosen latents must be numbers from 0 to {len(W_dec) - 1}, got {ids.min()} to {ids.max()}"
        )
    along = W_dec @ probe.direction
    cosines = along / np.maximum(np.linalg.norm(W_dec, axis=1), 1e-12)
    seen = _Seen(along, np.abs(cosines) >= cosine, ids, share)
    for x, latents in blocks:
        seen.add(probe, x, np.asarray(latents))
    if tokens is not None:
        # counted in other blocks, where a borderline activation may fall on the other side of 0
        seen.n_tokens, seen.active = tokens[0], np.maximum(tokens[1], seen.active)
    precisions = seen.active_firing / np.maximum(seen.active, 1)
    joins = (seen.filled >= min_holes) & (precisions >= precision)
    order = [int(i) for i in np.argsort(-seen.filled, kind="stable") if joins[i]]
    return AbsorptionReport(
        n_tokens=seen.n_tokens,
        n_fires=seen.n_fires,
        n_holes=seen.n_holes,
        n_silent=seen.n_silent,
        hole_rate_before=seen.n_holes / max(seen.n_fires, 1),
        hole_rate_after=seen.n_holes_with(joins) / max(seen.n_fires, 1),
        fillers=tuple(Filler(i, int(seen.filled[i]), float(cosines[i]), float(precisions[i])) for i in order),
    )


class _Seen:
    """Counts over the blocks so far, and the sparse shares of the latents in the holes."""

    def __init__(
        self, along: Floats, aligned: NDArray[np.bool_], chosen: NDArray[np.int64], share: float
    ) -> None:
        self.along, self.chosen, self.share = along, chosen, share
        self.may_fill = aligned.copy()
        self.may_fill[chosen] = False
        self.n_tokens = self.n_fires = self.n_holes = self.n_silent = 0
        self.active, self.active_firing, self.filled = np.zeros((3, len(along)), dtype=np.int64)
        self.carried_by_chosen: list[Floats] = []
        self.entries: list[tuple[NDArray[np.int32], NDArray[np.int32], Floats]] = []

    def add(self, probe: TokenProbe, x: Floats, latents: Floats) -> None:
        if latents.shape != (len(x), len(self.along)):
            raise InputError(
                f"a block of {len(x)} tokens needs latents {(len(x), len(self.along))}, got {latents.shape}"
            )
        projection = probe.project(x)
        fires = probe.fires(projection)
        chosen = latents[:, self.chosen]
        hole = np.flatnonzero(holes(fires, projection, chosen, self.along[self.chosen], share=self.share))
        on = latents > 0
        self.active += on.sum(axis=0)
        self.active_firing += on[fires].sum(axis=0)
        # positive only where the latent writes towards the side on which the probe fired
        shares = latents[hole] * (self.along / projection[hole, None])
        self.filled += ((shares >= self.share) & self.may_fill).sum(axis=0)
        rows, columns = np.nonzero(on[hole] & self.may_fill)
        self.entries.append(
            ((rows + self.n_holes).astype(np.int32), columns.astype(np.int32), shares[rows, columns])
        )
        self.carried_by_chosen.append(shares[:, self.chosen].sum(axis=1))
        self.n_silent += int((~on[hole][:, self.chosen].any(axis=1)).sum())
        self.n_tokens, self.n_fires = self.n_tokens + len(x), self.n_fires + int(fires.sum())
        self.n_holes += len(hole)

    def n_holes_with(self, joins: NDArray[np.bool_]) -> int:
        """How many holes are left when the latents ``joins`` [d_sae] carry as well."""
        if not self.n_holes:
            return 0
        carried = np.concatenate(self.carried_by_chosen)
        rows, columns, shares = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        inside = joins[columns]
        carried = carried + np.bincount(rows[inside], weights=shares[inside], minlength=self.n_holes)
        return int((carried < self.share).sum())
