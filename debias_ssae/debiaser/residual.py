"""The linear eraser that follows the edit: the attribute's direction in the plain model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from debias_ssae.ablation import LinearEraser, counterfactual, leace
from debias_ssae.attribution import encode_labels
from debias_ssae.concept import Concept
from debias_ssae.encoder import ActivationEncoder
from debias_ssae.exceptions import InputError


def residual_kind(asked: str | None, concept: Concept | None, changes_anything: bool) -> str | None:
    """Which eraser ``residual=asked`` is: "auto" takes "counterfactual" where there are words to swap."""
    if asked != "auto":
        return asked
    return "counterfactual" if concept is not None and concept.pairs and changes_anything else None


def fit_leace(x: np.ndarray, z: Any, y: np.ndarray | None) -> LinearEraser:
    """LEACE of the rows ``[n, d]`` whose attribute is known, inside each class where there are classes."""
    codes, _, y = encode_labels(z, y, len(x))
    known = codes >= 0
    return leace(x[known], codes[known], None if y is None else y[known])


def fit_residual(
    encoder: ActivationEncoder,
    texts: Sequence[str],
    concept: Concept,
    max_texts: int,
    random_state: int | None = None,
) -> LinearEraser:
    """Fit the mean direction in which the plain representation moves when the concept's words are swapped.

    The plain one, since after the edit little is left of the listed words: the direction is there to catch what
    the list does not name. At most ``max_texts`` of ``texts`` that have twins are used. Raises InputError where
    none has.
    """
    order = np.random.default_rng(random_state).permutation(len(texts))
    twins = concept.twins([texts[i] for i in order], limit=max_texts)
    if not twins:
        raise InputError(
            f"none of the {len(texts)} texts holds a word of the concept {concept.name!r}; "
            "give a concept whose words occur in the texts"
        )
    a, b = (encoder.encode([getattr(t, side) for t in twins]) for side in ("text_a", "text_b"))
    return counterfactual(a, b)
