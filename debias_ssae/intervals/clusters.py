"""Intervals for results of several seeds whose test sets share texts."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from debias_ssae.exceptions import InputError
from debias_ssae.intervals.proportions import critical_value

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
    point = np.array([_statistic(seed, np.ones((1, len(strata))), statistic)[0] for seed in seeds])
    draws = np.concatenate(
        [
            np.stack([_statistic(seed, weights, statistic) for seed in seeds])
            for weights in _text_weights(strata, n_bootstrap, random_state)
        ],
        axis=1,
    )
    value, half = _combine(point, draws, confidence)
    return Interval(value, value - half, value + half)


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


def _statistic(seed: _Seed, weights: NDArray[np.float64], statistic: Statistic) -> NDArray[np.float64]:
    """[n_draws] value of the statistic (method minus baseline) under text weights [n_draws, n_texts]."""
    w = weights[:, seed.texts]
    size = w @ seed.onehot
    results = []
    for column in seed.values.T:
        total = w @ (seed.onehot * column[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(size > 0, total / size, np.nan)
            if statistic == "worst_cell":
                results.append(np.nanmin(means, axis=1))
            elif statistic == "balanced":
                results.append(np.nanmean(means, axis=1))
            else:
                results.append(total.sum(axis=1) / size.sum(axis=1))
    return results[0] if len(results) == 1 else results[0] - results[1]


def _combine(
    point: NDArray[np.float64], draws: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """Mean over seeds and half-width from text sampling plus what differs between seeds beyond it."""
    from scipy.special import stdtrit

    text_variance = float(draws.mean(axis=0).var())
    half2 = critical_value(confidence) ** 2 * text_variance
    n_seeds = len(point)
    if n_seeds > 1:
        moved = draws - point[:, None]
        explained = float(moved.var(axis=0, ddof=1).mean())
        between = max(0.0, float(point.var(ddof=1)) - explained)
        t = float(stdtrit(n_seeds - 1, 0.5 + confidence / 2))
        half2 += t * t * between / n_seeds
    return float(point.mean()), float(np.sqrt(half2))
