"""What an audit found: flat tables, the undefined listed, thresholds checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from debias_ssae.core.errors import InputError


@dataclass(frozen=True)
class AuditReport:
    """Tables of an audit. Every table is flat: one number a row, with its interval.

    ``measures``: one row a section x model x metric (section = an attribute, or the crossing of all).
    ``by_group``: one row a section x model x group x metric (x class). ``cells``: one row a section x model x
    label x group. ``contrasts``: each group against the rest, signed, tests Holm-corrected. ``comparisons``:
    models in pairs. ``undefined``: every number that cannot be computed, with the reason. ``confusion``: rows
    by section, model, group, label and prediction.
    """

    n_rows: int
    classes: tuple[Any, ...]
    models: tuple[str, ...]
    sections: tuple[str, ...]
    measures: pd.DataFrame
    by_group: pd.DataFrame
    cells: pd.DataFrame
    contrasts: pd.DataFrame
    comparisons: pd.DataFrame
    undefined: pd.DataFrame
    confusion: pd.DataFrame
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Leakage, counterfactual flips, removed latents and provenance, where they were asked for."""

    def measure(self, metric: str, *, model: str | None = None, section: str | None = None) -> float:
        """The value of ``metric`` (first model and finest section unless named). Raises InputError when
        unknown.
        """
        return float(self.measure_row(metric, model=model, section=section)["value"])

    def measure_row(
        self, metric: str, *, model: str | None = None, section: str | None = None
    ) -> dict[str, Any]:
        """The row of ``measures`` for ``metric``: value, ci_low, ci_high, where, note."""
        model, section = model or self.models[0], section or self.sections[-1]
        table = self.measures
        rows = table[(table["metric"] == metric) & (table["model"] == model) & (table["section"] == section)]
        if rows.empty:
            raise InputError(
                f"No measure {metric!r} for model {model!r} in section {section!r}; metrics:"
                f" {sorted(set(table['metric']))}, models: {list(self.models)}, sections:"
                f" {list(self.sections)}"
            )
        return {str(k): v for k, v in rows.iloc[0].to_dict().items()}

    @property
    def worst_group_accuracy(self) -> float:
        """Lowest accuracy over the cells label x group, first model, finest section."""
        return self.measure("worst_group_accuracy")

    @property
    def worst_group(self) -> str:
        """Name of the cell with the lowest accuracy."""
        return str(self.measure_row("worst_group_accuracy")["where"])

    @property
    def accuracy(self) -> float:
        """Share of right predictions, first model."""
        return self.measure("accuracy")

    @property
    def tpr_gap(self) -> float:
        """Largest difference between groups in the true positive rate of a class, first model, finest
        section.
        """
        return self.measure("tpr_gap_max")

    def with_extras(self, **extras: Any) -> "AuditReport":
        """A copy that also holds ``leakage``, ``flips`` (reports or their dicts), ``latents`` or
        ``provenance``.
        """
        plain = {k: v.to_dict() if hasattr(v, "to_dict") else v for k, v in extras.items()}
        return replace(self, extras={**self.extras, **plain})

    def to_dict(self) -> dict[str, Any]:
        """Plain, flat data for JSON: undefined numbers are None."""
        tables = ("measures", "by_group", "cells", "contrasts", "comparisons", "undefined", "confusion")
        return {
            "schema": "debias-ssae/audit/1",
            "n_rows": self.n_rows,
            "classes": [str(c) for c in self.classes],
            "models": list(self.models),
            "sections": list(self.sections),
            "settings": dict(self.settings),
            "notes": list(self.notes),
            **{name: _records(getattr(self, name)) for name in tables},
            **dict(self.extras),
        }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]
