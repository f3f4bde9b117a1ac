"""Scores from probes: how much of a probe's separation each latent carries, and which few latents suffice."""

import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.selection.scores import LatentScores, class_conditional_contrast

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

F1_JUMP = 0.03
"""Growth of F1 below which one more latent is no longer a part of a split one (Chanin et al. 2024, step 3)."""


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


@dataclass(frozen=True)
class KSparse:
    """Probes on the k best latents."""

    scores: LatentScores
    f1: dict[int, float]
    """Cross-fitted F1 (mean over values) of a logistic probe on the k best latents. The ranking saw all rows."""
    split: np.ndarray
    """Ids of the latents that the concept is split over: the k best, as long as each raised F1 by F1_JUMP."""


def k_sparse_probing(
    latents: np.ndarray,
    firing_rate: np.ndarray,
    z: np.ndarray,
    values: tuple[str, ...],
    y: np.ndarray | None = None,
    *,
    max_k: int = 10,
    min_cell: int = 20,
    random_state: int | None = None,
) -> KSparse:
    """Rank latents by their weight in an L1 probe of the attribute, then refit a logistic probe on the best
    k = 1 .. ``max_k`` (Chanin et al. 2024, arXiv 2409.14507, steps 2 and 3).

    ``latents`` [n, d_sae] are a text's mean latents, ``z`` codes of ``values`` (-1 unknown). The attribute is
    probed given ``y``: each class is centred between its cells, and every cell weighs the same inside its class.
    The L1 penalty is a tenth of the one at which the first latent enters. ``effect``, ``sign`` and ``p_value``
    are those of ``class_conditional_contrast``, which also raises InputError for cells too small.
    """
    known = np.asarray(z) >= 0
    latents, z = np.asarray(latents)[known], np.asarray(z)[known]
    y = np.zeros(len(z), dtype=int) if y is None else np.asarray(y)[known]
    contrast = class_conditional_contrast(latents, firing_rate, z, values, y, min_cell=min_cell)
    columns, codes, weight = _given_class(latents, z, y, min_cell)
    score = np.abs(_l1_weights(columns, codes, weight)).max(axis=0)
    scores = replace(contrast, method="k_sparse_probing", score=score)
    order = scores.top(max_k)
    f1 = {k: _f1(columns[:, order[:k]], codes, weight, random_state) for k in range(1, len(order) + 1)}
    return KSparse(scores, f1, order[: n_split(f1)])


def n_split(f1: dict[int, float]) -> int:
    """Return the last k before F1 grew by less than F1_JUMP over the best so far (at least 1 where any is)."""
    accepted, best = 0, -np.inf
    for k, value in sorted(f1.items()):
        if value <= best + F1_JUMP:
            break
        accepted, best = k, value
    return accepted


def _given_class(
    latents: np.ndarray, z: np.ndarray, y: np.ndarray, min_cell: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised latents of the cells that are large enough, centred by class; their values and weights."""
    columns, codes, weights = [], [], []
    for c in np.unique(y):
        cells = [np.flatnonzero((y == c) & (z == g)) for g in np.unique(z)]
        cells = [rows for rows in cells if len(rows) >= min_cell]
        if len(cells) < 2:
            continue
        middle = np.mean([latents[rows].mean(axis=0) for rows in cells], axis=0)
        size = sum(map(len, cells)) / len(cells)
        for rows in cells:
            columns.append(latents[rows] - middle)
            codes.append(z[rows])
            weights.append(np.full(len(rows), size / len(rows)))
    centred = np.concatenate(columns)
    spread = centred.std(axis=0)
    return centred / np.where(spread > 0, spread, 1.0), np.concatenate(codes), np.concatenate(weights)


def _l1_weights(columns: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights [n_values, d] of one L1 probe a value against the rest (one row for two values)."""
    from sklearn.linear_model import LogisticRegression

    groups = np.unique(codes)
    rows = []
    for g in groups[1:] if len(groups) == 2 else groups:
        inside = codes == g
        balance = (
            weight * np.where(inside, 1 / weight[inside].sum(), 1 / weight[~inside].sum()) * len(codes) / 2
        )
        # the gradient at 0, where the first latent enters
        first = np.abs(columns.T @ (balance * np.where(inside, 0.5, -0.5))).max()
        probe = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=10 / max(first, 1e-12), max_iter=200)
        rows.append(_quiet(probe, columns, inside, balance).coef_[0])
    return np.stack(rows)


def _f1(columns: np.ndarray, codes: np.ndarray, weight: np.ndarray, random_state: int | None) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedKFold

    predicted = np.empty_like(codes)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=random_state).split(columns, codes):
        probe = _quiet(LogisticRegression(max_iter=500), columns[train], codes[train], weight[train])
        predicted[test] = probe.predict(columns[test])
    return float(f1_score(codes, predicted, average="macro", sample_weight=weight))


def _quiet(
    probe: "LogisticRegression", X: np.ndarray, z: np.ndarray, weight: np.ndarray
) -> "LogisticRegression":
    """Fit; a probe that stops before full convergence is still a probe."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*converge", category=UserWarning)
        return probe.fit(X, z, sample_weight=weight)
