"""The audit itself: inputs to codes, codes to counts, counts to tables."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from debias_ssae.audit.calibration import calibration_table, scores_of
from debias_ssae.audit.comparisons import Rows, comparison_rows
from debias_ssae.audit.inputs import (
    Attribute,
    Codes,
    attributes_of,
    check_lengths,
    cross,
    label_codes,
    weights_of,
)
from debias_ssae.audit.measures import Row, Slice, measure_rows
from debias_ssae.audit.outcome import AuditReport
from debias_ssae.audit.rates import Array, confusion
from debias_ssae.audit.tables import (
    cell_table,
    confusion_table,
    contrast_table,
    group_table,
    undefined_rows,
)
from debias_ssae.core.errors import InputError

LARGEST_CROSSING = 5000


class Section(NamedTuple):
    """An attribute (or crossing) on the rows of one control level; ``rows`` None means all."""

    name: str
    attribute: Attribute
    rows: Codes | None

    def take(self, values: Any) -> Any:
        """``values`` on this section's rows."""
        return values if self.rows is None or values is None else values[self.rows]


class _Inputs(NamedTuple):
    truth: Codes
    predicted: dict[str, Codes]
    classes: tuple[Any, ...]
    positive: int
    weights: Array | None
    scores: dict[str, Array]


class _Options(NamedTuple):
    min_cell: int
    tolerance: float
    n_bootstrap: int
    random_state: int | None


def audit(
    y_true: Any,
    y_pred: Any,
    *,
    sensitive_features: Any,
    y_score: Any = None,
    control_features: Any = None,
    sample_weight: Any = None,
    pos_label: Any = None,
    min_cell: int = 1,
    tolerance: float = 0.1,
    n_bootstrap: int = 1000,
    random_state: int | None = None,
) -> AuditReport:
    """Audit predictions by group: what fails, for whom, how sure we are.

    ``y_pred`` is one sequence of labels, or a dict name -> labels, whose models are then compared in pairs.
    ``sensitive_features`` is one column or several (DataFrame or dict): each is a section, and so is their
    crossing. Missing attribute values are a group of their own. ``y_score`` (probabilities, of two classes those of
    ``pos_label``; a dict for several models) adds calibration. With ``control_features`` every section is repeated
    inside each of their levels. ``pos_label`` is the class that counts as selected when there are two (the larger
    label unless given). Cells label x group with fewer than ``min_cell`` rows do not enter the worst-group accuracy and
    are listed; ``tolerance`` is the difference that matters: wider intervals read "too few to say". Counts
    are bootstrapped with one multinomial a draw; with scores or weights rows are, and the method says so.
    Raises InputError on lengths that differ, missing labels, scores in place of labels, and an attribute with
    a single group, whose every gap would read as perfectly fair.
    """
    options = _Options(
        _at_least(min_cell, 1, "min_cell"), tolerance, _at_least(n_bootstrap, 2, "n_bootstrap"), random_state
    )
    if not 0.0 < tolerance < 1.0:
        raise InputError(f"tolerance must lie strictly between 0 and 1, got {tolerance!r}")
    inputs = _prepared(y_true, y_pred, y_score, sample_weight, pos_label)
    skipped: list[Row] = []
    sections = list(_sections(sensitive_features, control_features, len(inputs.truth), skipped))
    tables: dict[str, list[pd.DataFrame]] = {"by_group": [], "cells": [], "contrasts": [], "confusion": []}
    rows: dict[str, list[Row]] = {"measures": [], "undefined": skipped, "comparisons": []}
    for index, section in enumerate(sections):
        rng = np.random.default_rng(None if random_state is None else [random_state, index])
        _audit_section(section, inputs, options, tables, rows, rng)
    return AuditReport(
        n_rows=len(inputs.truth),
        classes=inputs.classes,
        models=tuple(inputs.predicted),
        sections=tuple(s.name for s in sections),
        measures=pd.DataFrame(rows["measures"]),
        comparisons=pd.DataFrame(rows["comparisons"], columns=_COMPARISON_COLUMNS),
        undefined=pd.DataFrame(rows["undefined"], columns=["section", "model", "what", "reason"]),
        by_group=pd.concat(tables["by_group"], ignore_index=True),
        cells=pd.concat(tables["cells"], ignore_index=True),
        contrasts=pd.concat(tables["contrasts"], ignore_index=True),
        confusion=pd.concat(tables["confusion"], ignore_index=True),
        notes=_notes(inputs),
        settings={**options._asdict(), "confidence": 0.95, "pos_label": str(inputs.classes[inputs.positive])},
    )


_COMPARISON_COLUMNS = [
    *("section", "model_a", "model_b", "metric", "difference", "ci_low", "ci_high", "p", "outcome", "method")
]


