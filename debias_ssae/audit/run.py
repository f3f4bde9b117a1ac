"""The audit itself: inputs to codes, codes to counts, counts to tables, and the report that holds them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.audit import rates
from debias_ssae.audit.calibration import calibration_table, scores_of
from debias_ssae.audit.comparisons import comparison_rows
from debias_ssae.audit.measures import (
    Metric,
    Row,
    Section,
    cell_table,
    check_metrics,
    contrast_table,
    group_table,
    measure_rows,
    own_metric_rows,
    undefined_rows,
)
from debias_ssae.core.errors import InputError, check_seed
from debias_ssae.core.io import as_json

LARGEST_CROSSING = 5000
MIN_GROUP = 10
TABLES = ("measures", "by_group", "cells", "contrasts", "comparisons", "undefined", "missing")


@dataclass(frozen=True)
class AuditReport:
    """Tables of an audit. Every table is flat: one number a row, with its interval.

    ``measures``: one row a section x model x metric (section = an attribute, or the crossing of all).
    ``by_group``: one row a section x model x group x metric (x class). ``cells``: one row a section x model x
    label x group. ``contrasts``: each group against the rest, signed, tests Holm-corrected. ``comparisons``:
    models in pairs. ``undefined``: every number that cannot be computed or decides nothing, with the reason.
    ``missing``: cells without rows that a measure should have been computed from as well.
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
    missing: pd.DataFrame
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Leakage, counterfactual flips and provenance, where they were asked for."""

    def measure(self, metric: str, *, model: str | None = None, section: str | None = None) -> float:
        """The value of ``metric`` (first model and finest section unless named). Raises InputError when unknown."""
        return float(self.measure_row(metric, model=model, section=section)["value"])

    def measure_row(
        self, metric: str, *, model: str | None = None, section: str | None = None
    ) -> dict[str, Any]:
        """The row of ``measures`` for ``metric``: value, ci_low, ci_high, outcome, where, note."""
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

    def with_extras(self, **extras: Any) -> "AuditReport":
        """A copy that also holds ``leakage``, ``flips`` (reports or their dicts) or ``provenance``."""
        plain = {k: v.to_dict() if hasattr(v, "to_dict") else v for k, v in extras.items()}
        return replace(self, extras={**self.extras, **plain})

    def to_dict(self) -> dict[str, Any]:
        """Plain, flat data for JSON: undefined numbers are None."""
        return {
            "schema": "debias-ssae/audit/3",
            "n_rows": self.n_rows,
            "classes": [str(c) for c in self.classes],
            "models": list(self.models),
            "sections": list(self.sections),
            "settings": dict(self.settings),
            "notes": list(self.notes),
            **{name: as_json(records(getattr(self, name))) for name in TABLES},
            **dict(self.extras),
        }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def audit(
    y_true: Any,
    y_pred: Any,
    *,
    sensitive_features: Any,
    y_score: Any = None,
    control_features: Any = None,
    sample_weight: Any = None,
    pos_label: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    min_group: int = MIN_GROUP,
    tolerance: float = 0.1,
    n_bootstrap: int = 1000,
    random_state: int | None = None,
) -> AuditReport:
    """Audit predictions by group: what fails, for whom, how sure we are.

    ``y_pred`` is one sequence of labels, or a dict name -> labels, whose models are then compared in pairs.
    ``sensitive_features`` is one column or several (DataFrame or dict): each is a section, and so is their
    crossing. Rows whose attribute is missing are a group "unknown" that is shown, but decides nothing.
    ``y_score`` (probabilities, of two classes those of ``pos_label``; a dict for several models) adds
    calibration. With ``control_features`` every section is repeated inside each of their levels. ``pos_label``
    is the class that counts as selected when there are two (the larger label unless given). ``metrics`` are your own
    measures by name, functions ``(y_true, y_pred) -> float`` that are evaluated in each group.

    A rate over fewer than ``min_group`` rows is shown, but decides no gap, no worst group and no gate.
    ``tolerance`` is the difference that matters: a gap is beyond it, within it, or there are too few rows to
    say. Each bootstrap draw is one multinomial over the counts; with scores or weights the rows are resampled, and
    the column ``method`` says so. Raises InputError on lengths that differ, missing labels, scores in place of
    labels, and an attribute with a single group, which would look perfectly fair.
    """
    _check_at_least(min_group, 1, "min_group")
    _check_at_least(n_bootstrap, 2, "n_bootstrap")
    check_seed(random_state)
    if not 0.0 < tolerance < 1.0:
        raise InputError(f"tolerance must lie strictly between 0 and 1, got {tolerance!r}")
    predictions = (
        {str(k): v for k, v in y_pred.items()} if isinstance(y_pred, Mapping) else {"y_pred": y_pred}
    )
    if not predictions:
        raise InputError("y_pred holds no predictions; pass labels, or a dict of name -> labels")
    truth, predicted, classes = rates.label_codes(y_true, predictions)
    if pos_label is not None and pos_label not in classes:
        raise InputError(f"pos_label={pos_label!r} is no label here; the labels are {list(classes)[:10]}")
    positive = len(classes) - 1 if pos_label is None else classes.index(pos_label)
    scores = scores_of(y_score, tuple(predicted), len(truth), classes, positive)
    weights = rates.weights_of(sample_weight, len(truth))
    own = check_metrics(metrics, weights is not None)
    tables: dict[str, list[pd.DataFrame]] = {"by_group": [], "cells": [], "contrasts": []}
    summary: list[Row] = []
    undefined: list[Row] = []
    comparisons: list[Row] = []
    parts = list(_sections(sensitive_features, control_features, len(truth), undefined))
    for index, (name, attribute, rows) in enumerate(parts):
        rng = np.random.default_rng(None if random_state is None else [random_state, index])
        section = Section(
            name,
            attribute,
            truth[rows],
            {m: codes[rows] for m, codes in predicted.items()},
            None if weights is None else weights[rows],
            {m: values[rows] for m, values in scores.items()},
            classes,
            positive,
            min_group=int(min_group),
            tolerance=tolerance,
            n_bootstrap=int(n_bootstrap),
        )
        here: list[Row] = []
        for part in section.slices():
            here += measure_rows(part)
            undefined += undefined_rows(part)
            tables["by_group"].append(group_table(part))
            tables["cells"].append(cell_table(part))
            tables["contrasts"].append(contrast_table(part))
            if part.model in scores:
                tables["by_group"].append(calibration_table(part, rng))
            for called, metric in own.items():
                table, found = own_metric_rows(part, called, metric, rng)
                tables["by_group"].append(table)
                here += found
        summary += here
        comparisons += comparison_rows(section, here, rng)
    missing = [
        {**{k: row[k] for k in ("section", "model", "metric")}, "cell": cell}
        for row in summary
        for cell in row["missing"]
    ]
    frames: dict[str, Any] = {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}
    return AuditReport(
        n_rows=len(truth),
        classes=classes,
        models=tuple(predicted),
        sections=tuple(name for name, *_ in parts),
        measures=pd.DataFrame([{**row, "missing": len(row["missing"])} for row in summary]),
        comparisons=pd.DataFrame(comparisons, columns=_COMPARISON_COLUMNS),
        undefined=pd.DataFrame(undefined, columns=["section", "model", "what", "reason"]),
        missing=pd.DataFrame(missing, columns=["section", "model", "metric", "cell"]),
        **frames,
        notes=_notes(section, [str(classes[c]) for c in np.setdiff1d(np.arange(len(classes)), truth)]),
        settings={
            "min_group": section.min_group,
            "tolerance": tolerance,
            "n_bootstrap": section.n_bootstrap,
            "random_state": random_state,
            "confidence": 0.95,
            "pos_label": str(classes[positive]),
        },
    )


_COMPARISON_COLUMNS = [
    *("section", "model_a", "model_b", "metric", "difference", "ci_low", "ci_high", "p", "outcome", "method")
]


def _check_at_least(value: int, least: int, name: str) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _sections(
    sensitive: Any, control: Any, n_rows: int, skipped: list[Row]
) -> Iterator[tuple[str, rates.Attribute, Any]]:
    """Each attribute, then the crossing of all; then the same inside each control level. Name, attribute, rows."""
    attributes = crossed_attributes(sensitive, n_rows)
    for attribute in attributes:
        if attribute.known.sum() < 2:
            raise InputError(
                f"Attribute {attribute.name!r} has one group only ({', '.join(attribute.groups)}), so nothing can be"
                " compared; pass rows of at least two groups"
            )
        if len(attribute.groups) > LARGEST_CROSSING:
            raise InputError(
                f"{attribute.name!r} has {len(attribute.groups)} groups, more than {LARGEST_CROSSING};"
                " this looks like an identifier or a number: bin it first"
            )
        yield attribute.name, attribute, slice(None)
    if control is None:
        return
    levels = rates.cross(rates.attributes_of(control, "control_features"))
    rates.check_lengths({"y_true": n_rows, "control_features": len(levels.codes)})
    for code, level in enumerate(levels.groups):
        rows = np.flatnonzero(levels.codes == code)
        for attribute in attributes if len(rows) else []:
            name = f"{attribute.name} | {levels.name} = {level}"
            inside = _present(attribute, rows)
            if inside.known.sum() < 2:
                reason = f"one group only ({', '.join(inside.groups)}): nothing can be compared"
                skipped.append({"section": name, "model": "", "what": "the whole section", "reason": reason})
            else:
                yield name, inside, rows


def _present(attribute: rates.Attribute, rows: rates.Codes) -> rates.Attribute:
    """The attribute on some rows, without the groups that have none there: absent by control, not by failure."""
    found, codes = np.unique(attribute.codes[rows], return_inverse=True)
    groups = tuple(attribute.groups[i] for i in found)
    return rates.Attribute(attribute.name, codes.astype(np.int64), groups, attribute.known[found])


def crossed_attributes(sensitive_features: Any, n_rows: int) -> list[rates.Attribute]:
    """Each attribute, then the crossing of all when there are several. Raises InputError on lengths that differ."""
    attributes = rates.attributes_of(sensitive_features)
    rates.check_lengths({"y_true": n_rows} | {f"attribute {a.name!r}": len(a.codes) for a in attributes})
    return [*attributes, rates.cross(attributes)] if len(attributes) > 1 else attributes


def _notes(section: Section, only_predicted: list[str]) -> tuple[str, ...]:
    notes = [
        "Worst-group accuracy is the lowest accuracy over the cells label x group.",
        f"A rate over fewer than {section.min_group} rows, or of rows whose attribute is missing, is shown but"
        " decides no gap, no worst group and no gate.",
    ]
    if len(section.classes) == 2:
        notes.append(
            f"Selection, false positives and precision are of the label {section.classes[section.positive]}."
        )
    else:
        notes.append(
            "Rates of more than two classes are one class against the rest; gaps are the widest over classes."
        )
    if only_predicted:
        notes.append(f"Predicted, but the label of no row: {', '.join(only_predicted[:5])}.")
    if section.weights is not None:
        notes.append("Rows are weighted: intervals use effective sizes, comparisons a row bootstrap.")
    if section.scores:
        notes.append("Calibration is bootstrapped by rows.")
    return tuple(notes)
