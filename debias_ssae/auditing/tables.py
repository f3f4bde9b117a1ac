"""From confusion counts of one section and one model to the rows of the report's tables."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from debias_ssae.auditing.inputs import Attribute
from debias_ssae.auditing.rates import Array, Share, accuracy, cell_accuracy, lowest, one_vs_rest, spread
from debias_ssae.intervals import lowest_share, widest_gap, wilson

Row = dict[str, Any]


class Slice(NamedTuple):
    """One section of the audit: an attribute (or crossing) and a model, as counts."""

    section: str
    model: str
    attribute: Attribute
    classes: tuple[Any, ...]
    counts: Array  # [n_groups, n_classes, n_classes]
    min_cell: int

    def cell_name(self, group: int, label: int) -> str:
        return f"{self.classes[label]} / {self.attribute.groups[group]}"

    @property
    def key(self) -> Row:
        return {"section": self.section, "model": self.model}


def cell_rows(part: Slice) -> list[Row]:
    """One row a cell label x group, empty cells included (as undefined)."""
    share = cell_accuracy(part.counts)
    low, high = wilson(share.hits, share.n)
    rows = []
    for g, group in enumerate(part.attribute.groups):
        for c, label in enumerate(part.classes):
            n = share.n[g, c]
            rows.append(
                {
                    **part.key,
                    "label": str(label),
                    "group": group,
                    "n": float(n),
                    "accuracy": float(share.value[g, c]),
                    "ci_low": float(low[g, c]),
                    "ci_high": float(high[g, c]),
                    "excluded": bool(0 < n < part.min_cell),
                }
            )
    return rows


def group_rows(part: Slice) -> list[Row]:
    """One row a group x metric (x class), with a Wilson interval."""
    shares: list[tuple[str, str, Share]] = [("accuracy", "", accuracy(part.counts))]
    for metric, share in one_vs_rest(part.counts).items():
        for c, label in enumerate(part.classes):
            shares.append((metric, str(label), Share(share.hits[:, c], share.n[:, c])))
    rows = []
    for metric, label, share in shares:
        low, high = wilson(share.hits, share.n)
        for g, group in enumerate(part.attribute.groups):
            rows.append(
                {
                    **part.key,
                    "group": group,
                    "metric": metric,
                    "label": label,
                    "n": float(share.n[g]),
                    "value": float(share.value[g]),
                    "ci_low": float(low[g]),
                    "ci_high": float(high[g]),
                }
            )
    return rows


def measure_rows(part: Slice) -> list[Row]:
    """Accuracy, worst-group accuracy with the cell's name, largest TPR gap with the class and the groups."""
    return [_accuracy(part), _worst_group(part), _tpr_gap(part)]


def _accuracy(part: Slice) -> Row:
    whole = accuracy(part.counts.sum(axis=0))
    low, high = wilson(whole.hits, whole.n)
    return _row(part, "accuracy", float(whole.value), (float(low), float(high)), "all rows", "Wilson")


def _worst_group(part: Slice) -> Row:
    share = cell_accuracy(part.counts)
    counted = share.n >= max(1, part.min_cell)
    value, where = lowest(np.where(counted, share.value, np.nan))
    interval = lowest_share(share.hits[counted], share.n[counted])
    note = _coverage_note(int(counted.sum()), counted.size, int(((share.n > 0) & ~counted).sum()))
    name = part.cell_name(*where) if where else ""
    return _row(part, "worst_group_accuracy", value, interval[1:], name, "simultaneous Wilson", note)


def _coverage_note(counted: int, cells: int, small: int) -> str:
    if counted == cells:
        return ""
    note = f"over {counted} of {cells} cells; {cells - counted - small} without rows"
    return note + (f", {small} below the minimum cell size" if small else "")


def _tpr_gap(part: Slice) -> Row:
    share = cell_accuracy(part.counts)
    gaps = [spread(share.value[:, c]) for c in range(len(part.classes))]
    values = np.array([gap for gap, _ in gaps])
    metric = "tpr_gap_max"
    if np.isnan(values).all():
        return _row(
            part, metric, float("nan"), (float("nan"),) * 2, "", "", "no class has rows in two groups"
        )
    c = int(np.nanargmax(values))
    top, bottom = gaps[c][1]
    groups: Sequence[str] = part.attribute.groups
    where = f"{part.classes[c]}: {groups[top]} over {groups[bottom]}"
    low, high = widest_gap(share.hits[:, c], share.n[:, c])[1:]
    undefined = int(np.isnan(share.value).sum())
    note = f"{undefined} cell(s) without rows: their rate is undefined" if undefined else ""
    return _row(part, metric, float(values[c]), (low, high), where, "simultaneous Newcombe", note)


def _row(
    part: Slice, metric: str, value: float, interval: Sequence[float], where: str, method: str, note: str = ""
) -> Row:
    low, high = interval
    return {
        **part.key,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "where": where,
        "method": method,
        "note": note,
    }


def undefined_rows(part: Slice) -> list[Row]:
    """Every cell without rows, and what cannot be computed because of it."""
    share = cell_accuracy(part.counts)
    return [
        {
            **part.key,
            "cell": part.cell_name(int(g), int(c)),
            "reason": "no row with this label in this group: accuracy and true positive rate are undefined",
        }
        for g, c in np.argwhere(share.n == 0)
    ]
