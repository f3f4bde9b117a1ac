"""The residual eraser from labels: which rows it is fitted on."""

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.residual import Rows, fit_labelled
from debias_ssae.erase import LinearEraser

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 6)).astype(np.float32)


def fit(z: np.ndarray, y: np.ndarray | None = None, *, min_cell: int = 20) -> LinearEraser:
    rows = Rows(lambda at: X[at], lambda at: X[at] / 2, 200, 200)
    return fit_labelled("mean_difference", rows, z, y, min_cell=min_cell)


def test_rare_values_cost_no_direction() -> None:
    z = np.array(["a", "b"] * 95 + ["c"] * 10)
    assert len(fit(z).left) == 1
    assert len(fit(z, min_cell=10).left) == 2


def test_rare_values_are_taken_where_there_is_nothing_else() -> None:
    z = np.array(["a"] * 190 + ["b"] * 10)
    assert len(fit(z).left) == 1


def test_plain_and_edited_are_asked_for_the_same_rows_of_every_cell() -> None:
    z = np.array(["a", "b", None, "b"] * 50, dtype=object)
    asked = []

    def represent(at: np.ndarray) -> np.ndarray:
        asked.append(at)
        return X[at]

    fit_labelled("mean_difference", Rows(represent, represent, 200, 60), z, None, min_cell=20)
    assert asked[0].tolist() == asked[1].tolist()
    assert [(z[asked[0]] == value).sum() for value in ("a", "b")] == [30, 30]


def test_no_class_with_two_values_is_refused() -> None:
    y = np.arange(200) % 2
    with pytest.raises(InputError, match="use residual=None"):
        fit(y, y)


def test_more_values_than_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="8 attribute values differ in all 6 dimensions"):
        fit(np.arange(200) % 8)
