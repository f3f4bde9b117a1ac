"""Intervals for results of several seeds whose test sets share texts: one bootstrap of texts for all methods."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.core.stats.shares import Array, Mask, wilson

Statistic = Literal["worst_cell", "mean", "balanced"]
_CHUNK_CELLS = 4_000_000  # text weights held as floats at once
_ANYWHERE = (-np.inf, np.inf)


class Interval(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float


class Moves(NamedTuple):
    """A statistic of one method (or of a difference): its value in each seed, and how resampling moves it."""

    point: Array
    """[n_seeds]"""
    moved: Array
    """[n_seeds, n_draws, 2]: under both readings of a lowest cell.

    A minimum over nearly equal cells reads low, and a bootstrap of it cannot know how low. So there are two
    readings: the cell observed lowest is the lowest, and every cell that could be the lowest is tied with it.
    """
    limits: tuple[float, float] = _ANYWHERE
    """Between which the statistic can lie: a share in 0 and 1, a difference of shares in -1 and 1."""

    def minus(self, other: "Moves", factor: float = 1.0) -> "Moves":
        """Paired: ``self - factor * other``, seed by seed and draw by draw."""
        ends = self.limits[0] - other.limits[1], self.limits[1] - other.limits[0]
        point, moved = self.point - factor * other.point, self.moved - factor * other.moved
        return Moves(point, moved, ends if factor == 1.0 else _ANYWHERE)

    def over(self, divisor: float) -> "Moves":
        """Divided by a number."""
        return Moves(self.point / divisor, self.moved / divisor)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Mean over seeds, for new texts and new seeds.

        The ends hold under both readings and are widened by what differs between seeds beyond the texts, with
        Student's t on ``n_seeds - 1`` degrees of freedom; one seed alone gives text sampling only.
        """
        from scipy.special import stdtrit

        value, tail, n_seeds = float(self.point.mean()), (1 - confidence) / 2, len(self.point)
        ends = np.quantile(self.moved.mean(axis=0), [1 - tail, tail], axis=0)
        down, up = max(0.0, float(ends[0].max())), max(0.0, float(-ends[1].min()))
        extra = 0.0
        if n_seeds > 1:
            explained = float(self.moved[..., 0].var(axis=0, ddof=1).mean())
            between = max(0.0, float(self.point.var(ddof=1)) - explained)
            extra = float(stdtrit(n_seeds - 1, 0.5 + confidence / 2)) ** 2 * between / n_seeds
        low, high = value - float(np.hypot(down, np.sqrt(extra))), value + float(np.hypot(up, np.sqrt(extra)))
        return Interval(value, max(low, self.limits[0]), min(high, self.limits[1]))

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

    ``text_ids[s]`` and ``cells[s]`` [n] describe the test examples of seed s; a text is drawn inside its cell (the
    first, where it has several).
    """

    def __init__(
        self,
        text_ids: Sequence[ArrayLike],
        cells: Sequence[ArrayLike],
        *,
        n_draws: int = 1000,
        random_state: int | None = 0,
    ) -> None:
        self._cells = [np.asarray(c) for c in cells]
        ends = np.cumsum([len(c) for c in self._cells])[:-1]
        distinct, texts = np.unique(
            np.concatenate([np.asarray(ids) for ids in text_ids]), return_inverse=True
        )
        codes = np.unique(np.concatenate(self._cells), return_inverse=True)[1]
        strata = np.zeros(len(distinct), dtype=np.int64)
        strata[texts[::-1]] = codes[::-1]
        rng = np.random.default_rng(random_state)
        drawn = np.zeros((n_draws, len(strata)), dtype=np.uint16)
        step = max(1, _CHUNK_CELLS // len(strata))
        for start in range(0, n_draws, step):
            chunk = drawn[start : start + step]
            for members in (np.flatnonzero(strata == s) for s in np.unique(strata)):
                share = np.full(len(members), 1 / len(members))
                chunk[:, members] = rng.multinomial(len(members), share, size=len(chunk))
        self._weights = [drawn[:, t] for t in np.split(texts, ends)]

    def moves(
        self,
        values: Sequence[ArrayLike],
        statistic: Statistic = "worst_cell",
        groups: Sequence[ArrayLike] | None = None,
    ) -> Moves:
        """Return ``statistic`` of ``values`` (correctness of each test example, a list of seeds).

        ``groups`` replace the cells whose means are combined (for "balanced": the classes).
        """
        grouped = [np.asarray(g) for g in (self._cells if groups is None else groups)]
        names, codes = np.unique(np.concatenate(grouped), return_inverse=True)
        ends = np.cumsum([len(g) for g in grouped])[:-1]
        columns = [np.asarray(value, dtype=float) for value in values]
        seeds = zip(columns, np.split(codes, ends), self._weights, strict=True)
        found = [_seed_moves(x, np.eye(len(names))[c], w, statistic) for x, c, w in seeds]
        share = all(((x >= 0) & (x <= 1)).all() for x in columns)
        point, moved = np.array([f[0] for f in found]), np.stack([f[1] for f in found])
        return Moves(point, moved, (0.0, 1.0) if share else _ANYWHERE)


def gap_closed(method: Moves, base: Moves, best: Moves) -> Moves | None:
    """``(method - base) / (best - base)`` of the means over seeds; None where ``best`` is not above ``base``.

    Draws and seeds enter by the delta method: the ratio's derivative at the means, so that the share's interval
    holds the uncertainty of all three, paired.
    """
    gap = float(best.point.mean() - base.point.mean())
    if gap <= 0:
        return None
    share = float(method.point.mean() - base.point.mean()) / gap
    rest = method.minus(base).minus(best.minus(base), share).over(gap)
    return Moves(rest.point + share, rest.moved)


def _seed_moves(
    x: Array, onehot: Array, weights: NDArray[np.uint16], statistic: Statistic
) -> tuple[float, Array]:
    """One seed's statistic, and [n_draws, 2 readings] by how much resampled texts move it."""
    sizes = onehot.sum(axis=0)[None]
    observed = _cell_means(np.ones((1, len(x))), x, onehot)
    value = float(_statistic(observed, sizes, statistic)[0])
    lowest = _lowest_cells(observed[0], sizes[0]) if statistic == "worst_cell" else []
    parts = []
    step = max(1, _CHUNK_CELLS // len(x))
    for start in range(0, len(weights), step):
        w = weights[start : start + step].astype(float)
        drawn = _cell_means(w, x, onehot)
        if statistic == "worst_cell":
            shift = np.where(np.isnan(drawn), 0.0, drawn - observed)
            side = [np.where(cells, shift, np.inf).min(axis=1) for cells in lowest]
        else:
            side = [_statistic(drawn, w @ onehot, statistic) - value] * 2
        parts.append(np.stack(side, axis=1))
    return value, np.concatenate(parts)


def _cell_means(w: Array, x: Array, onehot: Array) -> Array:
    """[n_draws, n_cells]; NaN where a draw left a cell empty."""
    size = w @ onehot
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, (w @ (onehot * x[:, None])) / size, np.nan)


def _lowest_cells(means: Array, n: Array) -> list[Mask]:
    low, high = wilson(np.clip(np.nan_to_num(means), 0, 1) * n, n)
    return [np.arange(len(means)) == int(np.nanargmin(means)), np.asarray(low <= np.nanmin(high))]


def _statistic(means: Array, size: Array, statistic: Statistic) -> Array:
    """[n_draws] from cell means and cell sizes [n_draws, n_cells]."""
    filled = ~np.isnan(means)
    if statistic == "worst_cell":
        return np.where(filled, means, np.inf).min(axis=1)
    known = np.where(filled, means, 0.0)
    if statistic == "balanced":
        return known.sum(axis=1) / filled.sum(axis=1)
    return (known * size).sum(axis=1) / size.sum(axis=1)
