"""Which latents carry the attribute: from labels, or from a concept without labels; which of them, how many."""

from debias_ssae.selection.controls import Stability, matched_cosines, matched_random_latents, stability
from debias_ssae.selection.guarding import Costs, Guarded, costs_from_labels, costs_from_pairs, guard
from debias_ssae.selection.pairs import (
    N_SWAPS,
    PairActivations,
    SwappedWords,
    counterfactual_contrast,
    harvest_pairs,
    propagate,
    random_swaps,
)
from debias_ssae.selection.probing import KSparse, k_sparse_probing, probe_attribution, probe_direction
from debias_ssae.selection.scores import (
    LatentScores,
    class_conditional_contrast,
    encode_attribute,
    encode_labels,
    names_of,
    pooled_latents,
    rows_of_every_cell,
)
from debias_ssae.selection.select import LEFT, Linear, Sufficient, removal_score, smallest_sufficient

__all__ = [
    "LEFT",
    "N_SWAPS",
    "Costs",
    "Guarded",
    "KSparse",
    "LatentScores",
    "Linear",
    "PairActivations",
    "Stability",
    "Sufficient",
    "SwappedWords",
    "class_conditional_contrast",
    "costs_from_labels",
    "costs_from_pairs",
    "counterfactual_contrast",
    "encode_attribute",
    "encode_labels",
    "guard",
    "harvest_pairs",
    "k_sparse_probing",
    "matched_cosines",
    "matched_random_latents",
    "names_of",
    "pooled_latents",
    "probe_attribution",
    "probe_direction",
    "propagate",
    "random_swaps",
    "removal_score",
    "rows_of_every_cell",
    "smallest_sufficient",
    "stability",
]
