"""``SSAEDebiaser``: the whole way from texts to debiased representations, as one estimator."""

from debias_ssae.debiaser.estimator import SSAEDebiaser
from debias_ssae.debiaser.persistence import check_out
from debias_ssae.debiaser.pipeline import Intervention
from debias_ssae.debiaser.shards import transform_to_shards
from debias_ssae.debiaser.training import learn_ssae, train_general_sae

__all__ = [
    "Intervention",
    "SSAEDebiaser",
    "check_out",
    "learn_ssae",
    "train_general_sae",
    "transform_to_shards",
]
