"""Which test text each row got right in each seed, and how resampled texts move its accuracies."""

from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.core.stats import JointBootstrap, Moves

PREDICTION_KEYS = (
    "method",
    "setting",
    "regime",
    "representation",
    "head",
    "head_model",
    "C_rule",
    "draw",
    "seed",
)
"""Columns that tell one head's predictions from another's."""
KEYS = [key for key in PREDICTION_KEYS if key not in ("draw", "seed")]
"""What makes a row of the summary."""
STATISTICS = {"accuracy": "mean", "balanced_accuracy": "balanced", "worst_group_accuracy": "worst_cell"}
N_DRAWS = 1000


class Answers:
    """The predictions of a run, one bootstrap for all rows: a text is drawn with all its seeds and methods."""

    def __init__(self, predictions: pd.DataFrame, *, n_draws: int = N_DRAWS) -> None:
        """Take the content of predictions.parquet."""
        self.n_draws = n_draws
        known = predictions.fillna(dict.fromkeys(KEYS, ""))
        ordered = known.sort_values(["seed", "draw", "text_id"], kind="stable")
        self._rows: dict[tuple[Any, ...], pd.DataFrame] = dict(
            iter(ordered.groupby(KEYS, sort=False))  # type: ignore[arg-type]
        )
        self._bootstraps: dict[tuple[int, ...], tuple[JointBootstrap, list[np.ndarray]]] = {}
        self._moves: dict[tuple[tuple[Any, ...], str], Moves] = {}

    def moves(self, key: tuple[Any, ...], metric: str) -> Moves:
        """An accuracy of the row ``key``; several draws in a seed count as their mean."""
        if (key, metric) not in self._moves:
            table = self._rows[key]
            seeds = {int(seed): table[table["seed"] == seed] for seed in table["seed"].unique()}
            bootstrap, classes = self._bootstrap(seeds)
            draws = [
                bootstrap.moves(
                    [self._right(part, draw) for part in seeds.values()],
                    STATISTICS[metric],  # type: ignore[arg-type]
                    groups=classes if metric == "balanced_accuracy" else None,
                )
                for draw in sorted(table["draw"].unique())
            ]
            mean = Moves(np.mean([d.point for d in draws], axis=0), np.mean([d.moved for d in draws], axis=0))
            self._moves[key, metric] = mean
        return self._moves[key, metric]

    def cells(self, key: tuple[Any, ...]) -> dict[str, dict[str, float]]:
        """Test texts of each cell in a seed, and its accuracy; both are means over seeds."""
        table = self._rows[key]
        right = (table["y"] == table["y_pred"]).to_numpy(dtype=float)
        found = table.assign(right=right).groupby(["y", "z"])["right"].agg(["size", "mean"])
        n_runs = table.groupby(["seed", "draw"]).ngroups
        names = [f"{y}, {z}" for y, z in found.index]
        facts = zip(names, found["size"], found["mean"], strict=True)
        return {name: {"n": float(n / n_runs), "accuracy": float(mean)} for name, n, mean in facts}

    @staticmethod
    def _right(part: pd.DataFrame, draw: int) -> np.ndarray:
        one = part[part["draw"] == draw]
        return (one["y"] == one["y_pred"]).to_numpy(dtype=float)

    def _bootstrap(self, seeds: dict[int, pd.DataFrame]) -> tuple[JointBootstrap, list[np.ndarray]]:
        """The draws for these seeds, shared by every row that has them, and the test texts' classes."""
        names = tuple(seeds)
        if names not in self._bootstraps:
            firsts = [part[part["draw"] == part["draw"].iloc[0]] for part in seeds.values()]
            cells = [(part["y"].astype(str) + "\0" + part["z"].astype(str)).to_numpy() for part in firsts]
            bootstrap = JointBootstrap([p["text_id"].to_numpy() for p in firsts], cells, n_draws=self.n_draws)
            self._bootstraps[names] = bootstrap, [p["y"].to_numpy() for p in firsts]
        return self._bootstraps[names]
