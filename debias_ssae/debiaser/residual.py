"""The linear eraser that follows the edit: the attribute's direction in the plain model, and what the edit left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.erase import LinearEraser, counterfactual, leace, mean_difference
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.selection import Linear, encode_labels, rows_of_every_cell
from debias_ssae.text.concept import Concept

Represent = Callable[[np.ndarray], np.ndarray]
LABELLED_RESIDUALS: dict[str, Linear] = {"mean_difference": mean_difference, "leace": leace}
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


@dataclass(frozen=True)
class Rows:
    """How to come by the representations of row numbers, ``[n] -> [n, d]``, without and with the edit."""

    plain: Represent
    edited: Represent
    n: int
    limit: int
    """About how many are worth representing."""


def fit_labelled(
    kind: str,
    rows: Rows,
    z: Any,
    y: np.ndarray | None,
    *,
    keep: bool = False,
    min_cell: int = 1,
    random_state: int | None = None,
) -> LinearEraser:
    """LEACE of the edited rows whose attribute is known, or the groups' mean difference, inside each class where
    there are classes: first in the plain representation, then what is left of it after the edit; with ``keep``,
    which leaves little of the plain one, the latter alone.

    For the mean difference at most about ``rows.limit`` are represented, as many of every cell as can be. Values
    with fewer than ``min_cell`` rows are left out where two others remain: their means are noise, and each value
    costs a direction. Raises InputError where no class holds two values.
    """
    codes, _, y = encode_labels(z, y, rows.n)
    if kind == "leace":
        known = np.flatnonzero(codes >= 0)
        return leace(rows.edited(np.arange(rows.n))[known], codes[known], None if y is None else y[known])
    common = np.bincount(codes[codes >= 0]) >= min_cell
    if common.sum() > 1:
        codes = np.where((codes >= 0) & common[codes], codes, -1)
    order = np.random.default_rng(random_state).permutation(rows.n)
    chosen = rows_of_every_cell(order, codes, y, rows.limit)
    if not len(chosen):
        raise InputError(
            'residual="mean_difference" needs a class of the target that holds two attribute values; give labelled '
            "texts of both, or use residual=None"
        )
    edited, labels = rows.edited(chosen), (codes[chosen], None if y is None else y[chosen])
    eraser = (
        mean_difference(edited, *labels)
        if keep
        else mean_difference(rows.plain(chosen), *labels, edited=edited)
    )
    n_values = len(np.unique(labels[0]))
    if n_values > 2 and len(eraser.left) >= edited.shape[1]:
        raise InputError(
            f"the means of {n_values} attribute values differ in all {edited.shape[1]} dimensions, so "
            'residual="mean_difference" would leave nothing; merge values, or use residual=None'
        )
    return eraser


def fit_counterfactual(
    encoder: ActivationEncoder,
    texts: Sequence[str],
    concept: Concept,
    max_texts: int,
    random_state: int | None = None,
) -> LinearEraser:
    """Fit the mean direction in which the plain representation moves when the concept's words are swapped.

    The plain one, since after the edit little is left of the listed words: the direction is there to catch what
    the list does not name. More than two values need more directions than one, as many as there are values less
    one. At most ``max_texts`` of ``texts`` that have counterfactuals are used.
    Raises InputError where none has.
    """
    concept.check_occurs(texts)
    order = np.random.default_rng(random_state).permutation(len(texts))
    counterfactuals = concept.counterfactual_pairs([texts[i] for i in order], limit=max_texts)
    a, b = (encoder.encode([getattr(t, side) for t in counterfactuals]) for side in ("text_a", "text_b"))
    return counterfactual(a, b, len(concept.values) - 1)
