"""Resampling: from counts in one multinomial a draw, from rows where counts do not hold all, and
permutations.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_CHUNK = 8_000_000  # numbers held at once


def count_draws(counts: ArrayLike, n_draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Bootstrap of rows known only by their category: chunks [n_chunk, n_categories], ``n_draws`` in all.

    Resampling n rows with replacement and counting categories is one multinomial; empty categories stay
    empty.
    """
    flat = np.ravel(np.asarray(counts))
    filled = np.flatnonzero(flat)
    n = round(float(flat.sum()))
    chunk = max(1, _CHUNK // max(1, len(flat)))
    for start in range(0, n_draws, chunk):
        drawn = np.zeros((min(chunk, n_draws - start), len(flat)), dtype=np.int64)
        drawn[:, filled] = rng.multinomial(n, flat[filled] / flat.sum(), size=len(drawn))
        yield drawn


def row_draws(n_rows: int, n_draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Bootstrap of rows: for each draw, how often each row is taken [n_rows]."""
    for _ in range(n_draws):
        yield np.bincount(rng.integers(0, n_rows, n_rows), minlength=n_rows)


def gap_permutation_test(
    hits: ArrayLike, n: ArrayLike, *, n_permutations: int = 999, rng: np.random.Generator
) -> tuple[float, float]:
    """``p, null_95``: is the widest gap between groups wider than when group labels are dealt out at random?

    ``hits`` and ``n`` [n_groups] are counts, or [n_strata, n_groups] of disjoint sets of rows, of whose gaps
    the widest counts. Dealing inside a stratum keeps every group's size and the total number of hits, which
    is one multivariate hypergeometric a permutation. ``null_95`` is the gap that chance alone exceeds in 5%
    of deals. NaN when no stratum has two groups with rows.
    """
    strata = zip(*(np.atleast_2d(np.rint(np.asarray(v)).astype(np.int64)) for v in (hits, n)), strict=True)
    observed, gaps = -1.0, np.full(n_permutations, -1.0)
    for k, size in strata:
        k, size = k[size > 0], size[size > 0]
        if len(k) < 2:
            continue
        share = k / size
        observed = max(observed, float(share.max() - share.min()))
        # numpy's "marginals" method is quick for few colours and many balls
        dealt = (
            rng.multivariate_hypergeometric(size, int(k.sum()), size=n_permutations, method="marginals")
            / size
        )
        gaps = np.maximum(gaps, dealt.max(axis=1) - dealt.min(axis=1))
    if observed < 0:
        return float("nan"), float("nan")
    p = (1 + int((gaps >= observed - 1e-12).sum())) / (1 + n_permutations)
    return float(p), float(np.quantile(gaps, 0.95))
