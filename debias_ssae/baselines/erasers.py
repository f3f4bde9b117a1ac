"""Linear erasers of representations as estimators; the algebra is in ``erase.linear``."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from debias_ssae import erase
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.selection.scores import encode_attribute, names_of
from debias_ssae.text.checks import check_texts, read_matrix
from debias_ssae.text.concept import Concept

MAX_PAIRS = 1000
"""Counterfactual pairs that the subspace is fitted on, at most."""


def read_attribute(sensitive_features: Any, n: int, asker: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes ``(n,)``, -1 where a value is missing, and the values' names; several columns are crossed.

    Raises InputError without the attribute, for another length than ``n`` and with fewer than two values.
    """
    if sensitive_features is None:
        raise InputError(
            f"{asker} needs the attribute of its training rows: fit(X, y, sensitive_features=...)"
        )
    return encode_attribute(sensitive_features, n)


def apply_attribute(sensitive_features: Any, values: tuple[str, ...], n: int, asker: str) -> np.ndarray:
    """Return codes ``(n,)`` of the ``values`` seen in fit, for methods that need the attribute when used.

    Raises InputError without the attribute, for another length than ``n`` and for a value not seen in fit.
    """
    if sensitive_features is None:
        raise InputError(f"{asker} needs the attribute of the rows it is used on: sensitive_features=...")
    names = names_of(sensitive_features)
    if len(names) != n:
        raise InputError(f"sensitive_features has {len(names)} rows, but X has {n}; they must agree")
    strange = sorted(set(names) - set(values))
    if strange:
        raise InputError(f"sensitive_features holds {strange}, not seen in fit; known: {list(values)}")
    return np.array([values.index(name) for name in names], dtype=int)


class LinearErasure(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, ABC):
    """What the linear erasers share: checks, the fitted map, transform.

    Subclasses implement ``_fit(X, z, y)`` for rows ``[n, d]``, attribute codes and classes.

    Attributes
    ----------
    eraser_ : LinearEraser
        Edits ``x - (x - center) read^T write``; fitted on standardised columns, since all-MiniLM-L6-v2 has some of
        standard deviation 1e-33, where the rounding of a plain projection would be all that is left.
    values_ : tuple of str
        The attribute's values, in the order of their codes.
    """

    needs_attribute_at_predict = False

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Learn what to remove from ``X (n, d)`` and the attribute ``(n,)`` or ``(n, k)``.

        Rows with a missing attribute are left out. Raises InputError without the attribute, with one value only
        and when lengths differ.
        """
        X = read_matrix(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        z, self.values_ = read_attribute(sensitive_features, len(X), type(self).__name__)
        known = z >= 0
        labels = None if y is None else np.asarray(y)[known]
        self.eraser_ = self._fit(X[known].astype(np.float64), z[known], labels)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the edited rows ``(n, d)``; the attribute is not needed."""
        check_is_fitted(self)
        return self.eraser_(read_matrix(self, X, dtype=[np.float64, np.float32], reset=False))

    @abstractmethod
    def _fit(self, X: np.ndarray, z: np.ndarray, y: np.ndarray | None) -> erase.LinearEraser:
        """Return the eraser for these rows, codes and classes."""


@dataclass(eq=False, repr=False, kw_only=True)
class MeanDifference(LinearErasure):
    """Project out the differences between the attribute's group means (orthogonally, of standardised columns)."""

    conditional: bool = False
    """Take the differences inside each class of ``y``, pooled over classes."""

    def _fit(self, X: np.ndarray, z: np.ndarray, y: np.ndarray | None) -> erase.LinearEraser:
        return erase.fit_mean_difference(X, z, classes_of(y, self.conditional))


@dataclass(eq=False, repr=False, kw_only=True)
class LEACE(LinearErasure):
    """Least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819), by the package concept-erasure.

    After it, the groups' means are equal, so no linear classifier beats the constant one on the training rows.
    """

    conditional: bool = False
    """Make the groups' means equal inside each class of ``y``."""
    shrinkage: bool = True
    """Shrink the covariance of ``X`` (the guarantee holds either way)."""
    constrain_trace: bool = False
    """Never let the variance grow; costs the guarantee where it acts."""

    def _fit(self, X: np.ndarray, z: np.ndarray, y: np.ndarray | None) -> erase.LinearEraser:
        return erase.fit_leace(
            X,
            z,
            classes_of(y, self.conditional),
            shrinkage=self.shrinkage,
            constrain_trace=self.constrain_trace,
        )


@dataclass(eq=False, repr=False, kw_only=True)
class INLP(LinearErasure):
    """Iterative nullspace projection (Ravfogel et al. 2020, arXiv 2004.07667).

    ``accuracies_`` are the training accuracies of the ``n_iter_`` classifiers, the last after all projections.
    """

    max_iter: int = 100
    """Classifiers at most."""
    C: float = 1.0
    """Inverse penalty of the logistic regressions."""
    tol: float = 0.01
    """Stop when training accuracy is within this of the majority's share."""

    def _fit(self, X: np.ndarray, z: np.ndarray, y: np.ndarray | None) -> erase.LinearEraser:
        eraser, self.accuracies_ = erase.fit_inlp(X, z, max_iter=self.max_iter, C=self.C, tol=self.tol)
        self.n_iter_ = len(self.accuracies_)
        return eraser


