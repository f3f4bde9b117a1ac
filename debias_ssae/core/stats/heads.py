"""The standardised logistic head and the rule for its C: the same wherever this package trains a head."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from debias_ssae.core.errors import InputError, brief

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FIXED_C = 0.1
N_FOLDS = 5


def logistic_head(C: float, *, class_weight: Literal["balanced"] | None = None) -> Any:
    """An unfitted logistic regression on standardised columns."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500, class_weight=class_weight))


def fit_head(
    X: np.ndarray,
    y: np.ndarray,
    *,
    C: float | Literal["auto"] = "auto",
    sample_weight: np.ndarray | None = None,
    random_state: int = 0,
) -> Any:
    """Fit a standardised logistic regression on rows ``[n, d]`` and classes ``[n]``; "auto" is ``choose_c``."""
    if len(classes := np.unique(y)) < 2:
        raise InputError(f"y holds only the class {brief(classes.tolist()[0])}; a classifier needs two")
    if C == "auto":
        C = choose_c(X, y, sample_weight=sample_weight, random_state=random_state)
    head = logistic_head(C)
    scaler, model = head[0], head[-1]
    with quiet():
        # step by step: where the user has enabled metadata routing, a pipeline refuses weights that were not requested
        model.fit(scaler.fit_transform(X), y, sample_weight=sample_weight)
    return head


def choose_c(
    X: np.ndarray, y: np.ndarray, *, sample_weight: np.ndarray | None = None, random_state: int = 0
) -> float:
    """C of a standardised logistic regression by 5-fold accuracy on ``X, y``; ties go to the smaller C.

    Where rows have weights, they weigh in the accuracy too.
    """
    from sklearn.model_selection import StratifiedKFold

    if max(np.unique(y, return_counts=True)[1]) < N_FOLDS:
        raise InputError(
            f"C is chosen by {N_FOLDS} folds, but no class has as many rows; give C, or more rows"
        )
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=random_state).split(X, y))

    def accuracy(C: float) -> float:
        scores = []
        for train, held in folds:
            part = None if sample_weight is None else sample_weight[train]
            right = fit_head(X[train], y[train], C=C, sample_weight=part).predict(X[held]) == y[held]
            scores.append(np.average(right, weights=weight[held]))
        return float(np.mean(scores))

    return best_c(accuracy)


def best_c(score: Callable[[float], float]) -> float:
    """The C of the grid with the highest score; ties go to the smaller."""
    return GRID[int(np.argmax([score(C) for C in GRID]))]


@contextmanager
def quiet() -> Iterator[None]:
    """One thread, since the products are small, and no warning where a hardly penalised C meets separable data."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
