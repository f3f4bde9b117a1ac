"""The audit of predictions: what fails, for whom, how sure we are. Needs no model and no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.auditing.inputs import (
    Attribute,
    attributes_of,
    check_lengths,
    cross,
    label_codes,
    weights_of,
)
from debias_ssae.auditing.outcome import AuditReport
from debias_ssae.auditing.rates import cell_accuracy, confusion
from debias_ssae.auditing.tables import (
    Row,
    Slice,
    cell_rows,
    group_rows,
    measure_rows,
    undefined_rows,
)
from debias_ssae.exceptions import InputError

__all__ = ["AuditReport", "audit", "group_accuracies", "worst_group_accuracy"]


def worst_group_accuracy(
    y_true: Any, y_pred: Any, *, sensitive_features: Any, sample_weight: Any = None
) -> float:
    """Lowest accuracy over the non-empty cells label x group; several attributes are crossed.

    A score for ``sklearn.metrics.make_scorer`` with ``set_score_request(sensitive_features=True)``. Rows
    whose attribute is missing are a group of their own. Raises InputError on lengths that differ and missing
    labels.
    """
    return min(
        group_accuracies(
            y_true, y_pred, sensitive_features=sensitive_features, sample_weight=sample_weight
        ).values()
    )


def group_accuracies(
    y_true: Any, y_pred: Any, *, sensitive_features: Any, sample_weight: Any = None
) -> dict[tuple[Any, str], float]:
    """Accuracy of each non-empty cell ``(label, group)``. Raises InputError as worst_group_accuracy does."""
    truth, predicted, classes = label_codes(y_true, {"y_pred": y_pred})
    attribute = _attributes(sensitive_features, len(truth))[-1]
    weights = weights_of(sample_weight, len(truth))
    shape = (len(attribute.groups), len(classes))
    share = cell_accuracy(confusion(attribute.codes, truth, predicted["y_pred"], shape, weights))
    filled = np.argwhere(share.n > 0)
    return {(classes[c], attribute.groups[g]): float(share.value[g, c]) for g, c in filled}


def audit(
    y_true: Any,
    y_pred: Any,
    *,
    sensitive_features: Any,
    sample_weight: Any = None,
    min_cell: int = 1,
    n_bootstrap: int = 1000,
    random_state: int | None = None,
) -> AuditReport:
    """Audit predictions by group.

    ``y_pred`` is one sequence of labels or a dict name -> labels; ``sensitive_features`` one column, or
    several (a DataFrame or dict), which are audited one by one and crossed. Missing attribute values are a
    group of their own. Raises InputError on lengths that differ, missing labels, and an attribute with a
    single group, whose every gap would read as perfectly fair.
    """
    predictions = dict(y_pred) if isinstance(y_pred, Mapping) else {"y_pred": y_pred}
    if not predictions:
        raise InputError("y_pred holds no predictions; pass labels, or a dict of name -> labels")
    truth, predicted, classes = label_codes(y_true, predictions)
    weights = weights_of(sample_weight, len(truth))
    sections = _attributes(sensitive_features, len(truth))
    for attribute in sections:
        if len(attribute.groups) < 2:
            raise InputError(
                f"Attribute {attribute.name!r} has one group only ({attribute.groups[0]!r}), so nothing"
                " can be compared;"
                " pass rows of at least two groups"
            )
    tables: dict[str, list[Row]] = {"measures": [], "by_group": [], "cells": [], "undefined": []}
    for attribute in sections:
        for model, codes in predicted.items():
            counts = confusion(attribute.codes, truth, codes, (len(attribute.groups), len(classes)), weights)
            part = Slice(attribute.name, model, attribute, classes, counts, min_cell)
            tables["measures"] += measure_rows(part)
            tables["by_group"] += group_rows(part)
            tables["cells"] += cell_rows(part)
            tables["undefined"] += undefined_rows(part)
    return AuditReport(
        n_rows=len(truth),
        classes=classes,
        models=tuple(predicted),
        sections=tuple(a.name for a in sections),
        comparisons=pd.DataFrame(),
        settings={
            "min_cell": min_cell,
            "n_bootstrap": n_bootstrap,
            "random_state": random_state,
            "confidence": 0.95,
        },
        measures=pd.DataFrame(tables["measures"]),
        by_group=pd.DataFrame(tables["by_group"]),
        cells=pd.DataFrame(tables["cells"]),
        undefined=pd.DataFrame(tables["undefined"], columns=["section", "model", "cell", "reason"]),
    )


def _attributes(sensitive_features: Any, n_rows: int) -> list[Attribute]:
    """Each attribute, then the crossing of all when there are several."""
    attributes = attributes_of(sensitive_features)
    check_lengths({"y_true": n_rows} | {f"attribute {a.name!r}": len(a.codes) for a in attributes})
    return [*attributes, cross(attributes)] if len(attributes) > 1 else attributes
