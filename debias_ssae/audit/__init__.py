"""The audit of predictions: what fails, for whom, how sure we are. Needs no model and no torch."""

import sys
from types import ModuleType
from typing import Any

import numpy as np

from debias_ssae.audit.flips import counterfactual_flips as counterfactual_flips
from debias_ssae.audit.flips import flips_of_predictions as flips_of_predictions
from debias_ssae.audit.gates import GateResult as GateResult
from debias_ssae.audit.gates import check_gates as check_gates
from debias_ssae.audit.gates import parse_thresholds as parse_thresholds
from debias_ssae.audit.rates import cell_accuracy, confusion, label_codes, weights_of
from debias_ssae.audit.run import AuditReport as AuditReport
from debias_ssae.audit.run import audit as audit
from debias_ssae.audit.run import crossed_attributes


def worst_group_accuracy(
    y_true: Any, y_pred: Any, *, sensitive_features: Any, sample_weight: Any = None
) -> float:
    """Lowest accuracy over the cells label x group that have any rows, even one; several attributes are crossed.

    It suits ``sklearn.metrics.make_scorer`` with ``set_score_request(sensitive_features=True)``. Rows
    whose attribute is missing are a group of their own. Raises InputError on lengths that differ and missing
    labels.
    """
    found = group_accuracies(
        y_true, y_pred, sensitive_features=sensitive_features, sample_weight=sample_weight
    )
    return min(found.values())


def group_accuracies(
    y_true: Any, y_pred: Any, *, sensitive_features: Any, sample_weight: Any = None
) -> dict[tuple[Any, str], float]:
    """Accuracy of each non-empty cell ``(label, group)``. Raises InputError as worst_group_accuracy does."""
    truth, predicted, classes = label_codes(y_true, {"y_pred": y_pred})
    attribute = crossed_attributes(sensitive_features, len(truth))[-1]
    weights = weights_of(sample_weight, len(truth))
    shape = (len(attribute.groups), len(classes))
    share = cell_accuracy(confusion(attribute.codes, truth, predicted["y_pred"], shape, weights))
    filled = np.argwhere(share.n > 0)
    return {(classes[c], attribute.groups[g]): float(share.value[g, c]) for g, c in filled}


class _CallableModule(ModuleType):
    """``debias_ssae.audit`` names this package and the function: once the package is imported, both must work."""

    def __call__(self, *arguments: Any, **options: Any) -> AuditReport:
        """The function of the same name."""
        return audit(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
