"""From an SAE and texts to the latents that are to be removed: the smallest set that suffices."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debias_ssae.core.config import SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations, LanguageModel
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.pairs import PairActivations, harvest_pairs
from debias_ssae.selection.propagation import propagate
from debias_ssae.selection.scores import (
    LatentScores,
    class_conditional_contrast,
    copies,
    encode_labels,
    pooled_latents,
)
from debias_ssae.text.concept import Concept

Linear = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Callable[[np.ndarray], np.ndarray]]
"""Fits a linear eraser on rows [n, d], attribute codes [n] and the target [n]."""
CONSIDERED = 512
"""Best latents by score; what lies behind them is noise."""
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Sufficient:
    """How many latents, and the walk that led there."""

    n: int
    path: list[dict[str, Any]]
    """A step a size: n, score, se (of the score); JSON."""
    left: float = 0.0
    """Share of what the probe read with nothing removed that it still read at the end; 0 within noise."""


def smallest_sufficient(
    ranking: np.ndarray, score: Callable[[np.ndarray], np.ndarray], config: SelectionConfig
) -> Sufficient:
    """Walk ``ranking`` (ids, best first) up to ``config.most_latents``, each size at first and in growing steps later.

    ``score(ids)`` returns, for each fold [n_folds], how well a cross-fitted probe still reads the attribute when
    ``ids`` are removed: 0 is nothing, folds are the same in every call. The answer is the first size at which the
    mean is not one standard error above 0; where there is none, the first that no other size betters by more than
    one standard error of the paired difference. An attribute of which more than ``config.readable`` is readable even
    there is not in these latents, and each of them costs the model: then ``config.few`` go. An empty ranking gives 0.
    """
    sizes, folds = _sizes(min(config.most_latents, len(ranking))), []
    if not sizes:
        return Sufficient(0, [])
    path: list[dict[str, Any]] = []
    for n in sizes:
        now = np.asarray(score(ranking[:n]), dtype=np.float64)
        folds.append(now)
        path.append({"n": n, "score": float(now.mean()), "se": _standard_error(now)})
        if path[-1]["score"] <= path[-1]["se"]:
            return Sufficient(n, path)
    best = min(folds, key=np.mean)
    enough = next(i for i, now in enumerate(folds) if (now - best).mean() <= _standard_error(now - best))
    before = float(np.mean(score(ranking[:0])))
    left = path[enough]["score"] / before if before > 0 else 0.0
    return Sufficient(sizes[enough] if left <= config.readable else min(config.few, sizes[-1]), path, left)


def _sizes(largest: int) -> list[int]:
    """1 to 16, and from there on about an eighth more each time, up to ``largest``."""
    sizes, n = [], 1
    while n < largest:
        sizes.append(n)
        n += max(1, n // 8)
    return [*sizes, largest] if largest > 0 else []


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

    Raises InputError when no class of ``y`` holds two values with ``min_cell`` rows.
    """
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


logger = logging.getLogger(__name__)
BLOCK = 8192
"""Tokens encoded at a time; bounds the dense latents."""


@dataclass(frozen=True)
class Selection:
    """What is to be removed at one hookpoint, and why."""

    scores: LatentScores | None
    """Of all latents; None where they were not scored."""
    ids: np.ndarray
    """Ids of the latents ``[m]``, best first."""
    report: dict[str, Any] = field(default_factory=dict)
    """What each step of the selection did; JSON."""

    @property
    def left(self) -> float:
        """Share of what a probe read of the attribute that stays readable without these latents; 0 if not measured."""
        told = self.report.get("n_latents")
        return float(told["left"]) if isinstance(told, dict) else 0.0


def select_from_concept(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    concept: Concept,
    config: SelectionConfig,
    *,
    hookpoint: str = "embeddings",
    n_latents: int | str = "auto",
    random_state: int | None = None,
) -> Selection:
    """Select what changes when the concept's words are swapped in ``texts``; no attribute labels.

    At most ``config.max_texts`` of the texts are run in both versions. The steps are: the counterfactual contrast;
    propagation to tokens outside the list; the choice of latents that fire mostly on the concept's tokens, until they
    carry ``config.carried``. Raises InputError where no text holds a word of the concept, and where every word was cut
    off.
    """
    model.check_spans()
    options: dict[str, Any] = {"max_texts": config.max_texts, "random_state": random_state}
    pairs = harvest_pairs(model, texts, concept, hookpoint, **options)
    report: dict[str, Any] = {}
    latents_a, firing_rate = pooled_latents(sae, pairs.a)
    scores, others = pairs.contrast(sae, (latents_a, firing_rate)), pairs.others
    if config.propagate and others is not None:
        scores = propagate(scores, pairs.n_words, _blocks(sae, others.firing), others.probe)
    purity = _purity(sae, pairs, latents_a)
    scores = _pure(scores, purity, config.purity, report)
    if n_latents == "auto":
        chosen = scores.top(CONSIDERED)
        chosen = chosen[: _carrying(scores.score[chosen], config)]
    else:
        chosen = scores.top(int(n_latents))
    report["purity"] = [round(float(share), 3) for share in purity[chosen]]
    return Selection(scores, chosen, report)


