"""The linear erasers on pooled representations: guardedness, with a control."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_ssae.core.errors import InputError
from debias_ssae.erase import LinearEraser, fit_counterfactual, fit_leace, fit_mean_difference

rng = np.random.default_rng(0)
z = rng.integers(0, 2, 600)
X = (rng.normal(size=(600, 10)) + np.outer(z, np.arange(10) / 3)).astype(np.float32)


def probe(x: np.ndarray) -> float:
    return probe_of(x, z)


def probe_of(x: np.ndarray, groups: np.ndarray) -> float:
    return float(LogisticRegression(max_iter=1000).fit(x, groups).score(x, groups))


def test_leace_erases_what_a_probe_could_read() -> None:
    eraser = fit_leace(X, z)
    assert probe(X) > 0.9
    assert probe(eraser(X)) < 0.56
    assert np.allclose(eraser(X)[z == 0].mean(0), eraser(X)[z == 1].mean(0), atol=1e-3)
    assert eraser(X).dtype == np.float32


def test_counterfactual_subspace_removes_the_differences() -> None:
    direction = rng.normal(size=10)
    differences = np.outer(rng.normal(size=600), direction)
    eraser = fit_counterfactual(X, X + differences)
    middle = X + differences / 2
    assert np.allclose(eraser(X + differences), eraser(X), atol=1e-4)
    assert np.allclose(eraser(middle).mean(0), middle.mean(0), atol=1e-4)
    assert np.allclose(eraser(eraser(X)), eraser(X), atol=1e-4)


def test_as_many_directions_as_asked_for() -> None:
    differences = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 10))
    assert len(fit_counterfactual(X, X + differences, 2).read) == 2
    eraser = fit_counterfactual(X, X + differences, 3)
    assert np.allclose(eraser(X + differences), eraser(X), atol=1e-4)


def test_mean_difference_looks_inside_classes_and_sets_rows_midway() -> None:
    """Attribute and class go together: the class stays, the attribute goes, whichever value is rare."""
    y = (rng.random(4000) < 0.9).astype(int)
    who = np.where(rng.random(4000) < 0.9, y, 1 - y)
    rows = rng.normal(size=(4000, 3)) * 0.1
    rows[:, 0] += y
    rows[:, 1] += who
    given, marginal = fit_mean_difference(rows, who, y)(rows), fit_mean_difference(rows, who)(rows)
    assert abs(np.diff([given[y == c, 0].mean() for c in (0, 1)])[0]) > 0.95
    assert abs(np.diff([marginal[y == c, 0].mean() for c in (0, 1)])[0]) < 0.6
    gaps = [given[(y == c) & (who == 1)].mean(0) - given[(y == c) & (who == 0)].mean(0) for c in (0, 1)]
    assert np.abs(gaps).max() < 0.05
    assert np.allclose(given[:, 1].mean(), 0.5, atol=0.05)


@pytest.mark.parametrize("values", [2, 3])
def test_mean_difference_leaves_no_group_mean_apart(values: int) -> None:
    groups = rng.integers(0, values, 600)
    rows = X + np.eye(10)[groups]
    eraser = fit_mean_difference(rows, groups)
    assert len(eraser.read) == values - 1
    means = np.stack([eraser(rows)[groups == g].mean(0) for g in range(values)])
    assert np.allclose(means, means[0], atol=1e-6)
    assert probe_of(rows, groups) > probe_of(eraser(rows), groups) + 0.2


def test_mean_difference_takes_what_an_edit_leaves_as_well() -> None:
    """The plain direction is gone from any rows, and no group mean is apart in the edited ones."""
    edited = X @ rng.normal(size=(10, 10)) / 3
    eraser = fit_mean_difference(X, z, edited=edited)
    assert len(eraser.read) == 2
    assert np.allclose(eraser.read @ eraser.write.T, np.eye(2), atol=1e-9)
    a, b = (eraser(edited)[z == g].mean(0) for g in (0, 1))
    assert np.allclose(a, b, atol=1e-6)
    alone = fit_mean_difference(X, z)
    assert np.ptp(eraser(X) @ alone.read[0]) < 1e-5
    assert np.allclose(eraser(X)[0] @ alone.read[0], alone(X)[0] @ alone.read[0], atol=1e-5)


def test_nothing_differs_where_no_class_holds_two_groups() -> None:
    assert np.array_equal(fit_mean_difference(X, z, z)(X), X)


@pytest.mark.parametrize("n", [4, 0])
def test_no_differences(n: int) -> None:
    with pytest.raises(InputError, match="do not occur"):
        fit_counterfactual(X[:n], X[:n])


@pytest.mark.parametrize(
    "fit",
    [
        lambda x: fit_leace(x, z),
        lambda x: fit_mean_difference(x, z),
        lambda x: fit_counterfactual(x[:300], x[300:]),
    ],
)
def test_a_column_of_tiny_spread_is_not_left_with_rounding(fit: Callable[[np.ndarray], LinearEraser]) -> None:
    scale = np.where(np.arange(10) < 2, 1e-33, 1.0)
    tiny = (X * scale).astype(np.float32)
    expected = fit(X)(X)
    assert np.allclose(fit(tiny)(tiny) / scale, expected, atol=1e-3)


@pytest.mark.parametrize("fit", [lambda x: fit_leace(x, z), lambda x: fit_mean_difference(x, z)])
def test_constant_columns_stay_the_same_bits(fit: Callable[[np.ndarray], LinearEraser]) -> None:
    """Rounding of 1e-17 there would tell the attribute to a head that standardises."""
    held = X.astype(np.float64)
    held[:, :3] = [0.0, 5.0, -2.0]
    edited = fit(held)(held)
    assert np.array_equal(edited[:, :3], held[:, :3])
    assert probe(edited) < 0.56 < 0.9 < probe(held)


def test_weights_count_rows_several_times() -> None:
    """The covariances are those of rows that are there several times, shrinkage apart, which knows the number."""
    counts = np.random.default_rng(3).integers(1, 5, len(X))
    once = fit_leace(X, z, weights=counts.astype(float), shrinkage=False)
    several = fit_leace(np.repeat(X, counts, axis=0), np.repeat(z, counts), shrinkage=False)
    assert np.allclose(once(X), several(X), atol=1e-8)
    assert not np.allclose(once(X), fit_leace(X, z, shrinkage=False)(X), atol=1e-3)
