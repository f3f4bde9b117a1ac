"""Probe attribution on planted dictionaries."""

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection import (
    class_conditional_contrast,
    probe_attribution,
    probe_direction,
)

D_SAE, D_IN = 40, 24


def planted(n: int = 800, groups: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Latents 0 and 1 carry the attribute, 5 the target; latent 2 follows the attribute but writes nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    z = np.where(rng.random(n) < 0.6, y % groups, rng.integers(0, groups, n))
    latents = rng.exponential(0.2, size=(n, D_SAE))
    latents[:, 0] += z == 1
    latents[:, 1] += 0.7 * (z == 0)
    latents[:, 2] += z == 1
    latents[:, 5] += 1.5 * y
    W_dec = rng.normal(size=(D_SAE, D_IN))
    W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
    W_dec[2] *= 1e-6
    return {"latents": latents, "X": latents @ W_dec, "W_dec": W_dec, "z": z, "y": y, "rate": np.ones(D_SAE)}


def attribute(p: dict[str, np.ndarray], values: tuple[str, ...] = ("a", "b"), **more: object):  # type: ignore[no-untyped-def]
    return probe_attribution(
        p["latents"],
        p["rate"],
        p["X"],
        p["W_dec"],
        p["z"],
        values,
        p["y"],
        **more,  # type: ignore[arg-type]
    )


def test_shares_sum_to_one_where_the_error_is_zero() -> None:
    p = planted()
    scores = attribute(p)
    sizes = np.array([np.prod([np.sum((p["y"] == c) & (p["z"] == g)) for g in (0, 1)]) for c in (0, 1)])
    weights = sizes / np.bincount(p["y"])
    assert np.allclose(weights @ scores.effect.sum(axis=1) / weights.sum(), 1.0)
    assert np.allclose(scores.score, np.abs(weights @ scores.effect) / weights.sum())


def test_finds_what_writes_the_attribute_not_what_merely_follows_it() -> None:
    p = planted()
    scores = attribute(p)
    assert set(scores.top(2)) == {0, 1}
    assert scores.sign[0] == 1
    assert scores.sign[1] == -1
    assert scores.score[2] < 1e-3
    assert scores.p_value[2] < 1e-3
    contrast = class_conditional_contrast(p["latents"], p["rate"], p["z"], ("a", "b"), p["y"])
    assert 2 in contrast.top(3)
    assert np.array_equal(scores.p_value, contrast.p_value)
    without_y = probe_attribution(p["latents"], p["rate"], p["X"], p["W_dec"], p["z"], ("a", "b"))
    assert without_y.score[5] > 5 * scores.score[5]


def test_more_than_two_values_and_a_value_too_rare() -> None:
    p = planted(1500, groups=4)
    rare = np.flatnonzero(p["z"] == 3)
    p["z"][rare[6:]] = 2
    scores = attribute(p, ("a", "b", "c", "d"))
    assert set(scores.top(2)) == {0, 1}
    assert {cell["value"] for cell in scores.ignored} == {"d"}
    assert scores.effect.shape == (2, D_SAE)


def test_unknown_rows_and_unusable_classes_are_left_out() -> None:
    p = planted()
    more = {k: np.concatenate([v, v[:50]]) if k in ("latents", "X", "y", "z") else v for k, v in p.items()}
    more["z"][-50:] = -1
    assert np.allclose(attribute(more).score, attribute(p).score)
    third = {**p, "y": np.where(np.arange(800) < 100, 2 * p["z"] + 5, p["y"])}
    scores = attribute(third)
    assert np.isnan(scores.effect[2:]).all()
    assert set(scores.top(2)) == {0, 1}
    with pytest.raises(InputError, match="concept="):
        attribute({**p, "z": p["y"]})


def test_probe_direction_is_that_of_the_classes_inside() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    y, z = rng.integers(0, 2, n), rng.random(n) < 0.5
    z = np.where(rng.random(n) < 0.8, y == 1, z)
    X = rng.normal(size=(n, 6)) + 3.0 * y[:, None] * np.eye(6)[1] + 1.0 * z[:, None] * np.eye(6)[0]
    direction, separation = probe_direction(X, z, y)
    assert direction[0] > 0.97
    assert separation == pytest.approx(1.0, abs=0.1)
    assert abs(probe_direction(X, z)[0][1]) > 0.5
    # a column of constants changes little (the shrinkage, not the answer)
    wide, _ = probe_direction(np.column_stack([X, np.zeros(n)]), z, y)
    assert np.allclose(wide[:6], direction, atol=0.05)
    with pytest.raises(InputError, match="no class holds both"):
        probe_direction(X, z, z)
