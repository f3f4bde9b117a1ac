"""Which latents carry the attribute: from labels, or from a concept without labels; which of them, how many."""

from debias_ssae.selection.controls import matched_random_latents as matched_random_latents
from debias_ssae.selection.pairs import PairActivations as PairActivations
from debias_ssae.selection.pairs import SwappedWords as SwappedWords
from debias_ssae.selection.pairs import counterfactual_contrast as counterfactual_contrast
from debias_ssae.selection.pairs import harvest_pairs as harvest_pairs
from debias_ssae.selection.propagation import propagate as propagate
from debias_ssae.selection.scores import LatentScores as LatentScores
from debias_ssae.selection.scores import class_conditional_contrast as class_conditional_contrast
from debias_ssae.selection.scores import encode_attribute as encode_attribute
from debias_ssae.selection.scores import encode_labels as encode_labels
from debias_ssae.selection.scores import names_of as names_of
from debias_ssae.selection.scores import pooled_latents as pooled_latents
from debias_ssae.selection.scores import rows_of_every_cell as rows_of_every_cell
from debias_ssae.selection.select import Linear as Linear
from debias_ssae.selection.select import Sufficient as Sufficient
from debias_ssae.selection.select import removal_score as removal_score
from debias_ssae.selection.select import smallest_sufficient as smallest_sufficient
