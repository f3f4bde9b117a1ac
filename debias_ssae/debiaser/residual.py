"""The linear eraser that follows the edit: the attribute's direction in the plain model, and what the edit left."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from debias_ssae.ablation import LinearEraser, counterfactual, leace, mean_difference
from debias_ssae.attribution import encode_labels, rows_of_every_cell
from debias_ssae.concept import Concept
from debias_ssae.encoder import ActivationEncoder
from debias_ssae.exceptions import InputError

Represent = Callable[[np.ndarray], np.ndarray]
LABELLED_RESIDUALS = ("mean_difference", "leace")
"""Those that are fitted on attribute labels."""


def residual_kind(asked: str | None, concept: Concept | None, *, changes_anything: bool) -> str | None:
    """Which eraser ``residual=asked`` is. "auto" takes the attribute's direction from the words where there are some
    to swap, or without a concept from the labels; none where nothing is edited.
    """
    if asked != "auto":
        return asked
    if not changes_anything:
        return None
    if concept is None:
        return "mean_difference"
    return "counterfactual" if concept.pairs else None


def fit_leace(x: np.ndarray, z: Any, y: np.ndarray | None) -> LinearEraser:
    """LEACE of the rows ``[n, d]`` whose attribute is known, inside each class where there are classes."""
    codes, _, y = encode_labels(z, y, len(x))
    known = codes >= 0
    return leace(x[known], codes[known], None if y is None else y[known])


def fit_mean_difference(
    edited: Represent,
    z: Any,
    y: np.ndarray | None,
    n: int,
    *,
    max_rows: int,
    min_cell: int,
    random_state: int | None = None,
    plain: Represent | None = None,
) -> LinearEraser:
    """The groups' mean difference, inside each class where there are classes: first in the plain representation,
    then what is left of it after the edit; without ``plain`` the latter alone.

    Both functions give the representations of row numbers out of ``n``; at most about ``max_rows`` are asked for, as
    many of every cell as can be. Values with fewer than ``min_cell`` rows are left out where two others remain: their
    means are noise, and each value costs a direction. Raises InputError where no class holds two values.
    """
    codes, _, y = encode_labels(z, y, n)
    common = np.bincount(codes[codes >= 0]) >= min_cell
    if common.sum() > 1:
        codes = np.where((codes >= 0) & common[codes], codes, -1)
    order = np.random.default_rng(random_state).permutation(n)
    rows = rows_of_every_cell(order, codes, y, max_rows)
    if not len(rows):
        raise InputError(
            'residual="mean_difference" needs a class of the target that holds two attribute values; give labelled '
            "texts of both, or use residual=None"
        )
    labels = codes[rows], None if y is None else y[rows]
    if plain is None:
        return mean_difference(edited(rows), *labels)
    return mean_difference(plain(rows), *labels, edited=edited(rows))


def fit_counterfactual(
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
    concept.check_occurs(texts)
    order = np.random.default_rng(random_state).permutation(len(texts))
    twins = concept.twins([texts[i] for i in order], limit=max_texts)
    a, b = (encoder.encode([getattr(t, side) for t in twins]) for side in ("text_a", "text_b"))
    return counterfactual(a, b)
