"""Scores from probes: how much of a probe's separation each latent carries."""

from contextlib import suppress
from dataclasses import replace

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.selection.scores import LatentScores, class_conditional_contrast


def probe_direction(X: np.ndarray, z: np.ndarray, y: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Return the direction [d], of length 1, that tells ``z`` (True, False; [n]) apart inside each class of
    ``y``, and the separation of the two means along it.

    Fisher's: the pooled mean difference of ``X`` [n, d] inside the classes, in the metric of the covariance
    inside the cells, shrunk by Ledoit and Wolf (2004). Raises InputError when no class holds both values.
    """
    from sklearn.covariance import ledoit_wolf

    X, z = np.asarray(X, dtype=np.float64), np.asarray(z, dtype=bool)
    y = np.zeros(len(z), dtype=int) if y is None else np.asarray(y)
    difference, total, inside = np.zeros(X.shape[1]), 0.0, []
    for c in np.unique(y):
        here, there = X[(y == c) & z], X[(y == c) & ~z]
        if len(here) == 0 or len(there) == 0:
            continue
        weight = _weight(len(here), len(there))
        difference += weight * (here.mean(axis=0) - there.mean(axis=0))
        total += weight
        inside += [here - here.mean(axis=0), there - there.mean(axis=0)]
    if total == 0:
        raise InputError("no class holds both values, so no probe can tell them apart given the class")
    difference /= total
    covariance, _ = ledoit_wolf(np.concatenate(inside), assume_centered=True)
    # columns without any spread would make it singular
    covariance += 1e-9 * max(np.trace(covariance) / len(covariance), 1e-12) * np.eye(len(covariance))
    direction = np.linalg.solve(covariance, difference)
    direction /= max(np.linalg.norm(direction), 1e-300)
    return direction, float(direction @ difference)


def probe_attribution(
    latents: np.ndarray,
    firing_rate: np.ndarray,
    X: np.ndarray,
    W_dec: np.ndarray,
    z: np.ndarray,
    values: tuple[str, ...],
    y: np.ndarray | None = None,
    *,
    min_cell: int = 20,
) -> LatentScores:
    """Score latents by the share of a probe's separation that they carry: (difference of the latent's means)
    x (probe . decoder row) / (separation), the form of SCR (Karvonen et al. 2025, SAEBench, arXiv 2503.09532).

    ``latents`` [n, d_sae] are a text's mean latents, ``X`` [n, d_in] its mean rows at the same hookpoint, ``z``
    codes of ``values`` (-1 unknown). Differences are taken, and the probe is fitted, inside each class of ``y``.
    ``effect`` holds the signed shares, which over all latents and the SAE's error sum to 1 in the pooled
    classes; negative: the latent hides what the others show. The score is its pooled size. With more than two
    values, each is set against the rest and the largest score counts.

    Raises InputError when no class has two cells of ``min_cell``.
    """
    known = np.asarray(z) >= 0
    latents, X, z = np.asarray(latents)[known], np.asarray(X)[known], np.asarray(z)[known]
    y = np.zeros(len(z), dtype=int) if y is None else np.asarray(y)[known]
    overall = class_conditional_contrast(latents, firing_rate, z, values, y, min_cell=min_cell)
    if len(values) == 2:
        every = [_carried(overall, X, W_dec, z == 1, y)]
    else:
        every = []
        for g in range(len(values)):
            with suppress(InputError):  # this value has no class with two large cells; another one has
                one = class_conditional_contrast(
                    latents, firing_rate, (z == g).astype(int), ("rest", values[g]), y, min_cell=min_cell
                )
                every.append(_carried(one, X, W_dec, z == g, y))
    best = np.stack([one.score for one in every]).argmax(axis=0)
    columns = np.arange(latents.shape[1])
    return replace(
        overall,
        method="probe_attribution",
        score=np.stack([one.score for one in every])[best, columns],
        sign=np.stack([one.sign for one in every])[best, columns],
        effect=np.stack([one.effect for one in every])[best, :, columns].T,
        p_value=np.minimum(np.stack([one.p_value for one in every])[best, columns] * len(every), 1.0),
    )


def _carried(
    contrast: LatentScores, X: np.ndarray, W_dec: np.ndarray, in_group: np.ndarray, y: np.ndarray
) -> LatentScores:
    """The contrast of one value with the rest, its differences turned into shares of the probe's separation."""
    classes = np.unique(y)
    used = ~np.isnan(contrast.effect[:, 0])
    rows = np.isin(y, classes[used])
    direction, separation = probe_direction(X[rows], in_group[rows], y[rows])
    effect = contrast.effect * (np.asarray(W_dec) @ direction) / max(separation, 1e-300)
    sizes = np.array(
        [_weight(np.sum(in_group & (y == c)), np.sum(~in_group & (y == c))) for c in classes[used]]
    )
    pooled = sizes @ effect[used] / sizes.sum()
    return replace(contrast, score=np.abs(pooled), effect=effect)


def _weight(n: int, m: int) -> float:
    """Of a difference of two means: the inverse of its variance, up to a factor."""
    return n * m / (n + m)
