"""The linear erasers on pooled representations: guardedness, with a control."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_ssae.ablation import CounterfactualSubspace, leace
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
    differences = np.outer(rng.normal(size=50), direction)
    eraser = CounterfactualSubspace.fit(differences, X.mean(0), n_components=1)
    assert np.allclose((eraser(X) - X.mean(0)) @ direction, 0, atol=1e-3)
    assert np.allclose(eraser(X).mean(0), X.mean(0), atol=1e-4)
    assert np.allclose(eraser(eraser(X)), eraser(X), atol=1e-4)


def test_component_count_follows_the_energy() -> None:
    differences = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 10))
    assert len(CounterfactualSubspace.fit(differences, X.mean(0)).left) <= 3


@pytest.mark.parametrize("differences", [np.zeros((4, 10)), np.zeros((0, 10))])
def test_no_differences(differences: np.ndarray) -> None:
    with pytest.raises(InputError, match="do not occur"):
        CounterfactualSubspace.fit(differences, X.mean(0))
