"""Silent failures of today's audits: fairlearn's answer, and ours. The table in docs/audit.md lists these
tests.
"""

import warnings

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    selection_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score, precision_score

from debias_ssae.audit import AuditReport, audit, check_gates, worst_group_accuracy
from debias_ssae.core.errors import InputError


def _audit(y: object, predicted: object, group: object, **options: int) -> AuditReport:
    return audit(
        y,
        predicted,
        sensitive_features=group,
        random_state=0,
        **{"n_bootstrap": 50, "min_group": 1, **options},
    )


def test_one_group_is_not_perfectly_fair() -> None:
    y, predicted = [0, 0, 1, 1], [0, 1, 1, 0]
    assert demographic_parity_difference(y, predicted, sensitive_features=["a"] * 4) == 0.0
    assert equalized_odds_difference(y, predicted, sensitive_features=["a"] * 4) == 0.0
    with pytest.raises(InputError, match="one group only"):
        _audit(y, predicted, ["a"] * 4)


def test_a_group_without_positives_has_no_true_positive_rate() -> None:
    y, predicted, group = [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0], list("aaabbb")
    frame = MetricFrame(metrics=true_positive_rate, y_true=y, y_pred=predicted, sensitive_features=group)
    assert frame.by_group["b"] == 0.0
    assert equalized_odds_difference(y, predicted, sensitive_features=group) == pytest.approx(2 / 3)
    ours = _audit(y, predicted, group)
    assert np.isnan(ours.measure("equalized_odds_difference"))
    assert np.isnan(ours.measure("tpr_gap_max"))
    assert "1 / b" in set(ours.undefined["what"])


def test_removing_the_rows_of_a_failing_cell_does_not_pass() -> None:
    y, predicted, group = [1, 1, 0, 0], [1, 0, 0, 0], ["m", "f", "m", "f"]
    assert worst_group_accuracy(y, predicted, sensitive_features=group) == 0.0
    keep = [0, 2, 3]
    y, predicted, group = ([values[i] for i in keep] for values in (y, predicted, group))
    cells = {"y": y, "g": group}
    frame = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=predicted, sensitive_features=cells)
    assert frame.group_min() == 1.0
    ours = _audit(y, predicted, group)
    assert "1 cell(s) without rows" in ours.measure_row("worst_group_accuracy")["note"]
    gates = check_gates(ours, fail_under={"worst_group_accuracy": 0.8})
    assert [g.passed for g in gates] == [False]
    assert "incomplete" in gates[0].reason


def test_the_interval_of_a_gap_can_contain_zero() -> None:
    rng = np.random.default_rng(0)
    excluded, ours_excluded = 0, 0
    for _ in range(6):
        y, group = rng.integers(0, 2, 200), np.repeat(["f", "m"], 100)
        predicted = np.where(rng.random(200) < 0.8, y, 1 - y)
        frame = MetricFrame(
            metrics=accuracy_score,
            y_true=y,
            y_pred=predicted,
            sensitive_features=group,
            n_boot=40,
            ci_quantiles=[0.025, 0.975],
            random_state=0,
        )
        excluded += frame.difference_ci()[0] > 0
        ours_excluded += _audit(y, predicted, group).measure_row("accuracy_gap")["ci_low"] > 0
    assert excluded == 6
    assert ours_excluded <= 1


def test_many_classes_are_not_class_one() -> None:
    y, predicted, group = [0, 1, 2, 0, 1, 2], [0, 1, 2, 2, 2, 2], list("aaabbb")
    assert demographic_parity_difference(y, predicted, sensitive_features=group) == pytest.approx(1 / 3)
    row = _audit(y, predicted, group).measure_row("demographic_parity_difference")
    assert row["value"] == pytest.approx(2 / 3)
    assert row["where"] == "2: b over a"
    named = np.array(["x", "y", "z"])
    with pytest.raises(ValueError, match="pos_label"):
        equalized_odds_difference(named[y], named[predicted], sensitive_features=group)
    assert _audit(named[y], named[predicted], group).measure("equalized_odds_difference") == 1.0


def test_a_precision_of_nobody_is_undefined() -> None:
    y, predicted, group = [1, 0, 1, 0], [1, 0, 0, 0], list("aabb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = MetricFrame(metrics=precision_score, y_true=y, y_pred=predicted, sensitive_features=group)
    assert frame.by_group["b"] == 0.0
    ours = _audit(y, predicted, group).by_group.query("metric == 'precision' and group == 'b'")
    assert np.isnan(ours["value"].iloc[0])


def test_missing_attribute_values_are_audited() -> None:
    y, predicted, group = [1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 0, 1], ["f", "f", "m", "m", None, None]
    with pytest.raises(ValueError, match="missing values"):
        MetricFrame(metrics=selection_rate, y_true=y, y_pred=predicted, sensitive_features=group)
    assert "unknown" in set(_audit(y, predicted, group).cells["group"])


def test_scores_are_not_taken_for_labels() -> None:
    y, group = np.arange(40) % 2, np.repeat(["f", "m"], 20)
    scores = np.linspace(0.01, 0.99, 40)
    assert demographic_parity_difference(y, scores, sensitive_features=group) == 0.0
    with pytest.raises(InputError, match="looks like scores"):
        _audit(y, scores, group)


def test_a_class_nobody_gets_right_stays_in_the_gap() -> None:
    # notebooks that loop over the classes of a score dictionary lose such a class, and the gap with it
    y = np.array([0] * 40 + [1] * 40)
    group = np.array((["f"] * 20 + ["m"] * 20) * 2)
    predicted = np.where(y == 0, np.where(group == "f", 0, 1), 0)
    ours = _audit(y, predicted, group)
    assert ours.measure("tpr_gap_rms") == pytest.approx(np.sqrt((1.0 + 0.0) / 2))
    assert "2 of 2 classes" in ours.measure_row("tpr_gap_rms")["where"]


def test_two_models_are_compared_on_the_same_rows() -> None:
    # fairlearn resamples each frame by itself: two overlapping intervals say nothing about the difference
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 2000), rng.choice(["f", "m"], 2000)
    a = np.where(rng.random(2000) < 0.8, y, 1 - y)
    b = np.where((a != y) & (rng.random(2000) < 0.15), y, a)
    report = audit(y, {"a": a, "b": b}, sensitive_features=group, n_bootstrap=50, random_state=0)
    single = [report.measure_row("accuracy", model=m) for m in "ab"]
    assert single[0]["ci_high"] > single[1]["ci_low"]
    paired = report.comparisons.set_index("metric").loc["accuracy"]
    assert paired["outcome"] == "a better"
