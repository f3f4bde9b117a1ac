"""The counterfactual subspace: what a representation changes by when only the attribute's words change."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from debias_ssae.core.errors import InputError
from debias_ssae.erase import inverse, principal_directions, spread
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text.concept import Concept

GRID = (1, 2, 5, 10, 20, 40, 60, 80, 120, 160, 240)


class CounterfactualEraser(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Project out the principal directions of (one version - the other), of standardised columns; no labels.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        "auto" takes the fewest of 1, 2, 5, 10, 20, 40, ... after which a linear probe, cross-fitted over texts,
        tells the two versions apart no better than chance plus one standard error; if none does, the most.
    random_state : int, optional
        Which texts are in which fold.

    Attributes
    ----------
    components_ : ndarray (k, d)
        In units of the columns' spread.
    center_, scale_ : ndarray (d,)
        Mean and spread over both versions; the edit leaves the mean in place.
    probe_accuracies_ : dict of int to float
        Balanced accuracy of the probe for each number tried by "auto".
    """

    needs_attribute_at_predict = False

    def __init__(
        self, n_components: int | Literal["auto"] = "auto", *, random_state: int | None = None
    ) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, counterfactuals: Any = None) -> Self:
        """Learn from ``X (n, d)``, texts in one version, and ``counterfactuals (n, d)``, the same texts in the other.

        Raises InputError without counterfactuals, when shapes differ and when no counterfactual differs from its text.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if counterfactuals is None:
            raise InputError(
                "CounterfactualEraser needs the same texts in the other version: fit(X, counterfactuals=...)"
            )
        counterfactuals = np.asarray(counterfactuals)
        if counterfactuals.shape != X.shape:
            raise InputError(
                f"counterfactuals has shape {counterfactuals.shape}, but X has {X.shape}; they must agree"
            )
        n = self.n_components
        if n != "auto" and (not isinstance(n, int | np.integer) or not n >= 1):
            raise InputError(f"n_components must be 'auto' or a positive integer, got {n!r}")
        a, b = X.astype(np.float64), counterfactuals.astype(np.float64)
        if np.allclose(a, b):
            raise InputError(
                "no counterfactual differs from its text: the concept's words do not occur in the texts"
            )
        self.probe_accuracies_: dict[int, float] = {}
        both = np.vstack([a, b])
        self.center_, self.scale_ = both.mean(axis=0), spread(both)
        a, b = ((x - self.center_) * inverse(self.scale_) for x in (a, b))
        count = self._choose(a, b) if n == "auto" else min(int(n), X.shape[1])
        self.components_ = principal_directions(b - a)[:count]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the edited rows ``(n, d)``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        along = (X - self.center_) * inverse(self.scale_) @ self.components_.T
        edited: np.ndarray = (X - along @ self.components_ * self.scale_).astype(X.dtype)
        return edited

    def _choose(self, a: np.ndarray, b: np.ndarray) -> int:
        n_folds = min(5, len(a))
        order = np.random.default_rng(self.random_state).permutation(len(a))
        groups = np.empty(len(a), dtype=int)
        groups[order] = np.arange(len(a)) % n_folds
        folds = list(GroupKFold(n_folds).split(a, groups=groups))
        limit = 0.5 + 0.5 / np.sqrt(2 * len(a))
        usable = [k for k in GRID if k < a.shape[1]] or [1]
        with threadpool_limits(1):
            # the directions of a fold come from its training texts only
            bases = [principal_directions(b[train] - a[train]) for train, _ in folds]
            for k in usable:
                scores = [_probe(a, b, basis[:k], *fold) for basis, fold in zip(bases, folds, strict=True)]
                self.probe_accuracies_[k] = float(np.mean(scores))
                if self.probe_accuracies_[k] <= limit:
                    return k
        return usable[-1]


def counterfactual_subspace(
    encoder: ActivationEncoder,
    texts: Sequence[str],
    concept: Concept,
    *,
    n_components: int | Literal["auto"] = "auto",
    max_texts: int = 1000,
    random_state: int | None = None,
) -> CounterfactualEraser:
    """Fit a CounterfactualEraser on at most ``max_texts`` of ``texts`` in both versions of ``concept``.

    Raises InputError when no text holds a word of the concept.
    """
    order = np.random.default_rng(random_state).permutation(len(texts))
    counterfactuals = concept.counterfactual_pairs([texts[i] for i in order], limit=max_texts)
    if len(counterfactuals) < 2:
        raise InputError(
            f"{len(counterfactuals)} of {len(texts)} texts hold a word of the concept {concept.name!r}; need two"
        )
    a = encoder.encode([pair.text_a for pair in counterfactuals])
    b = encoder.encode([pair.text_b for pair in counterfactuals])
    return CounterfactualEraser(n_components, random_state=random_state).fit(a, counterfactuals=b)


def _probe(a: np.ndarray, b: np.ndarray, basis: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy of a linear probe that tells the versions of held-out texts apart after the projection."""
    middle = (a[train].mean(axis=0) + b[train].mean(axis=0)) / 2

    def erased(rows: np.ndarray) -> np.ndarray:
        rows = rows - middle
        return rows - rows @ basis.T @ basis

    left = np.vstack([erased(a[train]), erased(b[train])])
    held = np.vstack([erased(a[test]), erased(b[test])])
    model = LogisticRegression(C=1.0, max_iter=200).fit(left, np.repeat([0, 1], len(train)))
    return float(model.score(held, np.repeat([0, 1], len(test))))
