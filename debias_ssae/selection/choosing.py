"""How many latents to remove: the smallest set after which more of them lower a probe no further."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError

Linear = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Callable[[np.ndarray], np.ndarray]]
"""Fits a linear eraser on rows [n, d], attribute codes [n] and the target [n]."""
MOST = 512
LEFT = 0.25
"""Share of what a probe read; where more is left, the latents do not carry the attribute (docs/decisions/0007)."""
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Sufficient:
    """How many latents, and the walk that led there."""

    n: int
    path: list[dict[str, Any]]
    """A step a size: n, score, se (of the score) and, from the second on, drop and drop_se; JSON."""
    left: float = 0.0
    """Share of what the probe read with nothing removed that it still read where the walk stopped; 0 within noise."""


def smallest_sufficient(
    ranking: np.ndarray, score: Callable[[np.ndarray], np.ndarray], *, start: int = 8, limit: int = MOST
) -> Sufficient:
    """Walk the doublings ``start``, 2 ``start``, ... of ``ranking`` (ids, best first) up to ``limit`` or its end.

    ``score(ids)`` returns, for each fold [n_folds], how well a cross-fitted probe still reads the attribute when
    ``ids`` are removed: 0 is nothing, folds are the same in every call. The walk stops at the first size after which
    the next doubling lowers the mean by less than one standard error of that paired difference, or at which the
    mean itself is not one standard error above 0. An attribute of which more than LEFT is readable even there is not in
    these latents, and each of them costs the model: then the answer is ``start``. An empty ranking gives 0.

    Raises InputError when ``start`` or ``limit`` is below 1.
    """
    if start < 1 or limit < 1:
        raise InputError(f"start and limit must be at least 1, got {start} and {limit}")
    path: list[dict[str, Any]] = []
    sizes = _doublings(start, min(limit, len(ranking)))
    stop = _walk(lambda n: np.asarray(score(ranking[:n]), dtype=np.float64), sizes, path)
    if stop is None:
        return Sufficient(0, path)
    before = float(np.mean(score(ranking[:0])))
    left = stop["score"] / before if stop["score"] > stop["se"] and before > 0 else 0.0
    return Sufficient((stop if left <= LEFT else path[0])["n"], path, left)


def _walk(
    score: Callable[[int], np.ndarray], sizes: Iterator[int], path: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Write a step a size to ``path`` and return the one that is enough, or the last."""
    before: np.ndarray | None = None
    for n in sizes:
        now = score(n)
        step = {"n": n, "score": float(now.mean()), "se": _standard_error(now)}
        path.append(step)
        if before is not None:
            step |= {"drop": float((before - now).mean()), "drop_se": _standard_error(before - now)}
            if step["drop"] <= step["drop_se"]:
                return path[-2]
        if step["score"] <= step["se"]:
            break
        before = now
    return path[-1] if path else None


