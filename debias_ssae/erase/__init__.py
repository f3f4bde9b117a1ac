"""Erasers: of latents inside the model, and of directions in what leaves it."""

from debias_ssae.erase.latents import LatentEraser
from debias_ssae.erase.linear import (
    LinearEraser,
    fit_counterfactual,
    fit_displacement,
    fit_inlp,
    fit_leace,
    fit_mean_difference,
    fit_splince,
    inverse,
    joined,
    orthonormal,
    principal_directions,
    spread,
    sufficient_components,
    within_classes,
)

__all__ = [
    "LatentEraser",
    "LinearEraser",
    "fit_counterfactual",
    "fit_displacement",
    "fit_inlp",
    "fit_leace",
    "fit_mean_difference",
    "fit_splince",
    "inverse",
    "joined",
    "orthonormal",
    "principal_directions",
    "spread",
    "sufficient_components",
    "within_classes",
]
