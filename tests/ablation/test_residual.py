"""The linear erasers on pooled representations: guardedness, with a control."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_ssae.ablation import LinearEraser, counterfactual, leace
from debias_ssae.exceptions import InputError

rng = np.random.default_rng(0)
z = rng.integers(0, 2, 600)
X = (rng.normal(size=(600, 10)) + np.outer(z, np.arange(10) / 3)).astype(np.float32)


def probe(x: np.ndarray) -> float:
    return float(LogisticRegression(max_iter=1000).fit(x, z).score(x, z))


def test_leace_erases_what_a_probe_could_read() -> None:
    eraser = leace(X, z)
    assert probe(X) > 0.9
    assert probe(eraser(X)) < 0.56
    assert np.allclose(eraser(X)[z == 0].mean(0), eraser(X)[z == 1].mean(0), atol=1e-3)
    assert eraser(X).dtype == np.float32


def test_counterfactual_subspace_removes_the_differences() -> None:
    direction = rng.normal(size=10)
    differences = np.outer(rng.normal(size=600), direction)
    eraser = counterfactual(X, X + differences)
    middle = X + differences / 2
    assert np.allclose(eraser(X + differences), eraser(X), atol=1e-4)
    assert np.allclose(eraser(middle).mean(0), middle.mean(0), atol=1e-4)
    assert np.allclose(eraser(eraser(X)), eraser(X), atol=1e-4)


def test_as_many_directions_as_asked_for() -> None:
    differences = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 10))
    assert len(counterfactual(X, X + differences, 2).left) == 2
    eraser = counterfactual(X, X + differences, 3)
    assert np.allclose(eraser(X + differences), eraser(X), atol=1e-4)


@pytest.mark.parametrize("n", [4, 0])
def test_no_differences(n: int) -> None:
    with pytest.raises(InputError, match="do not occur"):
        counterfactual(X[:n], X[:n])


@pytest.mark.parametrize("fit", [lambda x: leace(x, z), lambda x: counterfactual(x[:300], x[300:])])
def test_a_column_of_tiny_spread_is_not_left_with_rounding(fit: Callable[[np.ndarray], LinearEraser]) -> None:
    scale = np.where(np.arange(10) < 2, 1e-33, 1.0)
    tiny = (X * scale).astype(np.float32)
    expected = fit(X)(X)
    assert np.allclose(fit(tiny)(tiny) / scale, expected, atol=1e-3)
