"""Removing latents: a small frozen eraser that maps rows of activations to rows of activations."""

from debias_ssae.ablation.eraser import LatentEraser
from debias_ssae.ablation.residual import CounterfactualSubspace, LinearEraser, leace, spread, within_classes

__all__ = ["CounterfactualSubspace", "LatentEraser", "LinearEraser", "leace", "spread", "within_classes"]