def _carrying(score: np.ndarray, config: SelectionConfig) -> int:
    """How many of the latents with ``score [m]``, best first, carry ``carried`` of what all of them carry."""
    if not len(score):
        return 0
    n = int(np.searchsorted(np.cumsum(score), config.carried * score.sum())) + 1
    return min(n, config.most_latents)


def _purity(sae: SparseAutoencoder, pairs: PairActivations, latents_a: np.ndarray) -> np.ndarray:
    """Share of each latent's activation mass over both versions that lies on the concept's tokens ``[d_sae]``: on
    swapped words, and on other words at which the listed words' probe fires.
    """
    sizes = torch.bincount(pairs.a.text_ids, minlength=pairs.a.n_texts).numpy()
    in_a, in_b = _mass(sae, pairs.words_a.x), _mass(sae, pairs.words_b.x)
    found = np.zeros(sae.cfg.d_sae) if pairs.others is None else _mass(sae, pairs.others.firing)
    elsewhere = np.maximum(sizes @ latents_a.astype(np.float64) - in_a - found, 0)
    # what is not swapped stands in both versions
    own = in_a + in_b + 2 * found
    total = own + 2 * elsewhere
    return np.divide(own, total, out=np.zeros_like(total), where=total > 0)


def _mass(sae: SparseAutoencoder, x: Tensor) -> np.ndarray:
    """Sum of each latent's activations on ``x``."""
    sums = (latents.sum(axis=0, dtype=np.float64) for _, latents in _blocks(sae, x))
    return sum(sums, np.zeros(sae.cfg.d_sae))


def _pure(scores: LatentScores, purity: np.ndarray, least: float, report: dict[str, Any]) -> LatentScores:
    """Set the score of latents to zero that fire mostly elsewhere, unless the concept has no latents of its own: after
    many blocks a word's meaning is in its neighbours' activations too.
    """
    pure = np.where(purity >= least, scores.score, 0.0)
    if pure.sum() < scores.score.sum() / 2:
        report["impure"] = "kept: latents of the concept alone carry less than half of it"
        return scores
    report["impure"] = int(((scores.score > 0) & (purity < least)).sum())
    return replace(scores, score=pure)


def select_from_labels(
    sae: SparseAutoencoder,
    rows: Activations,
    y: np.ndarray | None,
    sensitive_features: Any,
    config: SelectionConfig,
    *,
    n_latents: int | str = "auto",
    output_eraser: Linear | None = None,
    random_state: int | None = None,
) -> Selection:
    """Labelled regime, on the rows of the hookpoint; texts with an unknown attribute are left out.

    ``output_eraser`` fits the linear eraser that follows on the same rows, if one does: the rule then goes by what
    it leaves.
    """
    codes, values, y = encode_labels(sensitive_features, y, rows.n_texts)
    latents, firing_rate = pooled_latents(sae, rows)
    scores = class_conditional_contrast(latents, firing_rate, codes, values, y, min_cell=config.min_cell)
    W_dec, X = _decoder(sae), rows.pool().numpy()
    if n_latents != "auto":
        return Selection(scores, scores.top(int(n_latents)))
    report: dict[str, Any] = {}
    chosen = scores.top(CONSIDERED)
    beyond_chance = scores.p_value[chosen] <= config.chance
    chosen = chosen[beyond_chance] if beyond_chance.any() else chosen[:1]
    options: dict[str, Any] = {"min_cell": config.min_cell, "random_state": random_state, "groups": copies(X)}
    try:
        score = removal_score(X, latents, W_dec, codes, y, output_eraser=output_eraser, **options)
    except InputError as error:
        report["n_latents"] = f"rule not run: {error}"
        return Selection(scores, chosen[: config.most_latents], report)
    return Selection(scores, chosen[: _sufficient(chosen, score, config, report)], report)


def _sufficient(
    ranking: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    config: SelectionConfig,
    report: dict[str, Any],
) -> int:
    found = smallest_sufficient(ranking, score, config)
    report["n_latents"] = {"n": found.n, "left": found.left, "path": found.path}
    if found.left > config.readable:
        logger.warning(
            "removing more latents would still leave %.0f%% of the attribute readable at the hookpoint, so %d go; "
            "docs/method.md says what serves an attribute that is everywhere",
            100 * found.left,
            found.n,
        )
    return found.n


def _blocks(sae: SparseAutoencoder, x: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for rows in x.split(BLOCK):
        with torch.no_grad():
            yield rows.numpy(), sae.encode(rows).cpu().numpy()


def _decoder(sae: SparseAutoencoder) -> np.ndarray:
    return sae.W_dec.detach().cpu().numpy()
