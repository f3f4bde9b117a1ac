"""One row for each method and way of evaluating: means over seeds, with intervals."""

from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.benchmark.answers import KEYS, STATISTICS, Answers
from debias_ssae.core.stats import Moves, gap_closed

SKYLINES = ("oracle", "oracle_large", "majority")
"""Rows that are no methods: never ranked."""
_FACTS = (
    "C",
    "d_sae",
    "n_latents",
    "n_parameters",
    "seconds_fit",
    "seconds_transform",
    "flips_n",
    "flips_unlisted_n",
)
_WORDS = ("hookpoint", "level")
_NOT_METRICS = {*KEYS, *_FACTS, *_WORDS, "draw", "seed", "worst_group", "needs_attribute"}


def summarise(runs: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """Return one flat row for each method, regime, head and C rule; draws count as part of their seed.

    Each metric has its mean and ``_ci_low``, ``_ci_high``: for the accuracies a bootstrap of the test texts, a
    text drawn with all its seeds, plus the variance between seeds; for the others Student's t over seeds.
    ``gap_closed`` is (WGA - WGA of erm) / (WGA of oracle - WGA of erm), same bootstrap. ``rank`` orders the
    worst-group accuracies of rows evaluated alike; a method that needs the attribute when used has none.
    """
    table = pd.DataFrame(runs)
    table[KEYS] = table[KEYS].fillna("")
    metrics = [name for name in table.columns if name not in _NOT_METRICS and _is_number(table[name])]
    rows = []
    for key, group in table.groupby(KEYS, sort=False):
        row: dict[str, Any] = {name: None if k == "" else k for name, k in zip(KEYS, key, strict=True)}
        row |= {name: _mean(group[name]) for name in _FACTS if name in table}
        row |= {name: _word(group[name]) for name in _WORDS if name in table}
        row["n_seeds"] = int(group["seed"].nunique())
        row["needs_attribute"] = "needs_attribute" in group and bool(group["needs_attribute"].any())
        row["worst_group"] = group["worst_group"].mode()[0]
        row["cells"] = answers.cells(key)
        for metric in metrics:
            if metric in STATISTICS:
                row |= _named(metric, answers.moves(key, metric))
            else:
                row |= _student(metric, group.groupby("seed")[metric].mean().dropna().to_numpy())
        rows.append(row)
    _add_gap_closed(rows, answers)
    _add_ranks(rows)
    return rows


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """The row's key in ``Answers``."""
    return tuple("" if row[key] is None else row[key] for key in KEYS)


def evaluated_alike(row: dict[str, Any]) -> tuple[Any, ...]:
    """What two rows must share to stand side by side; a method's own head stands beside the ordinary ones."""
    rule = "cv" if row["C_rule"] == "own" else row["C_rule"]
    return row["setting"], row["head_model"], rule, row["head"], row["representation"]


def _add_gap_closed(rows: list[dict[str, Any]], answers: Answers) -> None:
    ends: dict[Any, dict[str, Moves]] = {}
    for row in rows:
        if row["method"] in ("erm", "oracle"):
            alike = tuple(row[k] for k in ("setting", "head_model", "C_rule"))
            ends.setdefault(alike, {})[row["method"]] = answers.moves(key_of(row), "worst_group_accuracy")
    for row in rows:
        # a method with a head of its own stands beside the ordinary heads
        ordinary = ends.get((row["setting"], "logistic", "cv"), {})
        between = ends.get(tuple(row[k] for k in ("setting", "head_model", "C_rule")), ordinary)
        share = None
        if len(between) == 2:
            own = answers.moves(key_of(row), "worst_group_accuracy")
            if len({len(m.point) for m in (own, *between.values())}) == 1:
                share = gap_closed(own, between["erm"], between["oracle"])
        nothing = {"gap_closed": None, "gap_closed_ci_low": None, "gap_closed_ci_high": None}
        row |= nothing if share is None else _named("gap_closed", share)


def _add_ranks(rows: list[dict[str, Any]]) -> None:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        row["rank"] = None
        if not row["needs_attribute"] and row["method"] not in SKYLINES:
            groups.setdefault(evaluated_alike(row), []).append(row)
    for members in groups.values():
        ordered = sorted(members, key=lambda row: -row["worst_group_accuracy"])
        for place, row in enumerate(ordered, 1):
            row["rank"] = place


def _named(metric: str, moves: Moves) -> dict[str, float]:
    value, low, high = moves.interval()
    return {metric: value, f"{metric}_ci_low": low, f"{metric}_ci_high": high}


def _student(metric: str, values: np.ndarray) -> dict[str, float]:
    from scipy.stats import t

    mean = float(values.mean()) if len(values) else float("nan")
    half = float("nan")
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {metric: mean, f"{metric}_ci_low": mean - half, f"{metric}_ci_high": mean + half}


def _is_number(values: pd.Series) -> bool:
    known = values.dropna()
    return len(known) > 0 and all(
        isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in known
    )


def _word(values: pd.Series) -> str | None:
    known = values.dropna()
    return None if known.empty else str(known.iloc[0])


def _mean(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.mean())
