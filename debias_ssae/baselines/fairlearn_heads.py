"""fairlearn's reduction and post-processing as heads on representations, for two classes."""

import warnings
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from debias_ssae.baselines.attribute import apply_attribute, read_attribute
from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.heads import choose_c


class _TwoClassHead(ClassifierMixin, BaseEstimator):
    C: float | Literal["auto"]
    random_state: int

    def _check(self, X: Any, y: Any, sensitive_features: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return standardised rows, 0/1 targets and attribute codes of the rows that have an attribute."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        z, self.values_ = read_attribute(sensitive_features, len(X), type(self).__name__)
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            raise InputError(f"{type(self).__name__} takes two classes, y has {len(self.classes_)}")
        known = z >= 0
        self.scaler_ = StandardScaler().fit(X[known])
        rows, target = self.scaler_.transform(X[known]), (y[known] == self.classes_[1]).astype(int)
        self.C_ = choose_c(rows, target, random_state=self.random_state) if self.C == "auto" else self.C
        return rows, target, z[known]

    def _rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scaled: np.ndarray = self.scaler_.transform(X)
        return scaled


class ReducedHead(_TwoClassHead):
    """Exponentiated gradient (Agarwal et al. 2018, arXiv 1803.02453) over logistic regressions.

    Parameters
    ----------
    C : float or "auto", default="auto"
        Inverse penalty of the logistic regressions; "auto" as in ``LogisticHead``.
    constraint : {"equalized_odds", "demographic_parity", "true_positive_rate_parity"}
    eps : float, default=0.02
        Allowed violation.
    max_iter : int, default=30
    random_state : int, default=0
        Predictions are drawn from a mixture of classifiers.
    """

    needs_attribute_at_predict = False

    def __init__(
        self,
        *,
        C: float | Literal["auto"] = "auto",
        constraint: str = "equalized_odds",
        eps: float = 0.02,
        max_iter: int = 30,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.constraint = constraint
        self.eps = eps
        self.max_iter = max_iter
        self.random_state = random_state

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
        rows, target, z = self._check(X, y, sensitive_features)
        self.reduction_ = reductions.ExponentiatedGradient(
            LogisticRegression(C=self.C_, max_iter=300),
            known[self.constraint](difference_bound=self.eps),
            max_iter=self.max_iter,
        )
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fairlearn under new pandas and scipy
            self.reduction_.fit(rows, target, sensitive_features=z)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return class labels ``(n,)``, each drawn from the mixture."""
        rows = self._rows(X)
        chosen = np.asarray(self.reduction_.predict(rows, random_state=self.random_state)).astype(int)
        labels: np.ndarray = self.classes_[chosen]
        return labels


class ParityThresholds(_TwoClassHead):
    """A threshold for each group on a logistic regression's score (Hardt et al. 2016, arXiv 1610.02413).

    It needs the attribute of the rows it predicts, so it is never ranked among the methods that do not.

    Parameters
    ----------
    C : float or "auto", default="auto"
        Inverse penalty; "auto" as in ``LogisticHead``.
    constraint : str, default="equalized_odds"
        As in fairlearn.postprocessing.ThresholdOptimizer.
    random_state : int, default=0
        Predictions between two thresholds are drawn.
    """

    needs_attribute_at_predict = True

    def __init__(
        self,
        *,
        C: float | Literal["auto"] = "auto",
        constraint: str = "equalized_odds",
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.constraint = constraint
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Self:
        """Fit on rows ``(n, d)``; rows with a missing attribute are left out.

        Raises InputError for more than two classes, without the attribute, and when a group holds one class only.
        """
        from fairlearn.postprocessing import ThresholdOptimizer

        rows, target, z = self._check(X, y, sensitive_features)
        for code, value in enumerate(self.values_):
            if len(np.unique(target[z == code])) < 2:
                raise InputError(f"group {value!r} holds one class only: there is no threshold to set for it")
        self.optimizer_ = ThresholdOptimizer(
            estimator=LogisticRegression(C=self.C_, max_iter=500),
            constraints=self.constraint,
            predict_method="decision_function",
        )
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fairlearn under new pandas
            self.optimizer_.fit(rows, target, sensitive_features=z)
        return self

    def predict(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Return class labels ``(n,)``. Raises InputError without the attribute or for a value not in fit."""
        rows = self._rows(X)
        z = apply_attribute(sensitive_features, self.values_, len(rows), "ParityThresholds")
        drawn = self.optimizer_.predict(rows, sensitive_features=z, random_state=self.random_state)
        labels: np.ndarray = self.classes_[np.asarray(drawn).astype(int)]
        return labels
