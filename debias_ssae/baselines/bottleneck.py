"""Concept bottleneck probing: the head sees a text's closeness to a few words, and nothing else."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text.checks import check_texts

HOSPITAL_WORDS = (
    "surgery", "operation", "incision", "transplant", "orthopedic", "board certified", "residency", "fellowship",
    "operating room", "surgical technique", "bedside", "patient care", "family practice", "nursing school", "clinic",
    "health education", "pediatrics", "medication", "intensive care unit", "home care",
)  # fmt: skip
"""Twenty words for surgeon against nurse, from general knowledge; other tasks need their own."""


class ConceptBottleneck(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Cosine similarity of a representation to each of a few words' representations.

    The baseline of SHIFT (Marks et al. 2024, arXiv 2403.19647): words that are about the task and say nothing
    of the attribute; any classifier on top.

    Parameters
    ----------
    encoder : ActivationEncoder
        It made the rows and encodes the words.
    words : sequence of str
        Twenty in the paper.
    """

    needs_attribute_at_predict = False

    def __init__(self, encoder: ActivationEncoder, words: Sequence[str] = HOSPITAL_WORDS) -> None:
        self.encoder = encoder
        self.words = words

    def fit(self, X: Any, y: Any = None) -> Self:
        """Encode the words and centre on the training mean. Raises InputError for another width than ``X``'s."""
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        vectors = self.encoder.encode(check_texts(list(self.words)))
        if vectors.shape[1] != X.shape[1]:
            raise InputError(f"X has {X.shape[1]} columns, but the encoder gives {vectors.shape[1]}")
        self.center_ = X.mean(axis=0)
        self.word_vectors_ = _unit(vectors - vectors.mean(axis=0)).astype(X.dtype)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return similarities ``(n, n_words)``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return _unit(X - self.center_) @ self.word_vectors_.T

    @property
    def _n_features_out(self) -> int:
        return len(self.word_vectors_)


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
