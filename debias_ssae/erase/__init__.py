"""Erasers: of latents inside the model, and of directions in what leaves it."""

from debias_ssae.erase.latents import LatentEraser
from debias_ssae.erase.linear import (
    LinearEraser,
    counterfactual,
    displacement,
    fit_inlp,
    fit_splince,
    inverse,
    joined,
    leace,
    mean_difference,
    orthonormal,
    principal_directions,
    spread,
    sufficient_components,
    within_classes,
)

__all__ = [
    "LatentEraser",
    "LinearEraser",
    "counterfactual",
    "displacement",
    "fit_inlp",
    "fit_splince",
    "inverse",
    "joined",
    "leace",
    "mean_difference",
    "orthonormal",
    "principal_directions",
    "spread",
    "sufficient_components",
    "within_classes",
]
