"""Do scores mean the same in every group? Brier score, calibration error, mean score against mean outcome."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.audit.measures import Slice, long_table
from debias_ssae.audit.rates import Array, Codes
from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.shares import row_draws

N_BINS = 15
MEASURES = ("calibration_error", "brier_score", "score_minus_outcome")


def scores_of(
    y_score: Any, models: tuple[str, ...], n_rows: int, classes: tuple[Any, ...], positive: int
) -> dict[str, Array]:
    """Probabilities by model: of two classes the positive one's [n], else [n, n_classes]. Raises InputError on a wrong
    shape, name or range.
    """
    if y_score is None:
        return {}
    given = dict(y_score) if isinstance(y_score, Mapping) else {models[0]: y_score}
    if not isinstance(y_score, Mapping) and len(models) > 1:
        raise InputError(
            f"y_score must be a dict name -> scores when y_pred is one; the models are {list(models)}"
        )
    unknown = sorted(set(given) - set(models))
    if unknown:
        raise InputError(f"y_score names {unknown}, which y_pred does not; the models are {list(models)}")
    return {name: _checked(values, name, n_rows, classes, positive) for name, values in given.items()}


def _checked(values: Any, name: str, n_rows: int, classes: tuple[Any, ...], positive: int) -> Array:
    try:
        scores = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"y_score of {name!r} must be numbers: {error}") from error
    if scores.ndim == 2 and scores.shape[1] == 2 and len(classes) == 2:
        scores = scores[:, positive]
    expected = (n_rows,) if len(classes) == 2 else (n_rows, len(classes))
    if scores.shape != expected:
        raise InputError(
            f"y_score of {name!r} has shape {np.shape(values)}; expected {expected}, one probability a row"
            f"{' and class' if len(classes) > 2 else f' (of {classes[positive]!r})'}"
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(f"y_score of {name!r} must be probabilities between 0 and 1, without missing values")
    return scores


def calibration_table(part: Slice, rng: np.random.Generator) -> pd.DataFrame:
    """Measures by group with row-bootstrap percentile intervals; rows of the same form as the group table.

    ``calibration_error`` is the expected calibration error over 15 equal bins (Guo et al. 2017); with more
    than two classes it and ``score_minus_outcome`` are of the highest score and whether its class was right.
    """
    groups, weights = part.attribute.codes, part.weights
    chance, hit, brier = _outcomes(part.truth, part.positive, part.scores[part.model])
    n_groups = len(part.attribute.groups)
    bins = groups * N_BINS + np.minimum((chance * N_BINS).astype(np.int64), N_BINS - 1)
    ones = np.ones(len(groups)) if weights is None else weights

    def measures(w: Array) -> Array:
        """[3, n_groups + 1]: calibration error, Brier score, mean score minus mean outcome; the last is all rows."""
        gap = np.bincount(bins, w * (hit - chance), n_groups * N_BINS).reshape(n_groups, N_BINS)
        sums = [np.bincount(groups, v, n_groups) for v in (w, w * brier)]
        gap = np.concatenate([gap, gap.sum(axis=0, keepdims=True)])
        size, loss = (np.append(v, v.sum()) for v in sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows = [np.abs(gap).sum(axis=1) / size, loss / size, -gap.sum(axis=1) / size]
        return np.where(size > 0, np.stack(rows), np.nan)

    point = measures(ones)
    draws = np.stack([measures(ones * times) for times in row_draws(len(groups), part.n_bootstrap, rng)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice")
        ends = np.nanquantile(draws, [0.025, 0.975], axis=0)
    n = np.append(np.bincount(groups, weights, n_groups), ones.sum())
    found = zip(MEASURES, point, *ends, strict=True)
    return pd.concat([long_table(part, m, "", n, *values) for m, *values in found], ignore_index=True)


def _outcomes(truth: Codes, positive: int, scores: Array) -> tuple[Array, Array, Array]:
    """Per row: the probability given, whether it came true, the Brier score."""
    if scores.ndim == 1:
        outcome = (truth == positive).astype(float)
        return scores, outcome, (scores - outcome) ** 2
    onehot = np.eye(scores.shape[1])[truth]
    top = scores.argmax(axis=1)
    return scores.max(axis=1), (top == truth).astype(float), ((scores - onehot) ** 2).sum(axis=1)
