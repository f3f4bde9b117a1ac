"""Which latents carry more of the target than of the attribute: what to keep where too many carry the attribute."""

from dataclasses import replace

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.selection.labelled import class_conditional_contrast
from debias_ssae.selection.scores import LatentScores

MOST_NAMED = 6
"""Combinations that an error names."""


def target_margin(
    latents: np.ndarray,
    firing_rate: np.ndarray,
    z: np.ndarray,
    values: tuple[str, ...],
    y: np.ndarray,
    *,
    min_cell: int = 20,
) -> LatentScores:
    """Score latents by the target's effect inside each value of the attribute, less the attribute's in each class.

    Both in standard errors, as :func:`class_conditional_contrast` has them; 0 where the attribute's is larger.
    ``latents [n, d_sae]`` are mean latents of a text, ``z [n]`` codes of ``values`` (-1 unknown). Sign, effect and
    p-value are the attribute's.

    Raises InputError where no class holds two values, or no value two classes, with ``min_cell`` texts each.
    """
    known = z >= 0
    names, classes = np.unique(np.asarray(y)[known].astype(str), return_inverse=True)
    _check_cells(classes, z[known], names, values, min_cell)
    of_attribute = class_conditional_contrast(latents, firing_rate, z, values, y, min_cell=min_cell)
    of_target = class_conditional_contrast(
        latents[known], firing_rate, classes, tuple(names.tolist()), z[known], min_cell=min_cell
    )
    margin = np.maximum(of_target.score - of_attribute.score, 0.0)
    return replace(of_attribute, method="target_margin", score=margin)


def _check_cells(
    classes: np.ndarray, z: np.ndarray, names: np.ndarray, values: tuple[str, ...], min_cell: int
) -> None:
    """Raise InputError where target and attribute cannot be told apart, naming the combinations that lack texts."""
    sizes = np.zeros((len(names), len(values)), dtype=int)
    np.add.at(sizes, (classes, z), 1)
    large = sizes >= min_cell
    if all((large & (sizes.sum(axis=axis, keepdims=True) - sizes >= min_cell)).any() for axis in (0, 1)):
        return
    lacking = [f"{names[c]!s} with {values[g]} ({sizes[c, g]})" for c, g in np.argwhere(~large)[:MOST_NAMED]]
    raise InputError(
        f"the target cannot be told from the attribute: of these combinations there are fewer than {min_cell} texts: "
        f"{', '.join(lacking)}; keeping needs a class with two attribute values and a value with two classes, so "
        "label more texts of these"
    )
