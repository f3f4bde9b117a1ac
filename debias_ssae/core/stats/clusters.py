"""Intervals for results of several seeds whose test sets share texts."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.proportions import wilson

Statistic = Literal["worst_cell", "mean", "balanced"]
_CHUNK_CELLS = 4_000_000  # text weights held at once


class Interval(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float


class _Seed(NamedTuple):
    texts: NDArray[np.int64]  # index into the distinct texts
    values: NDArray[np.float64]  # [n, 1] or [n, 2]: the method, then what it is compared with
    onehot: NDArray[np.float64]  # [n, n_cells]


def clustered_interval(
    values: Sequence[ArrayLike],
    text_ids: Sequence[ArrayLike],
    cells: Sequence[ArrayLike] | None = None,
    *,
    baseline: Sequence[ArrayLike] | None = None,
    statistic: Statistic = "worst_cell",
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: int | None = None,
) -> Interval:
    """Mean over seeds of a per-seed statistic, with an interval for new texts and new seeds.

    Each list has one entry a seed: ``values[s]`` [n_s] holds the correctness (0/1, or any number) of each
    test example, ``text_ids[s]`` says which text it is, ``cells[s]`` its cell (class x attribute). A text is
    resampled together with all the seeds that tested it, inside its cell, so shared texts do not count as new
    evidence. The part of the variance between seeds that text sampling does not explain is added with
    Student's t on ``n_seeds - 1`` degrees of freedom; one seed alone gives text sampling only. With
    ``baseline`` (same shapes as ``values``) the result is the paired difference ``values - baseline``.
    ``statistic``: the lowest cell mean, the plain mean, or the mean of the cell means. Raises InputError when
    the lists' lengths differ or a cell statistic lacks ``cells``.
    """
    seeds, strata = _checked(values, text_ids, cells, baseline, statistic)
    plans = [_Plan.of(seed, statistic) for seed in seeds]
    point = np.array([plan.value for plan in plans])
    moved = np.concatenate(
        [
            np.stack([plan.moved(seed, weights, statistic) for plan, seed in zip(plans, seeds, strict=True)])
            for weights in _text_weights(strata, n_bootstrap, random_state)
        ],
        axis=1,
    )
    return _combine(point, moved, confidence)


def _checked(
    values: Sequence[ArrayLike],
    text_ids: Sequence[ArrayLike],
    cells: Sequence[ArrayLike] | None,
    baseline: Sequence[ArrayLike] | None,
    statistic: Statistic,
) -> tuple[list[_Seed], NDArray[np.int64]]:
    if statistic not in ("worst_cell", "mean", "balanced"):
        raise InputError(f"statistic must be 'worst_cell', 'mean' or 'balanced', got {statistic!r}")
    if cells is None and statistic != "mean":
        raise InputError(f"statistic={statistic!r} needs cells; pass one array of cells a seed")
    lists = {"values": values, "text_ids": text_ids, "cells": cells, "baseline": baseline}
    given = {name: [np.asarray(a) for a in v] for name, v in lists.items() if v is not None}
    if len({len(v) for v in given.values()}) != 1 or not given["values"]:
        counts = ", ".join(f"{name}: {len(v)}" for name, v in given.items())
        raise InputError(f"Every list needs one array a seed, and at least one seed; got {counts}")
    for seed, arrays in enumerate(zip(*given.values(), strict=True)):
        if len({a.shape for a in arrays}) != 1 or arrays[0].ndim != 1 or not len(arrays[0]):
            shapes = ", ".join(f"{name}: {a.shape}" for name, a in zip(given, arrays, strict=True))
            raise InputError(f"Arrays of seed {seed} must be flat, equally long and not empty; got {shapes}")
    distinct, texts = np.unique(np.concatenate(given["text_ids"]), return_inverse=True)
    every_cell = np.concatenate(given["cells"]) if cells is not None else np.zeros(len(texts), dtype=int)
    names, codes = np.unique(every_cell, return_inverse=True)
    strata = np.zeros(len(distinct), dtype=np.int64)
    strata[texts[::-1]] = codes[::-1]  # a text's first cell is the one it is drawn in
    ends = np.cumsum([len(v) for v in given["values"]])[:-1]
    identity = np.eye(len(names))
    seeds = []
    for i, (t, c) in enumerate(zip(np.split(texts, ends), np.split(codes, ends), strict=True)):
        columns = [given[name][i].astype(float) for name in ("values", "baseline") if name in given]
        seeds.append(_Seed(t, np.stack(columns, axis=1), identity[c]))
    return seeds, strata


def _text_weights(
    strata: NDArray[np.int64], n_bootstrap: int, random_state: int | None
) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(random_state)
    members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    chunk = max(1, _CHUNK_CELLS // len(strata))
    for start in range(0, n_bootstrap, chunk):
        weights = np.zeros((min(chunk, n_bootstrap - start), len(strata)))
        for texts in members:
            share = np.full(len(texts), 1 / len(texts))
            weights[:, texts] = rng.multinomial(len(texts), share, size=len(weights))
        yield weights


class _Plan(NamedTuple):
    """One seed's observed cell means, and under each reading which of them make the statistic.

    A minimum over nearly equal cells reads low, and a bootstrap of it cannot know how low. So there are two
    readings: the cell observed lowest is the lowest, and every cell that could be the lowest is tied with it.
    """

    value: float
    means: list[NDArray[np.float64]]
    chosen: list[list[NDArray[np.bool_]]]  # [method, baseline][reading] -> cells

    @classmethod
    def of(cls, seed: _Seed, statistic: Statistic) -> "_Plan":
        every = np.ones((1, len(seed.texts)))
        means = [m[0] for m in _cell_means(seed, every)]
        n = seed.onehot.sum(axis=0)
        statistics = [_statistic(m[None], n[None], statistic)[0] for m in means]
        chosen = [[n > 0] * 2 if statistic != "worst_cell" else _lowest_cells(m, n) for m in means]
        value = statistics[0] - (statistics[1] if len(statistics) > 1 else 0.0)
        return cls(float(value), means, chosen)

    def moved(self, seed: _Seed, weights: NDArray[np.float64], statistic: Statistic) -> NDArray[np.float64]:
        """[n_draws, 2 readings] by how much resampled texts move the statistic."""
        w = weights[:, seed.texts]
        size = w @ seed.onehot
        sides = []
        for drawn, observed, chosen in zip(_cell_means(seed, w), self.means, self.chosen, strict=True):
            if statistic == "worst_cell":
                shift = np.where(np.isnan(drawn), 0.0, drawn - observed)
                side = [np.where(cells, shift, np.inf).min(axis=1) for cells in chosen]
            else:
                n = seed.onehot.sum(axis=0)[None]
                side = [_statistic(drawn, size, statistic) - _statistic(observed[None], n, statistic)] * 2
            sides.append(np.stack(side, axis=1))
        return sides[0] if len(sides) == 1 else sides[0] - sides[1]


def _cell_means(seed: _Seed, w: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """[n_draws, n_cells] for the method, then for what it is compared with; NaN where a draw left a cell
    empty.
    """
    size = w @ seed.onehot
    with np.errstate(invalid="ignore", divide="ignore"):
        return [
            np.where(size > 0, (w @ (seed.onehot * column[:, None])) / size, np.nan)
            for column in seed.values.T
        ]


def _lowest_cells(means: NDArray[np.float64], n: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    low, high = wilson(np.clip(np.nan_to_num(means), 0, 1) * n, n)
    observed = np.arange(len(means)) == int(np.nanargmin(means))
    return [observed, np.asarray(low <= np.nanmin(high))]


def _statistic(
    means: NDArray[np.float64], size: NDArray[np.float64], statistic: Statistic
) -> NDArray[np.float64]:
    """[n_draws] from cell means and cell sizes [n_draws, n_cells]."""
    filled = ~np.isnan(means)
    if statistic == "worst_cell":
        return np.where(filled, means, np.inf).min(axis=1)
    known = np.where(filled, means, 0.0)
    if statistic == "balanced":
        return known.sum(axis=1) / filled.sum(axis=1)
    return (known * size).sum(axis=1) / size.sum(axis=1)


def _combine(point: NDArray[np.float64], moved: NDArray[np.float64], confidence: float) -> Interval:
    """Mean over seeds; its ends from text sampling under both readings, widened by what else differs between
    seeds.

    ``moved`` is [n_seeds, n_draws, 2].
    """
    from scipy.special import stdtrit

    value, tail, n_seeds = float(point.mean()), (1 - confidence) / 2, len(point)
    ends = np.quantile(moved.mean(axis=0), [1 - tail, tail], axis=0)
    down, up = max(0.0, float(ends[0].max())), max(0.0, float(-ends[1].min()))
    extra = 0.0
    if n_seeds > 1:
        explained = float(moved[..., 0].var(axis=0, ddof=1).mean())
        between = max(0.0, float(point.var(ddof=1)) - explained)
        extra = float(stdtrit(n_seeds - 1, 0.5 + confidence / 2)) ** 2 * between / n_seeds
    return Interval(
        value, value - float(np.hypot(down, np.sqrt(extra))), value + float(np.hypot(up, np.sqrt(extra)))
    )
