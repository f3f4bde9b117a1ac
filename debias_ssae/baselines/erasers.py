"""Linear erasers with one closed form each: mean difference, LEACE, SPLINCE. All edit ``x - (x - c) R^T L``."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from scipy.linalg import eigh, subspace_angles
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.covariance import ledoit_wolf
from sklearn.utils.validation import check_is_fitted, validate_data

from debias_ssae.baselines.attribute import read_attribute
from debias_ssae.core.errors import InputError, MissingExtraError
from debias_ssae.erase import inverse, orthonormal, spread, within_classes


class AttributeErasure(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, ABC):
    """What all linear erasers share: checks, the fitted map, transform.

    Subclasses implement ``_directions(X, Z, y)`` for standardised rows, which returns ``left [k, d]`` and
    ``right [k, d]`` so that ``x -> x - (x - center) right^T left`` erases. Columns are standardised first:
    all-MiniLM-L6-v2 has some of spread 1e-33, where the rounding of a plain projection would be all that is left.

    Attributes
    ----------
    left_, right_ : ndarray (k, d)
    center_ : ndarray (d,)
        The training mean, which the edit leaves in place.
    values_ : tuple of str
        The attribute's values, in the order of the columns used for fitting.
    """

    needs_attribute_at_predict = False

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Learn what to remove from ``X (n, d)`` and the attribute ``(n,)`` or ``(n, k)``.

        Rows with a missing attribute are left out. Raises InputError without the attribute, with one value only
        and when lengths differ.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        z, self.values_ = read_attribute(sensitive_features, len(X), type(self).__name__)
        known = z >= 0
        Z = np.eye(len(self.values_))[z[known]]
        labels = None if y is None else np.asarray(y)[known]
        rows = X[known].astype(np.float64)
        self.center_, scale = rows.mean(axis=0), spread(rows)
        left, right = self._directions((rows - self.center_) * inverse(scale), Z, labels)
        self.left_, self.right_ = left * scale, right * inverse(scale)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the edited rows ``(n, d)``; the attribute is not needed."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        edited: np.ndarray = (X - (X - self.center_) @ self.right_.T @ self.left_).astype(X.dtype)
        return edited

    @property
    def rank_(self) -> int:
        """How many directions are removed."""
        return len(self.left_)

    @abstractmethod
    def _directions(
        self, X: np.ndarray, Z: np.ndarray, y: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return left and right ``[k, d]`` for rows, one-hot attribute and classes."""


