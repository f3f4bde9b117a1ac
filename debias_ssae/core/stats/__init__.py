"""Intervals and tests: shares, extremes over cells, gaps, several seeds. Arrays in, arrays out."""

from debias_ssae.core.stats.clusters import Interval, clustered_interval
from debias_ssae.core.stats.comparing import lowest_share_difference, widest_gap_difference
from debias_ssae.core.stats.extremes import Extreme, lowest_ratio, lowest_share, widest_gap
from debias_ssae.core.stats.gaps import RmsGap, rms_gap
from debias_ssae.core.stats.joint import JointBootstrap, Moves, gap_closed
from debias_ssae.core.stats.proportions import (
    critical_value,
    holm,
    mean_of_shares,
    newcombe,
    paired_difference,
    rows_needed,
    share_ratio,
    sign_test,
    two_share_test,
    wilson,
)
from debias_ssae.core.stats.resampling import count_draws, gap_permutation_test, row_draws

__all__ = [
    "Extreme",
    "Interval",
    "JointBootstrap",
    "Moves",
    "RmsGap",
    "clustered_interval",
    "count_draws",
    "critical_value",
    "gap_closed",
    "gap_permutation_test",
    "holm",
    "lowest_ratio",
    "lowest_share",
    "lowest_share_difference",
    "mean_of_shares",
    "newcombe",
    "paired_difference",
    "rms_gap",
    "row_draws",
    "rows_needed",
    "share_ratio",
    "sign_test",
    "two_share_test",
    "widest_gap",
    "widest_gap_difference",
    "wilson",
]
