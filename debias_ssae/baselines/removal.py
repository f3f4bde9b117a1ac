"""fairlearn's CorrelationRemover behind this package's signature."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from debias_ssae.baselines.attribute import apply_attribute, read_attribute
from debias_ssae.core.errors import InputError


class CorrelationRemoval(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Subtract from each column what a linear regression on the attribute predicts (fairlearn.preprocessing).

    It needs the attribute of the rows it transforms, so it is no debiaser for use on new texts and is never
    ranked among those that are.

    Parameters
    ----------
    alpha : float, default=1.0
        Share of the correlation that is removed.
    """

    needs_attribute_at_predict = True

    def __init__(self, *, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Fit the regressions. Raises InputError without the attribute or with missing values in it."""
        from fairlearn.preprocessing import CorrelationRemover

        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        codes, self.values_ = read_attribute(sensitive_features, len(X), "CorrelationRemoval")
        if (codes < 0).any():
            raise InputError(f"{int((codes < 0).sum())} rows miss the attribute; drop them")
        # one column of a one-hot code follows from the others
        self.columns_ = list(range(len(self.values_) - 1))
        self.remover_ = CorrelationRemover(sensitive_feature_ids=self.columns_, alpha=self.alpha)
        self.remover_.fit(self._joined(X, codes))
        return self

    def transform(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Return the residuals ``(n, d)``. Raises InputError without the attribute or for a value not in fit."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        codes = apply_attribute(sensitive_features, self.values_, len(X), "CorrelationRemoval")
        edited: np.ndarray = np.asarray(self.remover_.transform(self._joined(X, codes))).astype(X.dtype)
        return edited

    def _joined(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.hstack([np.eye(len(self.values_))[codes][:, :-1], X])
