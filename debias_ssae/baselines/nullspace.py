"""Iterative nullspace projection."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from debias_ssae.baselines.erasers import AttributeErasure


class INLP(AttributeErasure):
    """Iterative nullspace projection (Ravfogel et al. 2020, arXiv 2004.07667).

    Fit a linear classifier of the attribute, project its weights out, repeat until it is no better than the
    majority on the training rows.

    Parameters
    ----------
    max_iter : int, default=100
        Classifiers at most.
    C : float, default=1.0
        Inverse penalty of the logistic regressions.
    tol : float, default=0.01
        Stop when training accuracy is within this of the majority's share.

    Attributes
    ----------
    accuracies_ : list of float
        Training accuracy of each classifier, the last after all projections.
    n_iter_ : int
        Classifiers fitted.
    """

    def __init__(self, *, max_iter: int = 100, C: float = 1.0, tol: float = 0.01) -> None:
        self.max_iter = max_iter
        self.C = C
        self.tol = tol

    def _directions(
        self, X: np.ndarray, Z: np.ndarray, y: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        z = Z.argmax(axis=1)
        majority = np.bincount(z).max() / len(z)
        rows = X
        basis = np.zeros((0, X.shape[1]))
        self.accuracies_: list[float] = []
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for _ in range(self.max_iter + 1):
                model = LogisticRegression(C=self.C, max_iter=300).fit(rows, z)
                self.accuracies_.append(float(model.score(rows, z)))
                full = len(basis) >= X.shape[1]
                if (
                    self.accuracies_[-1] <= majority + self.tol
                    or len(self.accuracies_) > self.max_iter
                    or full
                ):
                    break
                weights = model.coef_ - model.coef_ @ basis.T @ basis
                _, s, directions = np.linalg.svd(weights, full_matrices=False)
                basis = np.vstack([basis, directions[s > 1e-9 * max(s.max(), 1e-300)]])
                rows = rows - rows @ basis.T @ basis
        self.n_iter_ = len(self.accuracies_)
        return basis, basis
