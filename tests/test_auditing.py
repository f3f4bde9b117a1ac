"""The audit agrees with fairlearn where both are defined and says so where fairlearn does not."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from debias_ssae.auditing import audit, group_accuracies, worst_group_accuracy
from debias_ssae.exceptions import InputError


def _binary(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, group = rng.integers(0, 2, n), rng.choice(["f", "m"], n)
    return y, np.where(rng.random(n) < 0.8, y, 1 - y), group


def test_worst_group_accuracy_is_fairlearns_minimum() -> None:
    y, predicted, group = _binary()
    frame = MetricFrame(
        metrics=accuracy_score, y_true=y, y_pred=predicted, sensitive_features={"y": y, "g": group}
    )
    assert worst_group_accuracy(y, predicted, sensitive_features=group) == pytest.approx(
        frame.group_min(), abs=1e-12
    )
    report = audit(y, predicted, sensitive_features=group)
    assert report.worst_group_accuracy == pytest.approx(frame.group_min(), abs=1e-12)


def test_a_cell_without_rows_is_listed_not_dropped() -> None:
    report = audit([1, 1, 0], [1, 1, 0], sensitive_features=["f", "m", "m"])
    assert report.undefined["what"].tolist()[:1] == ["0 / f"]
    assert "over 3 of 4 cells" in report.measure_row("worst_group_accuracy")["note"]
    assert set(group_accuracies([1, 0], [1, 0], sensitive_features=["f", "m"])) == {(1, "f"), (0, "m")}


def test_one_group_only_is_an_error() -> None:
    with pytest.raises(InputError, match="one group only"):
        audit([1, 0], [1, 0], sensitive_features=["f", "f"])
