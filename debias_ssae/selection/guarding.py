"""The guard: a latent whose removal costs more of the target than of the attribute is kept out of the set.

Narrow SAEs merge what is correlated in their data into one latent ("feature hedging", Chanin et al. 2025, arXiv
2505.11756). Both costs are shares of a separation of two means (as in ``probe_attribution``), so they compare.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.selection.probing import probe_attribution, probe_direction
from debias_ssae.selection.scores import class_conditional_contrast

SIGNIFICANT = 0.05
"""A target effect counts below this p-value, corrected for the number of latents; an attribute effect always."""


@dataclass(frozen=True)
class Costs:
    """What removing each latent costs; arrays [d_sae]."""

    on_attribute: np.ndarray
    """Share of the attribute's separation that the latent carries, as a size."""
    on_target: np.ndarray
    """Share of the target's separation that is lost with it; 0 where not significant, or where it grows."""
    cos_attribute: np.ndarray
    """Of the decoder row with the attribute's direction (of several values: the closest)."""
    cos_target: np.ndarray
    """The same with the target's."""


@dataclass(frozen=True)
class Guarded:
    """What is left of the candidates."""

    kept: np.ndarray
    """Ids, in the order given."""
    hedged: list[dict[str, Any]]
    """The others, with both costs and cosines; JSON."""


def guard(latents: Sequence[int] | np.ndarray, costs: Costs, *, margin: float = 1.0) -> Guarded:
    """Keep the candidates ``latents`` whose removal costs at most ``margin`` times as much target as attribute.

    With costs from counterfactuals of confounded texts give 2: what a short list lacks counts as target there.
    """
    ids = np.asarray(latents, dtype=np.int64)
    dear = costs.on_target[ids] > margin * costs.on_attribute[ids]
    hedged = [
        {
            "latent": int(i),
            **{name: float(getattr(costs, name)[i]) for name in Costs.__dataclass_fields__},
        }
        for i in ids[dear]
    ]
    return Guarded(ids[~dear], hedged)


def costs_from_labels(
    latents: np.ndarray,
    firing_rate: np.ndarray,
    X: np.ndarray,
    W_dec: np.ndarray,
    z: np.ndarray,
    values: tuple[str, ...],
    y: np.ndarray,
    *,
    min_cell: int = 20,
) -> Costs:
    """Labelled regime: the attribute inside each class, the target inside each value of the attribute.

    ``latents`` [n, d_sae] and ``X`` [n, d_in] are a text's means at the hookpoint, ``z`` codes of ``values`` (-1
    unknown), ``y`` [n] the target. Raises InputError where cells are too small to tell the two apart.
    """
    known = np.asarray(z) >= 0
    latents, X, z, y = (np.asarray(a)[known] for a in (latents, X, z, y))
    classes, labels = np.unique(y, return_inverse=True)
    names = tuple(map(str, classes))
    attribute = probe_attribution(latents, firing_rate, X, W_dec, z, values, y, min_cell=min_cell)
    target = probe_attribution(latents, firing_rate, X, W_dec, labels, names, z, min_cell=min_cell)
    costly = (target.p_value < SIGNIFICANT) & (np.nansum(target.effect, axis=0) > 0)
    return Costs(
        on_attribute=attribute.score,
        on_target=np.where(costly, target.score, 0.0),
        cos_attribute=_closest(W_dec, _directions(X, z, y)),
        cos_target=_closest(W_dec, _directions(X, y, z)),
    )


def _directions(X: np.ndarray, values: np.ndarray, given: np.ndarray) -> list[np.ndarray]:
    """Of each value against the rest; one that stands in no class with others has none."""
    found = []
    for value in _one_side(np.unique(values)):
        with suppress(InputError):
            found.append(probe_direction(X, values == value, given)[0])
    return found


def costs_from_pairs(
    latents_a: np.ndarray,
    latents_b: np.ndarray,
    X_a: np.ndarray,
    X_b: np.ndarray,
    W_dec: np.ndarray,
    y: np.ndarray,
) -> Costs:
    """Concept regime, where the attribute may equal the target in all texts: directions from counterfactuals.

    ``latents_a``, ``latents_b`` [n, d_sae] and ``X_a``, ``X_b`` [n, d_in] are the means of the same texts in both
    versions, ``y`` [n] the target. The attribute's direction is the mean difference between counterfactuals: it
    needs no fit, and of the ways tried it carried furthest from a short list to words outside it. A latent's cost on
    the attribute is its change between counterfactuals or between classes, whichever is larger, along that direction:
    latents of words that the list lacks change between classes only. The target is probed on the mean of both
    versions, which agree in the listed words, and what its direction shares with the attribute's is taken out. Of
    more than two
    classes each is probed against the rest, and the cost is the mean.

    Raises InputError when the pairs do not differ or ``y`` has one class.
    """
    difference = (np.asarray(X_b) - X_a).mean(axis=0)
    size = float(np.linalg.norm(difference))
    if not size > 0:
        raise InputError(
            "both versions have the same means: the concept's words change nothing at this hookpoint"
        )
    attribute = difference / size
    latents, X, y = (np.asarray(latents_a) + latents_b) / 2, (np.asarray(X_a) + X_b) / 2, np.asarray(y)
    classes = np.unique(y)
    if len(classes) < 2:
        raise InputError(f"y holds one class only ({classes[0]!r}); the guard needs a target to protect")
    reach = np.abs((latents_b - latents_a).mean(axis=0))
    on_target, directions = np.zeros(len(W_dec)), []
    sides = _one_side(classes)
    for c in sides:
        inside = y == c
        contrast = class_conditional_contrast(
            latents, np.zeros(len(W_dec)), inside.astype(int), ("rest", str(c)), min_cell=1
        )
        change = contrast.effect[0]
        direction, _ = probe_direction(X, inside)
        direction = direction - (direction @ attribute) * attribute
        separation = float(direction @ (X[inside].mean(axis=0) - X[~inside].mean(axis=0)))
        reach = np.maximum(reach, np.abs(change))
        directions.append(direction / max(float(np.linalg.norm(direction)), 1e-12))
        if separation > 0:
            share = np.maximum(change * (W_dec @ direction) / separation, 0.0)
            on_target += np.where(contrast.p_value < SIGNIFICANT, share, 0.0) / len(sides)
    return Costs(
        on_attribute=reach * np.abs(W_dec @ attribute) / size,
        on_target=on_target,
        cos_attribute=_closest(W_dec, [attribute]),
        cos_target=_closest(W_dec, directions),
    )


def _one_side(values: np.ndarray) -> np.ndarray:
    """Of two values the second says all."""
    return values[1:] if len(values) == 2 else values


def _closest(W_dec: np.ndarray, directions: list[np.ndarray]) -> np.ndarray:
    """Signed cosine [d_sae] of each row of ``W_dec`` with the unit direction it is closest to."""
    norms = np.maximum(np.linalg.norm(W_dec, axis=1), 1e-12)
    cosines = np.asarray(W_dec) @ np.stack(directions, axis=1) / norms[:, None]
    return cosines[np.arange(len(cosines)), np.abs(cosines).argmax(axis=1)]
