"""``SSAEDebiaser``: the whole way from texts to debiased representations, as one estimator."""

from debias_ssae.debiaser.estimator import SSAEDebiaser
from debias_ssae.debiaser.finding import Found, find_from_concept, find_from_labels
from debias_ssae.debiaser.part import Part
from debias_ssae.debiaser.persistence import check_goal
from debias_ssae.debiaser.specialise import learn_ssae, train_general_sae

__all__ = [
    "Found",
    "Part",
    "SSAEDebiaser",
    "check_goal",
    "find_from_concept",
    "find_from_labels",
    "learn_ssae",
    "train_general_sae",
]
