"""The residual eraser from labels: which rows it is fitted on."""

import numpy as np
import pytest

from debias_ssae.debiaser.residual import fit_mean_difference
from debias_ssae.exceptions import InputError

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 6)).astype(np.float32)
OPTIONS = {"max_rows": 200, "min_cell": 20}


def test_rare_values_cost_no_direction() -> None:
    z = np.array(["a", "b"] * 95 + ["c"] * 10)
    assert len(fit_mean_difference(lambda at: X[at], z, None, 200, **OPTIONS).left) == 1
    assert len(fit_mean_difference(lambda at: X[at], z, None, 200, max_rows=200, min_cell=10).left) == 2


def test_rare_values_are_taken_where_there_is_nothing_else() -> None:
    z = np.array(["a"] * 190 + ["b"] * 10)
    assert len(fit_mean_difference(lambda at: X[at], z, None, 200, **OPTIONS).left) == 1


def test_plain_and_edited_are_asked_for_the_same_rows_of_every_cell() -> None:
    z = np.array(["a", "b", None, "b"] * 50, dtype=object)
    asked = []

    def represent(at: np.ndarray) -> np.ndarray:
        asked.append(at)
        return X[at]

    fit_mean_difference(represent, z, None, 200, max_rows=60, min_cell=20, plain=represent)
    assert asked[0].tolist() == asked[1].tolist()
    assert [(z[asked[0]] == value).sum() for value in ("a", "b")] == [30, 30]


def test_no_class_with_two_values_is_refused() -> None:
    y = np.arange(200) % 2
    with pytest.raises(InputError, match="use residual=None"):
        fit_mean_difference(lambda at: X[at], y, y, 200, **OPTIONS)