class MeanDifference(AttributeErasure):
    """Project out the differences between the attribute's group means (orthogonally, of standardised columns).

    Parameters
    ----------
    conditional : bool, default=False
        Take the differences inside each class of ``y``.
    """

    def __init__(self, *, conditional: bool = False) -> None:
        self.conditional = conditional

    def _directions(
        self, X: np.ndarray, Z: np.ndarray, y: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        cross = _cross_covariance(X, _targets(Z, y, self.conditional))
        basis = orthonormal(cross)
        return basis.T, basis.T


class LEACE(AttributeErasure):
    """Least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819), by the package concept-erasure.

    After it, the groups' means are equal, so no linear classifier beats the constant one on the training rows.

    Parameters
    ----------
    conditional : bool, default=False
        Make the groups' means equal inside each class of ``y``.
    shrinkage : bool, default=True
        Shrink the covariance of ``X`` (the guarantee holds either way).
    svd_tol : float, default=1e-6
        Smaller singular values of the whitened cross-covariance are taken for zero.
    constrain_trace : bool, default=False
        Never let the variance grow; costs the guarantee where it acts.
    """

    def __init__(
        self,
        *,
        conditional: bool = False,
        shrinkage: bool = True,
        svd_tol: float = 1e-6,
        constrain_trace: bool = False,
    ) -> None:
        self.conditional = conditional
        self.shrinkage = shrinkage
        self.svd_tol = svd_tol
        self.constrain_trace = constrain_trace

    def _directions(
        self, X: np.ndarray, Z: np.ndarray, y: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        try:
            import torch

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it compiles a function on import
                from concept_erasure import LeaceFitter
        except ImportError as error:
            raise MissingExtraError("concept-erasure", "baselines") from error
        Z = _targets(Z, y, self.conditional)
        fitter = LeaceFitter.fit(
            torch.as_tensor(X),
            torch.as_tensor(Z),
            shrinkage=self.shrinkage,
            svd_tol=self.svd_tol,
            constrain_cov_trace=self.constrain_trace,
        )
        eraser = fitter.eraser
        left, right = eraser.proj_left.numpy().T, eraser.proj_right.numpy()
        used = np.abs(left).sum(axis=1) > 0
        return left[used], right[used]


class SPLINCE(AttributeErasure):
    """Erase the attribute and keep the covariance with the target (Holstege et al. 2025, arXiv 2506.10703).

    The oblique projection whose kernel holds Cov(x, attribute) and whose range holds Cov(x, target); among
    those, the one that moves the data least in the metric of their covariance.

    Parameters
    ----------
    shrinkage : bool, default=True
        Ledoit-Wolf shrinkage of the covariance of ``X``.
    tol : float, default=1e-6
        Smaller singular values are taken for zero.
    min_angle : float, default=0.01
        Refuse when attribute and target span directions closer than this (radians): where they agree in the
        training rows, what should go and what should stay are one.
    """

    def __init__(self, *, shrinkage: bool = True, tol: float = 1e-6, min_angle: float = 0.01) -> None:
        self.shrinkage = shrinkage
        self.tol = tol
        self.min_angle = min_angle

    def _directions(
        self, X: np.ndarray, Z: np.ndarray, y: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if y is None:
            raise InputError("SPLINCE keeps what predicts the target, so fit needs y")
        Y = (np.unique(y)[None, :] == y[:, None]).astype(float)
        if Y.shape[1] < 2:
            raise InputError("SPLINCE needs at least two classes in y, got one")
        sigma = ledoit_wolf(X)[0] if self.shrinkage else np.cov(X, rowvar=False)
        whiten, unwhiten = _roots(sigma)
        kernel = orthonormal(whiten @ _cross_covariance(X, Z), self.tol)
        kept = orthonormal(whiten @ _cross_covariance(X, Y), self.tol)
        if not kernel.shape[1]:
            return np.zeros((0, X.shape[1])), np.zeros((0, X.shape[1]))
        angle = float(np.min(subspace_angles(kernel, kept))) if kept.shape[1] else np.pi / 2
        if angle < self.min_angle:
            raise InputError(
                f"attribute and target span the same direction (angle {angle:.4f} rad < {self.min_angle}): SPLINCE has "
                "no solution; fit on rows where they differ"
            )
        # coordinates along the kernel that vanish on what is kept and on everything else
        beyond = kernel - kept @ (kept.T @ kernel)
        right = np.linalg.solve(beyond.T @ kernel, beyond.T) @ whiten
        return (unwhiten @ kernel).T, right


def _targets(Z: np.ndarray, y: np.ndarray | None, conditional: bool) -> np.ndarray:
    """The columns whose covariance with X is to vanish: the one-hot attribute, or it centred in each class."""
    if not conditional:
        return Z
    if y is None:
        raise InputError("conditional=True compares groups inside each class, so fit needs y")
    return within_classes(Z, y)


def _cross_covariance(X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    cross: np.ndarray = (X - X.mean(axis=0)).T @ (Z - Z.mean(axis=0)) / len(X)
    return cross


def _roots(sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse square root and the square root of a covariance, on its support."""
    values, vectors = eigh(np.atleast_2d(sigma))
    held = values > values[-1] * len(values) * np.finfo(float).eps
    values, vectors = values[held], vectors[:, held]
    return vectors / np.sqrt(values) @ vectors.T, vectors * np.sqrt(values) @ vectors.T
