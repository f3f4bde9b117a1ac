"""Do the audit's intervals cover the truth? Simulated data sets with known truth, equal and unequal cells.

    python benchmarks/audit_coverage.py [--quick] [--datasets 4000] [--out
    benchmarks/results/audit_coverage.json]

Width is the median width over the median width of the interval of somebody who is told the truth: which cell
is the worst (Wilson on that cell; the paired normal interval on the two models' truly worst cells).
``percentile`` is the coverage of the plain bootstrap percentile interval, for comparison, on the first 200 data
sets.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from debias_ssae.audit import audit
from debias_ssae.core.stats.extremes import lowest_share, lowest_share_difference
from debias_ssae.core.stats.seeds import JointBootstrap
from debias_ssae.core.stats.shares import newcombe, paired_difference, wilson

RNG = np.random.default_rng
SIZES_56 = np.round(np.exp(np.linspace(np.log(15), np.log(3000), 56))).astype(int)
SHARES_56 = 0.35 + 0.6 * RNG(1).random(56)
CELLS = {
    "4 equal cells, n 120, accuracy 0.85": (np.full(4, 120), np.full(4, 0.85)),
    "4 equal cells, n 40, accuracy 0.95": (np.full(4, 40), np.full(4, 0.95)),
    "4 nearly equal cells, n 120": (np.full(4, 120), np.array([0.85, 0.84, 0.83, 0.82])),
    "4 unequal cells, n 50 to 400": (np.array([400, 300, 200, 50]), np.array([0.95, 0.90, 0.85, 0.60])),
    "56 equal cells, n 100, accuracy 0.8": (np.full(56, 100), np.full(56, 0.8)),
    "56 unequal cells, n 15 to 3000": (SIZES_56, SHARES_56),
}


def worst_cell(n_sets: int) -> list[dict[str, Any]]:
    """Worst-cell accuracy."""
    rows = []
    for name, (n, p) in CELLS.items():
        rng = RNG(2)
        hits = rng.binomial(n, p, (n_sets, len(n)))
        found, truth, worst = lowest_share(hits, n), p.min(), int(np.argmin(p))
        low, high = wilson(n[worst] * p[worst], n[worst])
        resampled = rng.binomial(n, hits[:200, None] / n, (min(200, n_sets), 500, len(n))) / n
        ends = np.quantile(resampled.min(axis=-1), [0.025, 0.975], axis=1)
        percentile = float(((ends[0] <= truth) & (truth <= ends[1])).mean())
        rows.append(_row("worst-cell accuracy", name, found, truth, float(high - low), percentile))
    return rows


def paired(n_sets: int) -> list[dict[str, Any]]:
    """Difference of two models on the same rows: accuracy, and worst-cell accuracy."""
    rows = []
    n_sets = min(n_sets, 4000)
    for name, (n, p) in CELLS.items():
        for change, better in (("same accuracy", p), ("b better where a is worst", _lifted(p))):
            joint = _joint(p, better)
            drawn = np.stack([RNG(3 + c).multinomial(n[c], joint[c], n_sets) for c in range(len(n))], axis=1)
            both, only_a, only_b = drawn[..., 0], drawn[..., 1], drawn[..., 2]
            found = lowest_share_difference(only_a, only_b, both, n)
            a, b = int(np.argmin(p)), int(np.argmin(better))
            variance = p[a] * (1 - p[a]) / n[a] + better[b] * (1 - better[b]) / n[b]
            if a == b:
                variance -= 2 * (joint[a, 0] - p[a] * better[a]) / n[a]
            told = 2 * 1.96 * float(np.sqrt(variance))
            truth = p.min() - better.min()
            rows.append(_row("paired difference, worst cell", f"{name}; {change}", found, truth, told))
            low, high = paired_difference(only_a.sum(1), only_b.sum(1), n.sum())
            value = (only_a.sum(1) - only_b.sum(1)) / n.sum()
            share = (n[:, None] * joint).sum(0) / n.sum()
            told = 2 * 1.96 * float(np.sqrt((share[1] + share[2] - (share[1] - share[2]) ** 2) / n.sum()))
            truth = float(share[1] - share[2])
            found_all = (value, low, high)
            rows.append(_row("paired difference, accuracy", f"{name}; {change}", found_all, truth, told))
    return rows


def _lifted(p: np.ndarray) -> np.ndarray:
    return np.where(p < np.quantile(p, 0.3) + 1e-9, np.minimum(p + 0.12, 0.97), p)


def _joint(p: np.ndarray, q: np.ndarray, correlation: float = 0.4) -> np.ndarray:
    """[n_cells, 4] shares right in both, in a alone, in b alone, in neither."""
    both = p * q + correlation * np.sqrt(p * (1 - p) * q * (1 - q))
    both = np.clip(both, np.maximum(0, p + q - 1), np.minimum(p, q))
    return np.stack([both, p - both, q - both, 1 - p - q + both], axis=1)


def paired_gaps(n_sets: int) -> list[dict[str, Any]]:
    """Differences of two models in gap measures, through audit itself; at most 500 data sets (it is
    slow).
    """
    rows = []
    n = 150
    designs = {
        "no gap in either model": (np.full(4, 0.8), np.full(4, 0.8)),
        "b closes a gap of 0.25": (np.array([0.9, 0.65, 0.8, 0.8]), np.full(4, 0.8)),
        "gaps of 0.2 and 0.1": (np.array([0.9, 0.7, 0.85, 0.75]), np.array([0.85, 0.75, 0.85, 0.8])),
    }
    y, group = np.repeat([0, 0, 1, 1], n), np.tile(np.repeat(["f", "m"], n), 2)
    for case, (p, q) in designs.items():
        joint, rng = _joint(p, q), RNG(9)
        truths = {"tpr_gap_max": _max_of(p) - _max_of(q)}
        found: dict[str, list[tuple[float, float, float]]] = {metric: [] for metric in truths}
        for seed in range(min(n_sets, 500)):
            drawn = np.concatenate([rng.choice(4, n, p=cell / cell.sum()) for cell in joint])
            models = {"a": np.where(drawn <= 1, y, 1 - y), "b": np.where(drawn % 2 == 0, y, 1 - y)}
            report = audit(y, models, sensitive_features=group, n_bootstrap=200, random_state=seed)
            table = report.comparisons.set_index("metric")
            for metric, ends in found.items():
                ends.append(tuple(table.loc[metric, ["difference", "ci_low", "ci_high"]]))
        for metric, ends in found.items():
            columns = np.array(ends, dtype=float).T
            told = float(np.diff(np.quantile(columns[0], [0.025, 0.975]))[0])
            rows.append(_row(f"paired difference, {metric}", case, columns, truths[metric], told))
    return rows


def _max_of(p: np.ndarray) -> float:
    return float(max(abs(p[0] - p[1]), abs(p[2] - p[3])))


def several_seeds(n_sets: int) -> list[dict[str, Any]]:
    """Worst cell over 5 seeds that share texts, as the benchmark reports it; at most 400 data sets."""
    rows, pool, n, n_seeds = [], 400, 120, 5
    spread = np.sqrt(0.5)
    for p, seed_sd in (([0.85] * 4, 0.0), ([0.88, 0.86, 0.85, 0.84], 0.05), ([0.95, 0.9, 0.85, 0.7], 0.05)):
        rng, found = RNG(10), []
        threshold = ndtri(p)
        cells = np.repeat(np.arange(4), n)
        for data_set in range(min(n_sets, 400)):
            # a text is as hard for every seed; half of the noise is its own
            hard = rng.normal(size=(4, pool))
            values, texts = [], []
            for _ in range(n_seeds):
                ids = np.stack([rng.choice(pool, n, replace=False) for _ in p])
                noise = spread * np.take_along_axis(hard, ids, axis=1) + spread * rng.normal(size=(4, n))
                level = threshold + seed_sd * rng.normal(size=4)
                values.append((noise < level[:, None]).ravel().astype(float))
                texts.append((ids + pool * np.arange(4)[:, None]).ravel())
            found.append(
                JointBootstrap(texts, [cells] * n_seeds, n_draws=300, random_state=data_set)
                .moves(values)
                .interval()
            )
        levels = threshold + seed_sd * RNG(11).normal(size=(100_000, 4))
        truth = float(ndtr(levels).min(axis=1).mean())
        told = 2 * 1.96 * float(np.sqrt(min(p) * (1 - min(p)) / n / n_seeds))
        name = f"5 seeds x 4 cells of 120, accuracy {p}, between seeds {seed_sd}"
        rows.append(_row("worst cell over seeds", name, np.array(found).T, truth, told))
    return rows


def signed_gap(n_sets: int) -> list[dict[str, Any]]:
    """Signed TPR gap of one class between two groups."""
    rows = []
    for n, p in (
        ((100, 100), (0.8, 0.8)),
        ((40, 300), (0.8, 0.7)),
        ((30, 60), (0.95, 0.9)),
        ((15, 500), (0.6, 0.9)),
    ):
        a, b = RNG(4).binomial(n[0], p[0], n_sets), RNG(5).binomial(n[1], p[1], n_sets)
        low, high = newcombe(a, n[0], b, n[1])
        told = 2 * 1.96 * float(np.sqrt(p[0] * (1 - p[0]) / n[0] + p[1] * (1 - p[1]) / n[1]))
        value = a / n[0] - b / n[1]
        rows.append(_row("signed TPR gap", f"n {n}, TPR {p}", (value, low, high), p[0] - p[1], told))
    return rows


def _row(
    what: str, case: str, found: Any, truth: float, told: float, percentile: float | None = None
) -> dict[str, Any]:
    value, low, high = found
    row = {
        "what": what,
        "case": case,
        "truth": round(float(truth), 4),
        "mean value": round(float(np.mean(value)), 4),
        "coverage": round(float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean()), 4),
        "median width": round(float(np.median(high - low)), 4),
        "width ratio": round(float(np.median(high - low)) / told, 3),
    }
    return row if percentile is None else row | {"percentile": round(percentile, 3)}


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run every simulation, print and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=4000)
    parser.add_argument("--quick", action="store_true", help="200 data sets a case")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    n_sets = 200 if options.quick else options.datasets
    studies = (worst_cell, paired, signed_gap) + (() if options.quick else (paired_gaps, several_seeds))
    rows = [row for study in studies for row in study(n_sets)]
    for row in rows:
        print(json.dumps(row))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"datasets": n_sets, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )
    return rows


if __name__ == "__main__":
    main()
