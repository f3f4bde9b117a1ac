"""Means over seeds with intervals from a bootstrap clustered by text."""

from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.intervals import clustered_interval

METRICS = ("accuracy", "balanced_accuracy", "worst_group_accuracy", "attribute_accuracy", "leakage")
_STATISTIC = {"accuracy": "mean", "balanced_accuracy": "balanced", "worst_group_accuracy": "worst_cell"}
_KEYS = ["method", "setting", "regime", "representation", "head", "head_model", "C_rule"]


def summarise(runs: list[dict[str, Any]], predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one flat row for each method, regime, head and C rule; draws count as part of their seed.

    Each metric has its mean and ``_ci_low``, ``_ci_high``: for the accuracies a bootstrap of the test texts, a
    text drawn with all its seeds, plus the variance between seeds; for the others Student's t over seeds.
    """
    table = pd.DataFrame(runs)
    rows = []
    for key, group in table.groupby(_KEYS, sort=False):
        mine = predictions[(predictions[_KEYS] == list(key)).all(axis=1)]
        row: dict[str, Any] = dict(zip(_KEYS, key, strict=True))
        row |= {name: _mean(group[name]) for name in ("C", "d_sae", "n_latents")}
        row["n_seeds"] = int(group["seed"].nunique())
        row["worst_group"] = group["worst_group"].mode()[0]
        for metric in METRICS:
            mean, low, high = _interval(metric, group, mine)
            row |= {metric: mean, f"{metric}_ci_low": low, f"{metric}_ci_high": high}
        row |= {name: _mean(group[name]) for name in ("seconds_fit", "seconds_transform")}
        rows.append(row)
    return rows


def _interval(metric: str, group: pd.DataFrame, predictions: pd.DataFrame) -> tuple[float, float, float]:
    by_seed = group.groupby("seed")[metric].mean()
    if metric not in _STATISTIC:
        return _student(by_seed.to_numpy())
    parts = [part for _, part in predictions.groupby(["seed", "draw"])]
    interval = clustered_interval(
        [(p["y"] == p["y_pred"]).to_numpy(dtype=float) for p in parts],
        [p["text_id"].to_numpy() for p in parts],
        [(p["y"] + "\0" + (p["z"] if metric == "worst_group_accuracy" else "")).to_numpy() for p in parts],
        statistic=_STATISTIC[metric],  # type: ignore[arg-type]
        random_state=0,
    )
    return float(by_seed.mean()), interval.low, interval.high


def _student(values: np.ndarray) -> tuple[float, float, float]:
    from scipy.stats import t

    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _mean(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.mean())