@dataclass(eq=False, repr=False, kw_only=True)
class SPLINCE(LinearErasure):
    """Erase the attribute and keep the covariance with the target (Holstege et al. 2025, arXiv 2506.10703)."""

    shrinkage: bool = True
    """Ledoit-Wolf shrinkage of the covariance of ``X``."""
    tol: float = 1e-6
    """Smaller singular values are taken for zero."""
    min_angle: float = 0.01
    """Refuse when attribute and target span directions closer than this (radians): where they agree in the training
    rows, what should go and what should stay are one."""

    def _fit(self, X: np.ndarray, z: np.ndarray, y: np.ndarray | None) -> erase.LinearEraser:
        if y is None:
            raise InputError("SPLINCE keeps what predicts the target, so fit needs y")
        return erase.fit_splince(X, z, y, shrinkage=self.shrinkage, tol=self.tol, min_angle=self.min_angle)


def classes_of(y: Any, conditional: bool) -> np.ndarray | None:
    """The classes inside which groups are compared, if they are; raises InputError where they are missing."""
    if conditional and y is None:
        raise InputError("conditional=True compares groups inside each class, so fit needs y")
    return np.asarray(y) if conditional else None


@dataclass(eq=False, repr=False)
class CounterfactualSubspace(TransformerMixin, BaseEstimator):
    """Encode texts and project out what the representation changes by when only a concept's words change.

    ``eraser_`` is a LinearEraser: the principal directions of (one version - the other), of standardised columns. Its
    centre, the mean over both versions, stays in place. ``probe_accuracies_`` holds the accuracy of the probe for
    each number of directions that "auto" tried.
    """

    encoder: ActivationEncoder
    concept: Any = "gender"
    """A shipped name, a path, or a Concept."""
    _: KW_ONLY
    n_components: int | Literal["auto"] = "auto"
    """"auto" takes the fewest of 1, 2, 5, 10, 20, 40, ... after which a linear probe, cross-fitted over texts, tells
    the two versions apart no better than chance plus one standard error; if none does, the most."""
    max_texts: int = MAX_PAIRS
    """Texts with counterfactuals that it is fitted on."""
    random_state: int | None = None
    """Draws the texts and the folds."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from texts; no label is read. Raises InputError when fewer than two hold a word of the concept."""
        texts, n = check_texts(X), self.n_components
        if n != "auto" and (not isinstance(n, int | np.integer) or not n >= 1):
            raise InputError(f"n_components must be 'auto' or a positive integer, got {n!r}")
        concept = Concept.load(self.concept)
        order = np.random.default_rng(self.random_state).permutation(len(texts))
        pairs = concept.counterfactual_pairs([texts[i] for i in order], limit=self.max_texts)
        if len(pairs) < 2:
            raise InputError(
                f"{len(pairs)} of {len(texts)} texts hold a word of the concept {concept.name!r}; need two"
            )
        a, b = (self.encoder.encode([getattr(pair, side) for pair in pairs]) for side in ("text_a", "text_b"))
        self.probe_accuracies_: dict[int, float] = {}
        if n == "auto":
            n, self.probe_accuracies_ = erase.sufficient_components(a, b, self.random_state)
        self.eraser_ = erase.fit_counterfactual(a, b, int(n))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d_model)``."""
        check_is_fitted(self)
        return self.eraser_(self.encoder.encode(check_texts(X)))

    def __sklearn_tags__(self) -> Tags:
        return text_tags(super().__sklearn_tags__())


def text_tags(tags: Tags, *, requires_fit: bool = True) -> Tags:
    """The tags of an estimator that takes texts."""
    tags.input_tags.string = True
    tags.input_tags.two_d_array = False
    tags.requires_fit = requires_fit
    return tags


@dataclass(eq=False, repr=False, kw_only=True)
class CorrelationRemoval(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Subtract from each column what a linear regression on the attribute predicts (fairlearn.preprocessing).

    It needs the attribute of the rows it transforms, so it is no debiaser for use on new texts and is never
    ranked among those that are.
    """

    alpha: float = 1.0
    """Share of the correlation that is removed."""

    needs_attribute_at_predict = True

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Fit the regressions. Raises InputError without the attribute or with missing values in it."""
        from fairlearn.preprocessing import CorrelationRemover

        X = read_matrix(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        codes, self.values_ = read_attribute(sensitive_features, len(X), "CorrelationRemoval")
        if (codes < 0).any():
            raise InputError(f"{int((codes < 0).sum())} rows miss the attribute; drop them")
        # one column of a one-hot code follows from the others
        columns = list(range(len(self.values_) - 1))
        self.remover_ = CorrelationRemover(sensitive_feature_ids=columns, alpha=self.alpha)
        self.remover_.fit(self._joined(X, codes))
        return self

    def transform(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Return the residuals ``(n, d)``. Raises InputError without the attribute or for a value not in fit."""
        check_is_fitted(self)
        X = read_matrix(self, X, dtype=[np.float64, np.float32], reset=False)
        codes = apply_attribute(sensitive_features, self.values_, len(X), "CorrelationRemoval")
        edited: np.ndarray = np.asarray(self.remover_.transform(self._joined(X, codes))).astype(X.dtype)
        return edited

    def _joined(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.hstack([np.eye(len(self.values_))[codes][:, :-1], X])
