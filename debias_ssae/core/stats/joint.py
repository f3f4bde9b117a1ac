"""One bootstrap for all methods tested on the same texts: intervals, paired differences, shares of a gap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.clusters import (
    Interval,
    Statistic,
    _checked,
    _combine,
    _Plan,
    _Seed,
    _text_weights,
)


class Moves(NamedTuple):
    """A statistic of one method (or of a difference): its value in each seed, and how resampling moves it."""

    point: NDArray[np.float64]
    """[n_seeds]"""
    moved: NDArray[np.float64]
    """[n_seeds, n_draws, 2]: under both readings of a lowest cell (see ``clusters``)."""

    def minus(self, other: "Moves", factor: float = 1.0) -> "Moves":
        """Paired: ``self - factor * other``, seed by seed and draw by draw."""
        return Moves(self.point - factor * other.point, self.moved - factor * other.moved)

    def over(self, divisor: float) -> "Moves":
        """Divided by a number."""
        return Moves(self.point / divisor, self.moved / divisor)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Mean over seeds, for new texts and new seeds."""
        return _combine(self.point, self.moved, confidence)

    def p_value(self) -> float:
        """Two-sided: one minus the largest confidence whose interval leaves zero out.

        Not below 2 / (draws + 1), the smallest that so many draws can show; 1 where the value is zero.
        """
        low, high = 2 / (self.moved.shape[1] + 1), 1.0
        if self.point.mean() == 0:
            return 1.0
        if self._leaves_out_zero(1 - low):
            return low
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if self._leaves_out_zero(1 - middle) else (middle, high)
        return high

    def _leaves_out_zero(self, confidence: float) -> bool:
        _, low, high = self.interval(confidence)
        return low > 0 or high < 0


class JointBootstrap:
    """Draws of texts, each with all the seeds that tested it, kept for any number of methods.

    ``text_ids[s]`` and ``cells[s]`` describe the test examples of seed s; a text is drawn inside its cell.
    Raises InputError when the lists do not fit together.
    """

    def __init__(
        self,
        text_ids: Sequence[ArrayLike],
        cells: Sequence[ArrayLike],
        *,
        n_draws: int = 1000,
        random_state: int | None = 0,
    ) -> None:
        blank = [np.zeros(len(np.asarray(ids))) for ids in text_ids]
        seeds, strata = _checked(blank, text_ids, cells, None, "worst_cell")
        drawn = np.concatenate(list(_text_weights(strata, n_draws, random_state)))
        self._weights = [drawn[:, seed.texts] for seed in seeds]
        self._cells = [np.asarray(c) for c in cells]

    def moves(
        self,
        values: Sequence[ArrayLike],
        statistic: Statistic = "worst_cell",
        groups: Sequence[ArrayLike] | None = None,
    ) -> Moves:
        """Return ``statistic`` of ``values`` (correctness of each test example, a list of seeds).

        ``groups`` replace the cells whose means are combined (for "balanced": the classes).
        """
        grouped = self._cells if groups is None else groups
        names, codes = np.unique(np.concatenate([np.asarray(g) for g in grouped]), return_inverse=True)
        ends = np.cumsum([len(w.T) for w in self._weights])[:-1]
        if len(values) != len(self._weights):
            raise InputError(f"values of {len(values)} seeds, but the bootstrap has {len(self._weights)}")
        points, moved = [], []
        for value, code, weights in zip(values, np.split(codes, ends), self._weights, strict=True):
            column = np.asarray(value, dtype=float)[:, None]
            seed = _Seed(np.arange(len(column)), column, np.eye(len(names))[code])
            plan = _Plan.of(seed, statistic)
            points.append(plan.value)
            moved.append(plan.moved(seed, weights, statistic))
        return Moves(np.array(points), np.stack(moved))


def gap_closed(method: Moves, base: Moves, best: Moves) -> Moves | None:
    """``(method - base) / (best - base)`` of the means over seeds; None where ``best`` is not above ``base``.

    Draws and seeds enter by the delta method: the ratio's derivative at the means, so that the share's interval
    holds the uncertainty of all three, paired.
    """
    gap = float(best.point.mean() - base.point.mean())
    if gap <= 0:
        return None
    share = float(method.point.mean() - base.point.mean()) / gap
    residual = method.minus(base).minus(best.minus(base), share).over(gap)
    return Moves(residual.point + share, residual.moved)
