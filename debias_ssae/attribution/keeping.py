"""Which latents carry more of the target than of the attribute: what to keep where too many carry the attribute."""

from dataclasses import replace

import numpy as np

from debias_ssae.attribution.labelled import class_conditional_contrast
from debias_ssae.attribution.scores import LatentScores


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
    p-value are the attribute's. Raises InputError as that function does, for either of the two.
    """
    known = z >= 0
    names, classes = np.unique(np.asarray(y)[known].astype(str), return_inverse=True)
    of_attribute = class_conditional_contrast(latents, firing_rate, z, values, y, min_cell=min_cell)
    of_target = class_conditional_contrast(
        latents[known], firing_rate, classes, tuple(names.tolist()), z[known], min_cell=min_cell
    )
    margin = np.maximum(of_target.score - of_attribute.score, 0.0)
    return replace(of_attribute, method="target_margin", score=margin)
