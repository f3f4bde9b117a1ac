"""Intervals and tests: shares, extremes over cells, gaps, several seeds. Arrays in, arrays out."""

from debias_ssae.core.stats.extremes import Extreme as Extreme
from debias_ssae.core.stats.extremes import RmsGap as RmsGap
from debias_ssae.core.stats.extremes import lowest_ratio as lowest_ratio
from debias_ssae.core.stats.extremes import lowest_share as lowest_share
from debias_ssae.core.stats.extremes import lowest_share_difference as lowest_share_difference
from debias_ssae.core.stats.extremes import rms_gap as rms_gap
from debias_ssae.core.stats.extremes import widest_gap as widest_gap
from debias_ssae.core.stats.extremes import widest_gap_difference as widest_gap_difference
from debias_ssae.core.stats.seeds import Interval as Interval
from debias_ssae.core.stats.seeds import JointBootstrap as JointBootstrap
from debias_ssae.core.stats.seeds import Moves as Moves
from debias_ssae.core.stats.seeds import gap_closed as gap_closed
from debias_ssae.core.stats.shares import count_draws as count_draws
from debias_ssae.core.stats.shares import critical_value as critical_value
from debias_ssae.core.stats.shares import holm as holm
from debias_ssae.core.stats.shares import mean_of_shares as mean_of_shares
from debias_ssae.core.stats.shares import newcombe as newcombe
from debias_ssae.core.stats.shares import paired_difference as paired_difference
from debias_ssae.core.stats.shares import row_draws as row_draws
from debias_ssae.core.stats.shares import rows_needed as rows_needed
from debias_ssae.core.stats.shares import share_ratio as share_ratio
from debias_ssae.core.stats.shares import sign_test as sign_test
from debias_ssae.core.stats.shares import two_share_test as two_share_test
from debias_ssae.core.stats.shares import wilson as wilson
