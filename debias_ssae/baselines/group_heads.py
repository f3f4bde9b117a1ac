"""Heads that use group labels in training only: reweighting, subsampling, last-layer retraining."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from debias_ssae.baselines.attribute import read_attribute
from debias_ssae.core.errors import InputError


class GroupHead(ClassifierMixin, BaseEstimator, ABC):
    """What the group heads share: checks, one scaler, a linear model, predictions without the attribute.

    Subclasses implement ``_learn(X, y, cell)`` on standardised rows, class codes and cell codes (class x
    attribute), and set ``coef_ [n_classes or 1, d]`` and ``intercept_``.
    """

    needs_attribute_at_predict = False

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Self:
        """Fit on rows ``(n, d)``, classes and the attribute; rows with a missing attribute are left out.

        Raises InputError without the attribute, with one value only, with one class only and when lengths differ.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        z, self.values_ = read_attribute(sensitive_features, len(X), type(self).__name__)
        X, y, z = X[z >= 0], y[z >= 0], z[z >= 0]
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise InputError(f"y holds only the class {self.classes_[0]!r}; two are needed")
        codes = encoder.transform(y)
        self.scaler_ = StandardScaler().fit(X)
        with threadpool_limits(1), warnings.catch_warnings():
            # a sparse or hardly penalised fit of few rows may stop early; it is a head all the same
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._learn(self.scaler_.transform(X), codes, codes * len(self.values_) + z)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores ``(n,)`` for two classes, ``(n, n_classes)`` for more."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scores = self.scaler_.transform(X) @ self.coef_.T + self.intercept_
        result: np.ndarray = scores[:, 0] if len(self.coef_) == 1 else scores
        return result

    def predict(self, X: Any) -> np.ndarray:
        """Return class labels ``(n,)``; the attribute is not needed."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: np.ndarray = self.classes_[codes]
        return labels

    @abstractmethod
    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        """Set ``coef_`` and ``intercept_`` from standardised rows, class codes and cell codes."""


class GroupReweighting(GroupHead):
    """Logistic regression with every cell (class x attribute) weighing the same.

    Parameters
    ----------
    C : float, default=0.1
        Inverse penalty.
    """

    def __init__(self, *, C: float = 0.1) -> None:
        self.C = C

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        sizes = np.bincount(cell)
        weights = len(cell) / (np.count_nonzero(sizes) * sizes[cell])
        model = LogisticRegression(C=self.C, max_iter=500).fit(X, y, sample_weight=weights)
        self.coef_, self.intercept_ = model.coef_, model.intercept_


class GroupSubsampling(GroupHead):
    """Logistic regression on as many rows of every cell as the smallest has, drawn at random.

    Parameters
    ----------
    C : float, default=0.1
        Inverse penalty.
    random_state : int, optional
    """

    def __init__(self, *, C: float = 0.1, random_state: int | None = None) -> None:
        self.C = C
        self.random_state = random_state

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        rows = balanced_rows(cell, np.random.default_rng(self.random_state))
        model = LogisticRegression(C=self.C, max_iter=500).fit(X[rows], y[rows])
        self.coef_, self.intercept_ = model.coef_, model.intercept_


class LastLayerRetraining(GroupHead):
    """Deep feature reweighting (Kirichenko et al. 2023, arXiv 2204.02937): refit the last layer on balanced cells.

    Fit it on a set that holds every cell. An l1-penalised logistic regression on rows drawn evenly from the
    cells, several times, weights averaged; C by worst-cell accuracy on a held-out half.

    Parameters
    ----------
    C : float or None, default=None
        Inverse penalty; None chooses from 1, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01.
    n_draws : int, default=10
    random_state : int, optional
    """

    GRID = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)

    def __init__(self, *, C: float | None = None, n_draws: int = 10, random_state: int | None = None) -> None:
        self.C = C
        self.n_draws = n_draws
        self.random_state = random_state

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        rng = np.random.default_rng(self.random_state)
        self.C_ = self._choose(X, y, cell, rng) if self.C is None else self.C
        models = []
        for _ in range(self.n_draws):
            rows = balanced_rows(cell, rng)
            models.append(_sparse(self.C_).fit(X[rows], y[rows]))
        self.coef_ = np.mean([model.coef_ for model in models], axis=0)
        self.intercept_ = np.mean([model.intercept_ for model in models], axis=0)

    def _choose(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray, rng: np.random.Generator) -> float:
        half = np.zeros(len(cell), dtype=bool)
        for code in np.unique(cell):
            members = rng.permutation(np.flatnonzero(cell == code))
            half[members[: (len(members) + 1) // 2]] = True
        if not set(np.unique(cell)) <= set(cell[~half]):
            raise InputError("LastLayerRetraining needs two rows of every cell to choose C; give C")
        chosen = np.flatnonzero(half)[balanced_rows(cell[half], rng)]
        worst = []
        for C in self.GRID:
            right = _sparse(C).fit(X[chosen], y[chosen]).predict(X[~half]) == y[~half]
            worst.append(min(right[cell[~half] == code].mean() for code in np.unique(cell)))
        return self.GRID[int(np.argmax(worst))]


def balanced_rows(cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw equally many rows of every cell that occurs, as many as the smallest holds; sorted."""
    codes, sizes = np.unique(cell, return_counts=True)
    drawn = [rng.choice(np.flatnonzero(cell == code), sizes.min(), replace=False) for code in codes]
    return np.sort(np.concatenate(drawn))


def _sparse(C: float) -> LogisticRegression:
    # saga alone fits l1 with several classes; its tolerance is set for standardised rows
    return LogisticRegression(C=C, l1_ratio=1.0, solver="saga", max_iter=200, tol=1e-3, random_state=0)
