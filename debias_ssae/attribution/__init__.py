"""Which latents carry the attribute: from labels, or from a concept without labels."""

from debias_ssae.attribution.concept import counterfactual_contrast
from debias_ssae.attribution.controls import matched_random_latents
from debias_ssae.attribution.labelled import class_conditional_contrast, encode_attribute
from debias_ssae.attribution.scores import LatentScores, pooled_latents

__all__ = [
    "LatentScores",
    "class_conditional_contrast",
    "counterfactual_contrast",
    "encode_attribute",
    "matched_random_latents",
    "pooled_latents",
]
