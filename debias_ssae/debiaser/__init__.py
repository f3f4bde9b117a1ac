"""``SSAEDebiaser``: the whole way from texts to debiased representations, as one estimator."""

from debias_ssae.debiaser.estimator import SSAEDebiaser
from debias_ssae.debiaser.specialise import learn_ssae, train_general_sae

__all__ = ["SSAEDebiaser", "learn_ssae", "train_general_sae"]
