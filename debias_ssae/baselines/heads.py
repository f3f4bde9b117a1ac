"""Classifiers on representations: a plain one, those that use group labels in training only, and fairlearn's."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits
from torch.nn.functional import cross_entropy

from debias_ssae.baselines.erasers import apply_attribute, read_attribute
from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.heads import choose_c, fit_head, quiet
from debias_ssae.text.checks import read_matrix


@dataclass(eq=False, repr=False, kw_only=True)
class CrossValidated:
    """What the heads with a penalty chosen by cross-validation share: two parameters, and the choice."""

    C: float | Literal["auto"] = "auto"
    """Inverse penalty; "auto" is the best of 1e-4 ... 10 by 5-fold accuracy on the training rows, weights and all."""
    random_state: int = 0
    """Of the folds, and of whatever else is drawn."""

    def _chosen(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
        if self.C != "auto":
            return float(self.C)
        return choose_c(X, y, sample_weight=weights, random_state=self.random_state)


class LogisticHead(CrossValidated, ClassifierMixin, BaseEstimator):
    """Logistic regression on standardised columns; no group label is read."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on rows ``(n, d)`` and classes ``(n,)``."""
        X, y = read_matrix(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        self.model_ = fit_head(X, y, C=self.C, random_state=self.random_state)
        self.C_ = self.model_[-1].C
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return class labels ``(n,)``."""
        check_is_fitted(self)
        X = read_matrix(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(self.model_.predict(X))


class _Head(ClassifierMixin, BaseEstimator):
    """What the heads with supervision of groups share: reading samples, classes and attribute, and one scaler."""

    needs_attribute_at_predict = False

    def _read(self, X: Any, y: Any, sensitive_features: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return standardised rows, class codes and attribute codes of the rows that have an attribute."""
        X, y = read_matrix(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        z, self.values_ = read_attribute(sensitive_features, len(X), type(self).__name__)
        self.classes_, codes = np.unique(y[z >= 0], return_inverse=True)
        self.scaler_ = StandardScaler().fit(X[z >= 0])
        return self.scaler_.transform(X[z >= 0]), codes, z[z >= 0]

    def _rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(self.scaler_.transform(read_matrix(self, X, dtype=np.float64, reset=False)))


class GroupHead(_Head, ABC):
    """What the group heads share: a linear model on standardised rows, predictions without the attribute.

    Subclasses implement ``_learn(X, y, cell)`` on standardised rows, class codes and cell codes (class x
    attribute), and set ``coef_ [n_classes or 1, d]`` and ``intercept_``.
    """

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Self:
        """Fit on rows ``(n, d)``, classes and the attribute; rows with a missing attribute are left out.

        Raises InputError without the attribute, with one value only, with one class only and when lengths differ.
        """
        rows, codes, z = self._read(X, y, sensitive_features)
        if len(self.classes_) < 2:
            raise InputError(f"y holds only the class {self.classes_[0]!r}; two are needed")
        with quiet():
            self._learn(rows, codes, codes * len(self.values_) + z)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores ``(n,)`` for two classes, ``(n, n_classes)`` for more."""
        scores = self._rows(X) @ self.coef_.T + self.intercept_
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


class GroupReweighting(CrossValidated, GroupHead):
    """Logistic regression with every cell (class x attribute) weighing the same."""

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        sizes = np.bincount(cell)
        weights = len(cell) / (np.count_nonzero(sizes) * sizes[cell])
        self.C_ = self._chosen(X, y, weights)
        model = LogisticRegression(C=self.C_, max_iter=500).fit(X, y, sample_weight=weights)
        self.coef_, self.intercept_ = model.coef_, model.intercept_


class GroupSubsampling(CrossValidated, GroupHead):
    """Logistic regression on as many rows of every cell as the smallest has, drawn at random."""

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        rows = balanced_rows(cell, np.random.default_rng(self.random_state))
        self.C_ = self._chosen(X[rows], y[rows])
        model = LogisticRegression(C=self.C_, max_iter=500).fit(X[rows], y[rows])
        self.coef_, self.intercept_ = model.coef_, model.intercept_


@dataclass(eq=False, repr=False, kw_only=True)
class LastLayerRetraining(GroupHead):
    """Deep feature reweighting (Kirichenko et al. 2023, arXiv 2204.02937): refit the last layer on balanced cells.

    Fit it on a set that holds every cell. An l1-penalised logistic regression on rows drawn evenly from the
    cells, several times, weights averaged; C by worst-cell accuracy on a held-out half.
    """

    C: float | None = None
    """Inverse penalty; None chooses from 1, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01."""
    n_draws: int = 10
    random_state: int | None = None

    GRID = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)

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


@dataclass(eq=False, repr=False, kw_only=True)
class GroupDRO(GroupHead):
    """Minimise the worst cell's loss (Sagawa et al. 2020, arXiv 1911.08731) for a softmax head on fixed rows.

    Every step all rows: cell weights go up by ``exp(step_size * loss)``, then Adam steps on the weighted loss
    plus the penalty. The start is zero, so there is no randomness. ``cell_weights_`` ``(n_cells,)`` are those at the
    end, in the order class, then attribute value; cells without rows are left out.
    """

    penalty: float = 0.01
    """Half the squared weights times this is added to the loss; large penalties are what makes group DRO work."""
    step_size: float = 0.1
    """Of the cell weights."""
    lr: float = 0.02
    n_steps: int = 500

    def _learn(self, X: np.ndarray, y: np.ndarray, cell: np.ndarray) -> None:
        rows = torch.as_tensor(X, dtype=torch.float32)
        labels = torch.as_tensor(y)
        codes, index = np.unique(cell, return_inverse=True)
        members = torch.as_tensor(index)
        sizes = torch.bincount(members).float()
        weight = torch.zeros(len(self.classes_), X.shape[1], requires_grad=True)
        bias = torch.zeros(len(self.classes_), requires_grad=True)
        log_q = torch.zeros(len(codes))
        optimiser = torch.optim.Adam([weight, bias], lr=self.lr)
        for _ in range(self.n_steps):
            losses = cross_entropy(rows @ weight.T + bias, labels, reduction="none")
            by_cell = torch.zeros(len(codes)).index_add(0, members, losses) / sizes
            log_q = torch.log_softmax(log_q + self.step_size * by_cell.detach(), 0)
            optimiser.zero_grad()
            ((log_q.exp() * by_cell).sum() + self.penalty / 2 * weight.square().sum()).backward()
            optimiser.step()
        coef, intercept = weight.detach().numpy().astype(float), bias.detach().numpy().astype(float)
        two = len(coef) == 2
        self.coef_ = coef[1:] - coef[:1] if two else coef
        self.intercept_ = intercept[1:] - intercept[:1] if two else intercept
        self.cell_weights_ = log_q.exp().numpy()


class _TwoClassHead(CrossValidated, _Head):
    """What fairlearn's reduction and post-processing share: heads of two classes whose predictions are drawn."""

    def _learn(self, model: Any, rows: np.ndarray, y: np.ndarray, z: np.ndarray) -> Self:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fairlearn under new pandas and scipy
            model.fit(rows, y, sensitive_features=z)
        self.model_ = model
        return self

    def _read(self, X: Any, y: Any, sensitive_features: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, codes, z = super()._read(X, y, sensitive_features)
        if len(self.classes_) != 2:
            raise InputError(f"{type(self).__name__} takes two classes, y has {len(self.classes_)}")
        self.C_ = self._chosen(rows, codes)
        return rows, codes, z

    def _drawn(self, rows: np.ndarray, **options: Any) -> np.ndarray:
        drawn = self.model_.predict(rows, random_state=self.random_state, **options)
        labels: np.ndarray = self.classes_[np.asarray(drawn).astype(int)]
        return labels


@dataclass(eq=False, repr=False, kw_only=True)
class ReducedHead(_TwoClassHead):
    """Exponentiated gradient (Agarwal et al. 2018, arXiv 1803.02453) over logistic regressions.

    Predictions are drawn from a mixture of classifiers.
    """

    constraint: str = "equalized_odds"
    """Or "demographic_parity", "true_positive_rate_parity"."""
    eps: float = 0.02
    """Allowed violation."""
    max_iter: int = 30

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Self:
        """Fit on rows ``(n, d)``; rows with a missing attribute are left out.

        Raises InputError for more than two classes, without the attribute and for an unknown constraint.
        """
        from fairlearn import reductions

        known = {
            "equalized_odds": reductions.EqualizedOdds,
            "demographic_parity": reductions.DemographicParity,
            "true_positive_rate_parity": reductions.TruePositiveRateParity,
        }
        if self.constraint not in known:
            raise InputError(f"Unknown constraint {self.constraint!r}; known: {', '.join(known)}")
        rows, target, z = self._read(X, y, sensitive_features)
        model = reductions.ExponentiatedGradient(
            LogisticRegression(C=self.C_, max_iter=300),
            known[self.constraint](difference_bound=self.eps),
            max_iter=self.max_iter,
        )
        return self._learn(model, rows, target, z)

    def predict(self, X: Any) -> np.ndarray:
        """Return class labels ``(n,)``, each drawn from the mixture."""
        return self._drawn(self._rows(X))


@dataclass(eq=False, repr=False, kw_only=True)
class ParityThresholds(_TwoClassHead):
    """A threshold for each group on a logistic regression's score (Hardt et al. 2016, arXiv 1610.02413).

    It needs the attribute of the rows it predicts, so it is never ranked among the methods that do not. Predictions
    between two thresholds are drawn.
    """

    constraint: str = "equalized_odds"
    """As in fairlearn.postprocessing.ThresholdOptimizer."""

    needs_attribute_at_predict = True

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Self:
        """Fit on rows ``(n, d)``; rows with a missing attribute are left out.

        Raises InputError for more than two classes, without the attribute, and when a group holds one class only.
        """
        from fairlearn.postprocessing import ThresholdOptimizer

        rows, target, z = self._read(X, y, sensitive_features)
        for code, value in enumerate(self.values_):
            if len(np.unique(target[z == code])) < 2:
                raise InputError(f"group {value!r} holds one class only: there is no threshold to set for it")
        model = ThresholdOptimizer(
            estimator=LogisticRegression(C=self.C_, max_iter=500),
            constraints=self.constraint,
            predict_method="decision_function",
        )
        return self._learn(model, rows, target, z)

    def predict(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Return class labels ``(n,)``. Raises InputError without the attribute or for a value not in fit."""
        rows = self._rows(X)
        z = apply_attribute(sensitive_features, self.values_, len(rows), "ParityThresholds")
        return self._drawn(rows, sensitive_features=z)


def balanced_rows(cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw equally many rows of every cell that occurs, as many as the smallest holds; sorted."""
    codes, sizes = np.unique(cell, return_counts=True)
    drawn = [rng.choice(np.flatnonzero(cell == code), sizes.min(), replace=False) for code in codes]
    return np.sort(np.concatenate(drawn))


def _sparse(C: float) -> LogisticRegression:
    # saga alone fits l1 with several classes; its tolerance is set for standardised rows
    return LogisticRegression(C=C, l1_ratio=1.0, solver="saga", max_iter=200, tol=1e-3, random_state=0)
