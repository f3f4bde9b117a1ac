"""The demo's data in the protocol's form: a correlated head set, balanced attribute and test sets."""

import numpy as np
import pandas as pd

from debias_ssae.benchmark.splits import Split
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.text import synthetic_biographies


def demo_table(config: BenchmarkConfig, correlation: float) -> pd.DataFrame:
    """Return texts of all seeds with columns text, target, sensitive, seed and part (head, attribute, test).

    The head set has ``config.max_head`` texts of each profession at ``correlation``, the other two
    ``n_attribute`` and ``n_test`` of each profession and gender.
    """
    parts = []
    for seed in range(config.seeds):
        head = synthetic_biographies(6 * config.max_head, correlation=correlation, random_state=2 * seed)
        n_cell = config.n_attribute + config.n_test
        balanced = synthetic_biographies(6 * 4 * n_cell, correlation=0.0, random_state=2 * seed + 1)
        place = balanced.groupby(["profession", "gender"]).cumcount()
        balanced = balanced[place < n_cell]
        part = np.where(place[balanced.index] < config.n_attribute, "attribute", "test")
        parts += [head.assign(seed=seed, part="head"), balanced.assign(seed=seed, part=part)]
    table = pd.concat(parts, ignore_index=True)
    return table.rename(columns={"profession": "target", "gender": "sensitive"})


def demo_splits(table: pd.DataFrame) -> list[Split]:
    """Return the split of each seed in a table from ``demo_table``."""
    return [
        Split(
            *(
                np.flatnonzero((table["seed"] == s) & (table["part"] == p))
                for p in ("head", "attribute", "test")
            )
        )
        for s in sorted(table["seed"].unique())
    ]
