"""What the SSAE is compared with: text filters, a token mask, linear erasers, group methods; each usable alone."""

from debias_ssae.baselines.erasers import (
    INLP,
    LEACE,
    SPLINCE,
    CorrelationRemoval,
    CounterfactualEraser,
    CounterfactualSubspace,
    LinearErasure,
    MeanDifference,
)
from debias_ssae.baselines.fairlearn_heads import ParityThresholds, ReducedHead
from debias_ssae.baselines.heads import (
    GroupDRO,
    GroupReweighting,
    GroupSubsampling,
    LastLayerRetraining,
    LogisticHead,
)
from debias_ssae.baselines.in_model import BlockErasure, NeuronAblation, TokenMask
from debias_ssae.baselines.text import (
    HOSPITAL_WORDS,
    AugmentedHead,
    ConceptBottleneck,
    TextScrubber,
    augment_with_counterfactuals,
    hospital_words,
)

__all__ = [
    "HOSPITAL_WORDS",
    "INLP",
    "LEACE",
    "SPLINCE",
    "AugmentedHead",
    "BlockErasure",
    "ConceptBottleneck",
    "CorrelationRemoval",
    "CounterfactualEraser",
    "CounterfactualSubspace",
    "GroupDRO",
    "GroupReweighting",
    "GroupSubsampling",
    "LastLayerRetraining",
    "LinearErasure",
    "LogisticHead",
    "MeanDifference",
    "NeuronAblation",
    "ParityThresholds",
    "ReducedHead",
    "TextScrubber",
    "TokenMask",
    "augment_with_counterfactuals",
    "hospital_words",
]