def _doublings(start: int, largest: int) -> Iterator[int]:
    n = start
    while n < largest:
        yield n
        n *= 2
    if largest > 0:
        yield largest


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def removal_score(
    X: np.ndarray,
    latents: np.ndarray,
    W_dec: np.ndarray,
    z: np.ndarray,
    y: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    output_eraser: Linear | None = None,
    n_folds: int = 10,
    min_cell: int = 20,
    random_state: int | None = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a ``score`` for ``smallest_sufficient`` that probes the pooled rows of the hookpoint itself.

    ``X`` [n, d_in] are a text's mean rows, ``latents`` [n, d_sae] its mean latents; after the removal of S the
    pooled rows are X - latents[:, S] @ W_dec[S], exactly. ``z`` [n] are codes of the attribute (-1 unknown) and
    ``y`` [n] the target. In the concept regime stack both versions of the counterfactuals, with ``z`` the version and
    ``groups`` [n] the text, so that counterfactuals share a fold. Where a linear eraser follows on these very rows
    (``output_eraser``), what it leaves is probed: latents are for what it cannot remove.

    The probe is ridge regression of the attribute's indicators with a free intercept in each class of ``y``,
    every cell weighing the same in its class; the score is the share of variance it explains on held-out folds,
    which, unlike accuracy, does not saturate while many latents carry the same thing. The penalty that reads
    most is used. All folds come from one eigendecomposition (the leave-out formula of ridge), so a score takes
    about a second for 2,000 texts of width 384.

    Raises InputError when no class of ``y`` holds two values with ``min_cell`` rows, or n_folds is below 2.
    """
    if n_folds < 2:
        raise InputError(f"n_folds must be at least 2, got {n_folds}")
    rows, design = _probe_design(np.asarray(z), y, min_cell)
    X, latents = np.asarray(X, dtype=np.float64)[rows], np.asarray(latents)[rows]
    groups = np.arange(len(rows)) if groups is None else np.asarray(groups)[rows]
    codes = np.unique(np.asarray(z)[rows], return_inverse=True)[1]
    classes = None if y is None else np.asarray(y)[rows]
    folds = _folds(groups, n_folds, np.random.default_rng(random_state))
    scale = float(design.weight @ np.square(X - X.mean(axis=0)).sum(axis=1)) / X.shape[1]

    def score(ids: np.ndarray) -> np.ndarray:
        ids = np.asarray(ids, dtype=np.int64)
        left = X - latents[:, ids].astype(np.float64) @ np.asarray(W_dec, dtype=np.float64)[ids]
        left = left if output_eraser is None else output_eraser(left, codes, classes)(left)
        return _explained(left, design, folds, max(scale, 1e-12))

    return score


@dataclass(frozen=True)
class _Design:
    """What a probe of the attribute given the class needs beside the rows."""

    target: np.ndarray
    """Indicators of the values [n, n_values], centred in each class."""
    intercepts: np.ndarray
    """Indicators of the classes [n, n_classes]."""
    weight: np.ndarray
    """[n]; the cells of a class weigh the same."""


def _probe_design(z: np.ndarray, y: np.ndarray | None, min_cell: int) -> tuple[np.ndarray, _Design]:
    """The rows of usable cells, and the probe's design on them."""
    y = np.zeros(len(z), dtype=int) if y is None else np.unique(np.asarray(y), return_inverse=True)[1]
    weight, usable = np.zeros(len(z)), []
    for c in np.unique(y):
        cells = [np.flatnonzero((y == c) & (z == g)) for g in np.unique(z[z >= 0])]
        cells = [cell for cell in cells if len(cell) >= min_cell]
        if len(cells) < 2:
            continue
        usable.append(c)
        for cell in cells:
            weight[cell] = sum(map(len, cells)) / len(cells) / len(cell)
    if not usable:
        raise InputError(
            f"no class of the target holds two attribute values with {min_cell} texts each; "
            "set n_latents to a number"
        )
    rows = np.flatnonzero(weight)
    weight, intercepts = weight[rows], (y[rows, None] == np.array(usable)).astype(float)
    target = (z[rows, None] == np.unique(z[rows])).astype(float)
    # weighted means of each class, where the classes are the columns of intercepts
    means = (intercepts * weight[:, None]).T @ target / (weight @ intercepts)[:, None]
    return rows, _Design(target - intercepts @ means, intercepts, weight)


def _folds(groups: np.ndarray, n_folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers of each fold; rows of one group stay together."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < n_folds:
        raise InputError(f"{len(names)} texts cannot fill {n_folds} folds")
    fold = rng.permutation(np.arange(len(names)) % n_folds)[codes]
    return [np.flatnonzero(fold == k) for k in range(n_folds)]


def _explained(X: np.ndarray, design: _Design, folds: list[np.ndarray], scale: float) -> np.ndarray:
    """Share of the target's variance explained on each held-out fold [n_folds], at the best penalty."""
    root = np.sqrt(design.weight)[:, None]
    # so large that the penalty does not touch the classes' intercepts
    free = np.sqrt(scale) * 1e3
    rows = np.concatenate([X - X.mean(axis=0), design.intercepts * free], axis=1) * root
    target = design.target * root
    basis, values = _spectrum(rows)
    best = np.full(len(folds), -np.inf)
    for penalty in _PENALTIES:
        shrunk = basis / (values + penalty * scale)
        residual = target - shrunk @ (basis.T @ target)
        scores = np.empty(len(folds))
        for k, fold in enumerate(folds):
            inside = np.eye(len(fold)) - shrunk[fold] @ basis[fold].T
            held_out = np.linalg.solve(inside, residual[fold])
            scores[k] = 1 - np.square(held_out).sum() / np.square(target[fold]).sum()
        if scores.mean() > best.mean():
            best = scores
    return best


def _spectrum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``basis`` [n, r] and ``values`` [r] so that rows (rows' rows + c I)^-1 rows' = basis / (values + c) basis'."""
    n, d = rows.shape
    if d <= n:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        return rows @ vectors, np.maximum(values, 0.0)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    values = np.maximum(values, 0.0)
    return vectors * np.sqrt(values), values
