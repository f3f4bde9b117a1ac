"""Which way of removing the attribute is best: the edit, a linear eraser after it, or that eraser alone.

Each candidate is tried on training data by cross-validation, and is judged on held-out texts of every cell (class x
value). Where the training texts themselves have labels, a classifier learns from them as they are. Where labels are of
other texts, or words describe the attribute, nobody knows how strong the shortcut is, and it is taken at its worst: a
classifier learns from texts in which the attribute's value follows from the class. Of words the cells come from
counterfactual pairs.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from debias_ssae.core.stats.heads import FIXED_C, fit_head
from debias_ssae.debiaser.output import (
    FROM_LABELS,
    FROM_WORDS,
    OVERALL,
    Samples,
    apply_output,
    fit_eraser,
    has_center,
)

TRIED_ON = 1000
"""Samples on which the candidates are tried."""
FEWEST = 10
"""Samples of a cell; smaller ones decide nothing."""
FOLDS, MOST_SHORTCUTS, RESAMPLES = 5, 3, 200


class Candidate(NamedTuple):
    """The edit inside the model or none, and the output eraser after it or none."""

    edit: bool
    kind: str | None

    def __str__(self) -> str:
        eraser = "" if self.kind is None else self.kind.replace("_", " ")
        if not self.edit:
            return f"{eraser} alone"
        return f"latents, then {eraser}" if eraser else "latents alone"


@dataclass(frozen=True)
class Choice:
    """What was picked, and how every candidate did."""

    picked: Candidate
    seen: Samples
    """What they were compared on, with its representations."""
    report: dict[str, Any]
    """JSON: for each candidate ``worst_group_retrained`` and ``worst_group_frozen``, and the rule's numbers."""


def candidates(kind: str, *, edits: bool, as_they_are: bool = False) -> list[Candidate]:
    """What may be picked where ``kind`` is the output eraser by default; the default comes first.

    Of words every candidate has an eraser: it catches what the list does not name, which counterfactuals cannot show.
    The eraser over all classes is for training texts ``as_they_are``: it takes what the attribute shares with the
    target there, in the proportions that a classifier will learn from.
    """
    kinds = [kind, *(k for k in (FROM_LABELS if kind in FROM_LABELS else FROM_WORDS) if k != kind)]
    if not as_they_are:
        kinds = [k for k in kinds if k != OVERALL]
    alone = [Candidate(False, k) for k in kinds]
    after: list[str | None] = [*kinds, None] if kind in FROM_LABELS else [*kinds]
    return [*(Candidate(True, k) for k in after), *alone] if edits else alone


def each_in_one_class(samples: Samples) -> bool:
    """Whether no value of the attribute has FEWEST samples in two classes."""
    if samples.y is None or samples.z is None:
        return False
    return not (np.sum(pd.crosstab(samples.z, samples.y).to_numpy() >= FEWEST, axis=1) > 1).any()


