"""Intervals for the lowest of several shares and for the widest gap between them.

A minimum over noisy cells is biased downwards and a maximum gap upwards, so percentile intervals miss. Here
the end on the biased side is a single-cell bound (it is enough that the truly lowest cell's own bound holds)
and the other end is simultaneous over all cells (any of them could be the lowest).
"""

import numpy as np
from numpy.typing import ArrayLike

from debias_ssae.intervals.clusters import Interval
from debias_ssae.intervals.proportions import critical_value, newcombe, wilson

_NOTHING = Interval(float("nan"), float("nan"), float("nan"))


def lowest_share(hits: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The lowest share over cells; cells with ``n == 0`` are left out (the caller lists them).

    Lower end: the lowest single-cell Wilson bound. Upper end: the lowest of the cells' bounds that hold
    together.
    """
    k, size = np.ravel(np.asarray(hits, dtype=float)), np.ravel(np.asarray(n, dtype=float))
    k, size = k[size > 0], size[size > 0]
    if not len(k):
        return _NOTHING
    low, _ = wilson(k, size, confidence=confidence)
    _, high = wilson(k, size, z=critical_value(confidence, len(k)))
    # the simultaneous half of the error is one-sided: sides=2 halves it first, then it is shared out
    return Interval(float((k / size).min()), float(low.min()), float(high.min()))


def widest_gap(hits: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Highest minus lowest share over groups, from Newcombe's interval of every pair; NaN with fewer than two
    groups.

    Lower end: the highest of the pairs' bounds that hold together, 0 at least. Upper end: the highest
    single-pair bound.
    """
    k, size = np.ravel(np.asarray(hits, dtype=float)), np.ravel(np.asarray(n, dtype=float))
    k, size = k[size > 0], size[size > 0]
    if len(k) < 2:
        return _NOTHING
    share = k / size
    a, b = np.triu_indices(len(k), 1)
    a, b = np.where(share[a] >= share[b], a, b), np.where(share[a] >= share[b], b, a)
    _, high = newcombe(k[a], size[a], k[b], size[b], confidence=confidence)
    # both directions of the noise count for the pair's lower bound, hence the two-sided value over the pairs
    low, _ = newcombe(k[a], size[a], k[b], size[b], z=critical_value(confidence, len(a)))
    return Interval(float(share.max() - share.min()), float(max(0.0, low.max())), float(high.max()))
