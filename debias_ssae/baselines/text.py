"""Filters and augmentation that work on the text itself and need no model."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from debias_ssae.core.errors import InputError
from debias_ssae.text.checks import check_texts
from debias_ssae.text.concept import Concept


class TextScrubber(TransformerMixin, BaseEstimator):
    """Replace the words that show the attribute by neutral ones: the filter every debiaser has to beat.

    Parameters
    ----------
    concept : str, path or Concept, default="gender"
        Whose words are replaced.
    optional : tuple of str, default=()
        Optional sections of a concept given by name or path; ``("names",)`` scrubs first names as well.
    """

    needs_attribute_at_predict = False

    def __init__(self, concept: Any = "gender", *, optional: tuple[str, ...] = ()) -> None:
        self.concept = concept
        self.optional = optional

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the concept; nothing is learnt from ``X``."""
        if isinstance(self.concept, Concept):
            self.concept_ = self.concept.with_optional(*self.optional)
        else:
            self.concept_ = Concept.load(self.concept, optional=self.optional)
        return self

    def transform(self, X: Any) -> list[str]:
        """Return the texts without the concept's words, in order."""
        if not hasattr(self, "concept_"):
            self.fit()
        return [self.concept_.scrub(text) for text in check_texts(X)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


class Augmented(NamedTuple):
    """Texts and their swapped copies; ``source[i]`` is the row that text i was made from."""

    texts: list[str]
    y: np.ndarray
    source: np.ndarray
    is_counterfactual: np.ndarray


def augment_with_counterfactuals(texts: Sequence[str], y: Any, concept: Concept) -> Augmented:
    """Add to each text its copy with the attribute's words swapped, with the same target.

    Counterfactual data augmentation (Lu et al. 2020, arXiv 1807.11714): the texts come first, as they are, then
    the copies of those that hold a word of the concept. Raises InputError when lengths differ or none does.
    """
    texts, y = check_texts(texts), np.asarray(y)
    if len(y) != len(texts):
        raise InputError(f"y has {len(y)} rows, but there are {len(texts)} texts; they must agree")
    counterfactuals = [concept.counterfactual(text) for text in texts]
    swapped = np.array(
        [i for i, counterfactual in enumerate(counterfactuals) if counterfactual is not None], dtype=int
    )
    if not len(swapped):
        raise InputError(f"none of the {len(texts)} texts holds a word of the concept {concept.name!r}")
    source = np.concatenate([np.arange(len(texts)), swapped])
    return Augmented(
        [*texts, *(counterfactual for counterfactual in counterfactuals if counterfactual is not None)],
        y[source],
        source,
        np.arange(len(source)) >= len(texts),
    )