def choose(
    samples: Samples,
    tried: Sequence[Candidate],
    *,
    recenter: bool,
    random_state: int | None,
    as_they_are: bool = False,
    first_is_better: bool = True,
) -> Choice | None:
    """Pick one of ``tried`` by cross-validation on ``samples``; None where they cannot tell.

    The first stays unless another one's worst-group accuracy, averaged over a retrained and a frozen head and over
    the shortcuts, is higher by more than one standard error of the difference (bootstrap over samples); without
    ``first_is_better`` the highest is picked. With ``as_they_are`` the samples are training texts, and a classifier
    learns from them all; the small cells of a class then count as one.
    """
    if samples.z is None or samples.y is None:
        return None
    rng = np.random.default_rng(random_state)
    # each text goes through the model once: the eraser that is fitted in the end needs these as well
    _ = (samples.plain, samples.edited) if tried[0].kind in FROM_LABELS else samples.plain
    # both versions of a pair have one target
    seen = samples.at(np.flatnonzero(~pd.isna(samples.y))).some(TRIED_ON, rng)
    if len(seen.X) < 2 * FOLDS:
        return None
    _ = seen.edited
    y, z = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (seen.y, seen.z))
    cells = y * (int(z.max()) + 1) + z
    groups, weights = seen.together, seen.weights if as_they_are else None
    if as_they_are:
        cells = _pooled(cells, y)
        lessons = [np.ones(len(y), dtype=bool)] if _differ(cells, y) else []
    else:
        lessons = [z == value_of[y] for value_of in _shortcuts(y, z)]
    if not lessons or len(np.unique(groups)) < 2 * FOLDS:
        return None
    right = np.zeros((len(tried), 2 * len(lessons), len(y)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # small cells decide nothing anyway
        folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(cells, cells, groups))
    for train, held in folds:
        shown = seen.at(train)
        follow = [_follow(one, shown, seen, recenter=recenter) for one in tried]
        for s, taught in enumerate(lessons):
            rows = train[taught[train]]
            if len(np.unique(y[rows])) < len(np.unique(y)):
                return None
            counts = None if weights is None else weights[rows]
            before = fit_head(seen.plain[rows], y[rows], C=FIXED_C, sample_weight=counts)
            for i, x in enumerate(follow):
                after = fit_head(x[rows], y[rows], C=FIXED_C, sample_weight=counts)
                right[i, 2 * s, held] = after.predict(x[held]) == y[held]
                right[i, 2 * s + 1, held] = before.predict(x[held]) == y[held]
    options = {"of_pairs": seen.groups is not None, "first_is_better": first_is_better}
    picked, report = _picked(tried, right, cells, groups, rng, **options)
    return Choice(picked, seen, {**report, "as_they_are": as_they_are})


def _pooled(cells: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cells ``[n]`` with those of fewer than FEWEST samples, class by class, as one."""
    small = np.bincount(cells)[cells] < FEWEST
    return np.unique(np.where(small, -1 - y, cells), return_inverse=True)[1]


def _differ(cells: np.ndarray, y: np.ndarray) -> bool:
    """Whether some class holds two cells that count."""
    of_class = y[np.unique(cells, return_index=True)[1]]
    return bool(np.bincount(of_class[np.bincount(cells) >= FEWEST]).max(initial=0) > 1)


def _shortcuts(y: np.ndarray, z: np.ndarray) -> Iterator[np.ndarray]:
    """For each shortcut the attribute value ``[n_classes]`` that goes with a class; only cells of FEWEST count."""
    counts = np.zeros((int(y.max()) + 1, int(z.max()) + 1), dtype=int)
    np.add.at(counts, (y, z), 1)
    values = [np.flatnonzero(row >= FEWEST) for row in counts]
    sizes = [len(held) for held in values]
    if len(sizes) < 2 or min(sizes) == 0 or max(sizes) < 2:
        return
    known: set[tuple[int, ...]] = set()
    for shift in range(counts.shape[1]):
        found = np.array([held[(c + shift) % len(held)] for c, held in enumerate(values)])
        if len(np.unique(found)) > 1 and tuple(found) not in known and len(known) < MOST_SHORTCUTS:
            known.add(tuple(found.tolist()))
            yield found


def _follow(one: Candidate, shown: Samples, every: Samples, *, recenter: bool) -> np.ndarray:
    """Representations of ``every`` sample under a candidate that was fitted on those ``shown``."""
    source = shown if one.edit else shown.unedited()
    eraser = None if one.kind is None else fit_eraser(one.kind, source)
    x = apply_output(eraser, every.edited if one.edit else every.plain)
    if not (recenter and one.edit) or has_center(one.kind):
        return x
    moved = apply_output(eraser, source.edited).mean(axis=0)
    return x + (source.plain.mean(axis=0) - moved)


def _picked(
    tried: Sequence[Candidate],
    right: np.ndarray,
    cells: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    *,
    of_pairs: bool,
    first_is_better: bool,
) -> tuple[Candidate, dict[str, Any]]:
    """Apply the rule to answers ``right`` [candidate, head, sample]: retrained and frozen heads take turns."""
    codes = np.unique(groups, return_inverse=True)[1]
    n = int(codes.max()) + 1
    sizes = np.bincount(cells)
    member = np.eye(len(sizes))[:, sizes >= FEWEST][cells]
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)[:, codes]
    worst = _worst(right, member, np.vstack([np.ones(len(cells)), drawn]))
    score = worst.mean(axis=2)
    retrained = worst[0, :, 0::2].mean(axis=1)
    # both versions of a pair become one under the eraser that was fitted on such pairs, so a frozen head, which was
    # not trained on them, finds it perfect
    may = [one.edit or not of_pairs or now > retrained[0] for one, now in zip(tried, retrained, strict=True)]
    best = int(np.where(may, score[0], -np.inf).argmax())
    difference = score[:, best] - score[:, 0]
    error = float(difference[1:].std())
    picked = best if difference[0] > error or not first_is_better else 0
    report = {
        "picked": str(tried[picked]),
        "default": str(tried[0]),
        "n": len(cells),
        "of_pairs": of_pairs,
        "better_by": float(score[0, picked] - score[0, 0]),
        "standard_error": error,
        "candidates": {
            str(one): {
                "worst_group_retrained": float(retrained[i]),
                "worst_group_frozen": float(worst[0, i, 1::2].mean()),
            }
            for i, one in enumerate(tried)
        },
    }
    return tried[picked], report


def _worst(right: np.ndarray, member: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracy of the worst cell ``[resample, candidate, head]``."""
    found = np.empty((len(weights), *right.shape[:2]))
    for b, w in enumerate(weights):
        total = w @ member
        accuracy = (right * w) @ member / np.maximum(total, 1)
        found[b] = np.where(total > 0, accuracy, np.inf).min(axis=2)
    return found
