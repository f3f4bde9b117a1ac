"""``SSAEDebiaser``: the whole way from texts to debiased representations, as one estimator."""

from debias_ssae.debiaser.estimator import SSAEDebiaser
from debias_ssae.debiaser.intervention import Intervention
from debias_ssae.debiaser.persistence import check_goal
from debias_ssae.debiaser.specialise import learn_ssae, train_general_sae
from debias_ssae.selection.select import Selection, select_from_concept, select_from_labels

__all__ = [
    "Intervention",
    "SSAEDebiaser",
    "Selection",
    "check_goal",
    "learn_ssae",
    "select_from_concept",
    "select_from_labels",
    "train_general_sae",
]
