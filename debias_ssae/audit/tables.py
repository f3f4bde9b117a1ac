"""Rows of the report's tables that list rather than summarise: groups, cells, tests, what is undefined."""

from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.audit.measures import Row, Slice
from debias_ssae.audit.rates import Array, Share, accuracy, by_class, cell_accuracy, one_vs_rest
from debias_ssae.core.stats import holm, newcombe, rows_needed, two_share_test, wilson

_TESTED = ("accuracy", "true_positive_rate", "precision", "selection_rate")


def cell_table(part: Slice) -> pd.DataFrame:
    """One row a cell label x group, empty cells included; how many more rows would make it precise."""
    share = cell_accuracy(part.counts)
    hits, size = share.effective
    low, high = wilson(hits, size)
    n_groups, n_classes = share.n.shape
    needed = rows_needed(np.where(size > 0, share.value, 0.5), part.tolerance / 2)
    return pd.DataFrame(
        {
            **part.key,
            "label": np.tile([str(c) for c in part.classes], n_groups),
            "group": np.repeat(part.attribute.groups, n_classes),
            "n": share.n.ravel(),
            "accuracy": share.value.ravel(),
            "ci_low": low.ravel(),
            "ci_high": high.ravel(),
            "excluded": ((share.n > 0) & ~part.counted).ravel(),
            "more_rows_needed": np.maximum(needed - np.floor(size), 0).astype(int).ravel(),
        }
    )


def confusion_table(part: Slice) -> pd.DataFrame:
    """Rows by group, label and prediction; combinations that do not occur are left out (they count 0)."""
    filled = np.argwhere(part.counts.sums > 0)
    groups, labels = (
        np.array(part.attribute.groups, dtype=object),
        np.array([str(c) for c in part.classes], dtype=object),
    )
    return pd.DataFrame(
        {
            **part.key,
            "group": groups[filled[:, 0]],
            "label": labels[filled[:, 1]],
            "prediction": labels[filled[:, 2]],
            "n": part.counts.sums[tuple(filled.T)],
        }
    )


def group_table(part: Slice) -> pd.DataFrame:
    """One row a group x metric (x class), with a Wilson interval; then the same over all rows."""
    everyone = part.counts.pooled()
    frames = []
    for (metric, label, share), (_, _, whole) in zip(
        _shares(part, part.counts), _shares(part, everyone), strict=True
    ):
        both = Share(*(np.concatenate(pair) for pair in zip(share, whole, strict=True)))
        low, high = wilson(*both.effective)
        frames.append(
            pd.DataFrame(
                {
                    **part.key,
                    "group": [*part.attribute.groups, "all rows"],
                    "overall": [False] * len(part.attribute.groups) + [True],
                    "metric": metric,
                    "label": label,
                    "n": both.n,
                    "value": both.value,
                    "ci_low": low,
                    "ci_high": high,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _shares(part: Slice, counts: Any) -> list[tuple[str, str, Share]]:
    rates = by_class(one_vs_rest(counts), len(part.classes), part.positive)
    return [("accuracy", "", accuracy(counts))] + [(m, str(part.classes[c]), s) for m, c, s in rates]


def contrast_table(part: Slice) -> pd.DataFrame:
    """Each group against all other rows (two groups: the first against the second), signed, tests Holm-
    corrected.

    The correction spans all groups and metrics of the section and model.
    """
    groups = part.attribute.groups
    first = [0] if len(groups) == 2 else list(range(len(groups)))
    frames = []
    for metric, label, share in _shares(part, part.counts):
        if metric not in _TESTED and not (metric == "false_positive_rate" and len(part.classes) > 2):
            continue
        k, n = share.effective
        rest_k, rest_n = k.sum() - k, n.sum() - n
        low, high = newcombe(k[first], n[first], rest_k[first], rest_n[first])
        frames.append(
            pd.DataFrame(
                {
                    **part.key,
                    "metric": metric,
                    "label": label,
                    "group": [groups[i] for i in first],
                    "versus": groups[1] if len(groups) == 2 else "the rest",
                    "difference": _difference(k, n, rest_k, rest_n)[first],
                    "ci_low": low,
                    "ci_high": high,
                    "p": two_share_test(k[first], n[first], rest_k[first], rest_n[first]),
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    table["p_holm"] = holm(table["p"].to_numpy())
    return table


def _difference(k: Array, n: Array, rest_k: Array, rest_n: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((n > 0) & (rest_n > 0), k / n - rest_k / rest_n, np.nan)


def undefined_rows(part: Slice) -> list[Row]:
    """Every cell without rows, every cell too small to count, and every rate without a denominator."""
    n_rows = cell_accuracy(part.counts).effective[1]
    kind = "effective row(s)" if part.weighted else "row(s)"
    rows: list[Row] = []
    for g, c in np.argwhere(~part.counted):
        n = float(n_rows[g, c])
        reason = "no row with this label in this group: accuracy and true positive rate are undefined"
        if n > 0:
            reason = (
                f"{n:g} {kind}, fewer than the minimum cell size {part.min_cell}: left out of the worst group"
            )
        rows.append({**part.key, "what": part.cell_name(int(g), int(c)), "reason": reason})
    for metric, label, rate in _shares(part, part.counts):
        if metric == "true_positive_rate":
            continue  # the cells above
        why = {
            "precision": "was predicted for nobody",
            "false_positive_rate": "is the label of everybody",
        }.get(metric)
        for g in np.flatnonzero(rate.n == 0):
            what = f"{metric.replace('_', ' ')} of {label}, {part.attribute.groups[g]}"
            rows.append(
                {**part.key, "what": what, "reason": f"{label} {why} in this group" if why else "no row"}
            )
    return rows
