"""``SSAEDebiaser``: the whole way from texts to debiased representations, as one estimator."""

from debias_ssae.debiaser.estimator import SSAEDebiaser as SSAEDebiaser
from debias_ssae.debiaser.persistence import check_out as check_out
from debias_ssae.debiaser.shards import transform_to_shards as transform_to_shards
