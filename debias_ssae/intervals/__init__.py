"""Intervals and tests: shares, extremes over cells, gaps, several seeds. Arrays in, arrays out."""

from debias_ssae.intervals.clusters import Interval, clustered_interval
from debias_ssae.intervals.extremes import lowest_share, widest_gap
from debias_ssae.intervals.proportions import (
    critical_value,
    holm,
    mean_of_shares,
    newcombe,
    paired_difference,
    rows_needed,
    sign_test,
    two_share_test,
    wilson,
)

__all__ = [
    "Interval",
    "clustered_interval",
    "critical_value",
    "holm",
    "lowest_share",
    "mean_of_shares",
    "newcombe",
    "paired_difference",
    "rows_needed",
    "sign_test",
    "two_share_test",
    "widest_gap",
    "wilson",
]
