"""How fast are the count bootstrap and a large audit?

    OMP_NUM_THREADS=1 python benchmarks/audit_speed.py [--quick]

Prints one JSON line a measurement: seconds, and peak resident memory where it matters.
"""

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.audit import audit
from debias_ssae.core.stats.shares import count_draws


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> dict[str, float]:
    """Wall and processor seconds; on a busy machine only the second says anything about the program."""
    wall, cpu = (now - then for now, then in zip(_clocks(), start, strict=True))
    return {"seconds": round(wall, 4), "cpu_seconds": round(cpu, 4)}


def bootstrap(n: int = 99_069, n_draws: int = 1000) -> list[dict[str, Any]]:
    """1,000 draws at the size of the Bias in Bios test set: 28 classes x 2 groups, from counts."""
    rng = np.random.default_rng(0)
    cells = rng.dirichlet(np.full(56, 2.0))
    right = 0.5 + 0.45 * rng.random(56)
    correct = rng.multinomial(n, np.stack([cells * right, cells * (1 - right)], axis=1).ravel())
    start = _clocks()
    for drawn in count_draws(correct, n_draws, rng):
        pairs = drawn.reshape(len(drawn), 28, 2, 2)
        accuracy = pairs[..., 0] / pairs.sum(axis=-1)
        accuracy.reshape(len(drawn), -1).min(axis=1), accuracy[..., 0] - accuracy[..., 1]
    spent = _since(start)
    rows = [
        {
            "what": f"{n_draws} draws, {n} rows x 56 cells, accuracy and TPR",
            **spent,
            "bar": 0.1,
        }
    ]
    shares = rng.dirichlet(np.full(28, 0.3), size=56) * 0.3
    shares[np.arange(56), np.repeat(np.arange(28), 2)] += 0.7
    full = rng.multinomial(n, (cells[:, None] * shares).ravel())
    start = _clocks()
    for drawn in count_draws(full, n_draws, rng):
        drawn.reshape(len(drawn), 28, 2, 28).sum(axis=-1)
    spent = _since(start)
    rows.append({"what": f"{n_draws} draws, full 28 x 28 x 2 confusion", **spent, "bar": 1.0})
    return rows


def large_audit(n: int = 1_000_000, n_groups: int = 200, models: int = 1) -> dict[str, Any]:
    """One call of audit, names as strings, everything on."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    group = pd.Series(np.char.add("group ", rng.integers(0, n_groups, n).astype(str)))
    predicted = {f"model {i}": np.where(rng.random(n) < 0.8 + 0.02 * i, y, 1 - y) for i in range(models)}
    start = _clocks()
    report = audit(y, predicted, sensitive_features=group, random_state=0)
    spent = _since(start)
    return {
        "what": f"audit of {n} rows x {n_groups} groups, {models} model(s)",
        **spent,
        "bar": 10.0,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "bar_gib": 2.0,
        "worst_group_accuracy": round(report.worst_group_accuracy, 4),
    }


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    options = parser.parse_args(arguments)
    rows = bootstrap(n_draws=100 if options.quick else 1000)
    for models in (1, 2):
        rows.append(large_audit(20_000 if options.quick else 1_000_000, 20 if options.quick else 200, models))
    for row in rows:
        print(json.dumps(row))
    return rows


if __name__ == "__main__":
    main()
