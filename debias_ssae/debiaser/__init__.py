"""``SSAEDebiaser``: the whole way from texts to debiased representations, as one estimator."""

from debias_ssae.debiaser.estimator import SSAEDebiaser as SSAEDebiaser
from debias_ssae.debiaser.persistence import check_out as check_out
from debias_ssae.debiaser.pipeline import Intervention as Intervention
from debias_ssae.debiaser.shards import transform_to_shards as transform_to_shards
from debias_ssae.debiaser.training import learn_ssae as learn_ssae
from debias_ssae.debiaser.training import train_general_sae as train_general_sae
