"""What the SSAE is compared with: text filters, a token mask, linear erasers, group methods; each usable alone."""

from debias_ssae.baselines.bottleneck import HOSPITAL_WORDS, ConceptBottleneck
from debias_ssae.baselines.counterfactual import CounterfactualEraser, counterfactual_subspace
from debias_ssae.baselines.erasers import LEACE, SPLINCE, AttributeErasure, MeanDifference
from debias_ssae.baselines.fairlearn_heads import ParityThresholds, ReducedHead
from debias_ssae.baselines.group_heads import GroupReweighting, GroupSubsampling, LastLayerRetraining
from debias_ssae.baselines.group_robust import GroupDRO
from debias_ssae.baselines.in_model import BlockErasure, scrub_blocks
from debias_ssae.baselines.neurons import NeuronAblation, ablate_neurons
from debias_ssae.baselines.nullspace import INLP
from debias_ssae.baselines.removal import CorrelationRemoval
from debias_ssae.baselines.text import TextScrubber, augment_with_counterfactuals
from debias_ssae.baselines.token_mask import TokenMask, token_mask

__all__ = [
    "HOSPITAL_WORDS",
    "INLP",
    "LEACE",
    "SPLINCE",
    "AttributeErasure",
    "BlockErasure",
    "ConceptBottleneck",
    "CorrelationRemoval",
    "CounterfactualEraser",
    "GroupDRO",
    "GroupReweighting",
    "GroupSubsampling",
    "LastLayerRetraining",
    "MeanDifference",
    "NeuronAblation",
    "ParityThresholds",
    "ReducedHead",
    "TextScrubber",
    "TokenMask",
    "ablate_neurons",
    "augment_with_counterfactuals",
    "counterfactual_subspace",
    "scrub_blocks",
    "token_mask",
]