def _audit_section(
    section: Section,
    inputs: _Inputs,
    options: _Options,
    tables: dict[str, list[pd.DataFrame]],
    rows: dict[str, list[Row]],
    rng: np.random.Generator,
) -> None:
    truth, weights = section.take(inputs.truth), section.take(inputs.weights)
    predicted = {name: section.take(codes) for name, codes in inputs.predicted.items()}
    shape = (len(section.attribute.groups), len(inputs.classes))
    for model, codes in predicted.items():
        counts = confusion(section.attribute.codes, truth, codes, shape, weights)
        part = Slice(
            section.name,
            model,
            section.attribute,
            inputs.classes,
            inputs.positive,
            counts,
            options.min_cell,
            options.tolerance,
            weights is not None,
        )
        rows["measures"] += measure_rows(part, rng)
        rows["undefined"] += undefined_rows(part)
        tables["by_group"].append(group_table(part))
        tables["cells"].append(cell_table(part))
        tables["contrasts"].append(contrast_table(part))
        tables["confusion"].append(confusion_table(part))
        if model in inputs.scores:
            scores = section.take(inputs.scores[model])
            table = calibration_table(
                part.key,
                section.attribute,
                truth,
                inputs.positive,
                scores,
                weights,
                options.n_bootstrap,
                rng,
            )
            tables["by_group"].append(table)
    compared = Rows(
        section.name,
        section.attribute,
        truth,
        predicted,
        weights,
        len(inputs.classes),
        inputs.positive,
        options.min_cell,
    )
    mine = [r for r in rows["measures"] if r["section"] == section.name]
    rows["comparisons"] += comparison_rows(compared, mine, options.n_bootstrap, rng)


def _prepared(y_true: Any, y_pred: Any, y_score: Any, sample_weight: Any, pos_label: Any) -> _Inputs:
    predictions = (
        {str(k): v for k, v in y_pred.items()} if isinstance(y_pred, Mapping) else {"y_pred": y_pred}
    )
    if not predictions:
        raise InputError("y_pred holds no predictions; pass labels, or a dict of name -> labels")
    truth, predicted, classes = label_codes(y_true, predictions)
    if pos_label is not None and pos_label not in classes:
        raise InputError(f"pos_label={pos_label!r} is no label here; the labels are {list(classes)[:10]}")
    positive = len(classes) - 1 if pos_label is None else classes.index(pos_label)
    scores = scores_of(y_score, tuple(predicted), len(truth), classes, positive)
    return _Inputs(truth, predicted, classes, positive, weights_of(sample_weight, len(truth)), scores)


def _at_least(value: int, least: int, name: str) -> int:
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def _sections(sensitive: Any, control: Any, n_rows: int, skipped: list[Row]) -> Iterator[Section]:
    """Each attribute, then the crossing of all; then the same inside each control level."""
    attributes = crossed_attributes(sensitive, n_rows)
    for attribute in attributes:
        if len(attribute.groups) < 2:
            raise InputError(
                f"Attribute {attribute.name!r} has one group only ({attribute.groups[0]!r}), so nothing"
                " can be compared;"
                " pass rows of at least two groups"
            )
        if len(attribute.groups) > LARGEST_CROSSING:
            raise InputError(
                f"{attribute.name!r} has {len(attribute.groups)} groups, more than {LARGEST_CROSSING};"
                " this looks like"
                " an identifier or a number: bin it first"
            )
        yield Section(attribute.name, attribute, None)
    if control is None:
        return
    levels = cross(attributes_of(control, "control_features"))
    check_lengths({"y_true": n_rows, "control_features": len(levels.codes)})
    for code, level in enumerate(levels.groups):
        rows = np.flatnonzero(levels.codes == code)
        for attribute in attributes if len(rows) else []:
            name = f"{attribute.name} | {levels.name} = {level}"
            inside = _present(attribute, rows)
            if len(inside.groups) < 2:
                reason = f"one group only ({inside.groups[0]}): nothing can be compared"
                skipped.append({"section": name, "model": "", "what": "the whole section", "reason": reason})
            else:
                yield Section(name, inside, rows)


def _present(attribute: Attribute, rows: Codes) -> Attribute:
    """The attribute on some rows; groups without a row there stay out (their absence is by control, not by
    failure).
    """
    found, codes = np.unique(attribute.codes[rows], return_inverse=True)
    return Attribute(attribute.name, codes.astype(np.int64), tuple(attribute.groups[i] for i in found))


def crossed_attributes(sensitive_features: Any, n_rows: int) -> list[Attribute]:
    """Each attribute, then the crossing of all when there are several. Raises InputError on lengths that
    differ.
    """
    attributes = attributes_of(sensitive_features)
    check_lengths({"y_true": n_rows} | {f"attribute {a.name!r}": len(a.codes) for a in attributes})
    return [*attributes, cross(attributes)] if len(attributes) > 1 else attributes


def _notes(inputs: _Inputs) -> tuple[str, ...]:
    notes = ["Worst-group accuracy is the lowest accuracy over the cells label x group."]
    if len(inputs.classes) == 2:
        notes.append(
            f"Selection, false positives and precision are of the label {inputs.classes[inputs.positive]}."
        )
    else:
        notes.append(
            "Rates of more than two classes are one class against the rest; gaps are the widest over classes."
        )
    if inputs.weights is not None:
        notes.append(
            "Rows are weighted: intervals use effective sizes, comparisons a row bootstrap; no"
            " permutation tests."
        )
    if inputs.scores:
        notes.append("Calibration is bootstrapped by rows.")
    return tuple(notes)
