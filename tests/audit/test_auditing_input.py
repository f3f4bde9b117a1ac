"""Whatever is wrong with the input of an audit is one clear line."""

import numpy as np
import pandas as pd
import pytest

from debias_ssae.audit import audit
from debias_ssae.core.errors import InputError

Y, P, G = [1, 0, 1, 0], [1, 0, 0, 0], ["f", "f", "m", "m"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_pred": [1, 0, 0]}, "lengths differ .*y_true: 4.*3"),
        ({"sensitive_features": ["f", "m"]}, "lengths differ"),
        ({"sensitive_features": ["f"] * 4}, "one group only"),
        ({"sensitive_features": ["f", "f", None, None]}, "one group only"),
        ({"sensitive_features": None}, "is needed"),
        ({"sensitive_features": "ffmm"}, "sequence"),
        ({"sensitive_features": np.zeros((4, 2, 2))}, "flat"),
        ({"y_true": [1, 0, np.nan, 0]}, "y_true has 1 missing"),
        ({"y_pred": [1, 0, None, 0]}, "missing"),
        ({"y_pred": ["1", "0", "0", "0"]}, "0 and '0' differ by .*type alone"),
        ({"y_pred": [1, 0, "1", 0]}, "1 and '1' differ by .*type alone"),
        ({"y_pred": ["yes", "no", "no", "no"]}, "shares no value"),
        ({"y_pred": [1, 0, 0.5, 0]}, "y_pred 'y_pred' holds 0.5 where every label .*threshold them"),
        ({"y_pred": {"a": P, "b": [0.9, 0.1, 0.2, 0.1]}}, "y_pred 'b' holds 0.9 where every label"),
        ({"y_true": [True, False] * 2, "y_pred": [0.75, 0.25] * 2}, "holds 0.75 where every label"),
        ({"y_true": ["1", "0"] * 2, "y_pred": ["1", "0", "0.1", "0"]}, "holds '0.1' where every label"),
        ({"sensitive_features": ["Male", "male ", "f", "f"]}, "'Male' and 'male ' differ by .*'group'"),
        ({"control_features": ["a", "A", "b", "b"]}, "'a' and 'A' differ by"),
        ({"y_true": ["no ", "yes", "yes", "no "], "y_pred": ["no", "yes", "yes", "no"]}, "spaces, capital"),
        ({"y_pred": {}}, "no predictions"),
        ({"y_true": pd.DataFrame({"a": Y, "b": Y})}, "one column"),
        ({"y_true": [], "y_pred": [], "sensitive_features": []}, "no row"),
        ({"sample_weight": [1, 1, -1, 1]}, "not negative"),
        ({"sample_weight": [1, 1]}, "lengths differ"),
        ({"sample_weight": ["a"] * 4}, "must be numbers"),
        ({"y_score": [0.1, 0.2]}, "shape"),
        ({"y_score": [0.1, 0.2, 0.3, 2]}, "between 0 and 1"),
        ({"y_score": ["a"] * 4}, "must be numbers"),
        ({"y_score": {"other": [0.1] * 4}}, "names"),
        ({"y_pred": {"a": P, "b": P}, "y_score": [0.1] * 4}, "must be a dict"),
        ({"pos_label": 7}, "is no label"),
        ({"min_group": 0}, "min_group"),
        ({"n_bootstrap": 1.5}, "n_bootstrap"),
        ({"tolerance": 2}, "tolerance"),
        ({"control_features": ["a"]}, "lengths differ"),
    ],
)
def test_bad_input_is_one_clear_line(change: dict, message: str) -> None:
    arguments = {"y_true": Y, "y_pred": P, "sensitive_features": G, **change}
    with pytest.raises(InputError, match=message) as caught:
        audit(arguments.pop("y_true"), arguments.pop("y_pred"), **arguments)
    assert "\n" not in str(caught.value)


def test_scores_given_as_labels_are_refused() -> None:
    with pytest.raises(InputError, match="looks like scores"):
        audit(np.arange(50) % 2, np.linspace(0, 1, 50), sensitive_features=np.arange(50) % 2)


def test_labels_of_halves_and_truths_stay_labels() -> None:
    stars = audit([0.5, 1.0, 0.5, 1.0], [0.5, 1.0, 1.0, 1.5], sensitive_features=G)
    assert stars.classes == (0.5, 1.0, 1.5)
    assert "Predicted, but the label of no row: 1.5." in stars.notes
    mixed = audit([True, False, True, False], [1, 0, 0, 0.0], sensitive_features=G)
    assert len(mixed.classes) == 2
    assert mixed.accuracy == 0.75


def test_measured_numbers_are_no_groups() -> None:
    y = np.arange(40) % 2
    with pytest.raises(InputError, match=r"'group' holds 40 different numbers, such as 18\.5, .*; bin them"):
        audit(y, y, sensitive_features=18.5 + np.arange(40))
    halves = audit(y, y, sensitive_features=np.repeat([0.5, 1.5], 20))
    assert set(halves.cells["group"]) == {"0.5", "1.5"}


def test_an_identifier_given_as_attribute_is_refused() -> None:
    y = np.arange(6000) % 2
    with pytest.raises(InputError, match="looks like an identifier"):
        audit(y, y, sensitive_features=np.arange(6000))
