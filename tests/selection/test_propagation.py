"""A short list grows: latents of words outside it rise, and only where the probe of the list fires."""

from collections.abc import Iterator

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection.propagation import TokenProbe, fit_token_probe, propagate
from debias_ssae.selection.scores import LatentScores

D_IN, D_SAE, N_LISTED = 8, 30, 600
PROBE = TokenProbe(np.eye(D_IN)[0], np.zeros(D_IN), (-0.5, 0.5))


def listed() -> LatentScores:
    """The list's contrast knows latent 0 alone; latent 9 has some noise."""
    score = np.zeros(D_SAE)
    score[[0, 9]] = (2.0, 0.1)
    return LatentScores(
        "counterfactual_contrast",
        score,
        np.sign(score),
        score[None],
        np.ones(D_SAE),
        np.ones(D_SAE),
        1.0 - (score > 1),
    )


def tokens(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latent 1 is a word of value b, latent 2 of value a, latent 3 any other word's."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(1, 4, n)
    latents = rng.exponential(0.05, size=(n, D_SAE))
    latents[np.arange(n), kind] += 1.0
    x = rng.normal(size=(n, D_IN)) * 0.1
    x[:, 0] += np.array([0, 1.0, -1.0, 0.0])[kind]
    return x, latents


def blocks(x: np.ndarray, latents: np.ndarray, size: int = 100) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(x), size):
        yield x[start : start + size], latents[start : start + size]


def test_words_outside_the_list_join_and_common_words_do_not() -> None:
    before = listed()
    after = propagate(before, N_LISTED, blocks(*tokens()), PROBE)
    assert set(after.top(3)) == {0, 1, 2}
    assert before.top(3).tolist() == [0, 9]
    assert after.score[3] < 0.2
    assert after.sign[[0, 1, 2]].tolist() == [1, 1, -1]
    assert (after.p_value[[0, 1, 2]] < 1e-3).all()
    assert after.p_value[4:].min() > 0.01
    assert after.effect.shape == (2, D_SAE)
    assert after.method != before.method


def test_blocks_and_token_order_do_not_matter() -> None:
    x, latents = tokens()
    order = np.random.default_rng(1).permutation(len(x))
    one = propagate(listed(), N_LISTED, blocks(x, latents), PROBE)
    other = propagate(listed(), N_LISTED, blocks(x[order], latents[order], 7), PROBE)
    assert np.allclose(one.score, other.score)
    assert np.allclose(one.p_value, other.p_value)


def test_nothing_is_added_where_the_probe_fires_for_one_value_or_none() -> None:
    x, latents = tokens()
    for kept in (x[:, 0] > -0.5, np.abs(x[:, 0]) < 0.5):
        assert propagate(listed(), N_LISTED, blocks(x[kept], latents[kept]), PROBE).top(5).tolist() == [0, 9]


def test_latents_that_do_not_see_the_value_gain_nothing() -> None:
    """Control: the same firing tokens, their latents shuffled among them."""
    x, latents = tokens()
    fires = np.flatnonzero(PROBE.fires(PROBE.project(x)))
    mixed = latents.copy()
    mixed[fires] = latents[np.random.default_rng(2).permutation(fires)]
    after = propagate(listed(), N_LISTED, blocks(x, mixed), PROBE)
    assert after.p_value[[1, 2]].min() > 0.01


def test_a_few_found_words_do_not_outweigh_thousands_of_listed_ones() -> None:
    """Twenty of 900 tokens fire: the listed latent stays far ahead, and with few listed words it does not."""
    x, latents = tokens(30)
    many = propagate(listed(), 5_000, blocks(x, latents), PROBE)
    few = propagate(listed(), 5, blocks(x, latents), PROBE)
    assert many.score[1] < 0.02 * many.score[0]
    assert few.score[1] > few.score[0]


def counterfactuals(n: int = 200, k: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The concept moves axis 0; axis 1 varies a lot and is no part of it."""
    rng = np.random.default_rng(seed)
    spread = np.array([0.2, 3.0, *np.full(D_IN - 2, 0.5)])
    a, b, neutral = (rng.normal(size=(m, D_IN)) * spread for m in (n, n, k))
    a[:, 0] -= 2
    b[:, 0] += 3
    return a, b, neutral


def test_token_probe_finds_the_axis_and_tells_words_from_others() -> None:
    a, b, neutral = counterfactuals()
    probe = fit_token_probe(a, b, neutral)
    assert probe.direction[0] > 0.95
    assert np.linalg.norm(probe.direction) == pytest.approx(1)
    at_a, at_b, at_neutral = (probe.project(x) for x in (a, b, neutral))
    assert probe.fires(at_a).mean() > 0.95
    assert (at_a < 0).mean() > 0.95
    assert probe.fires(at_b).mean() > 0.95
    assert (at_b > 0).mean() > 0.95
    assert probe.fires(at_neutral).mean() < 0.01


def test_token_probe_does_not_depend_on_how_many_tokens_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit_token_probe(*counterfactuals())
    monkeypatch.setattr("debias_ssae.selection.propagation.CHUNK", 7)
    pieces = fit_token_probe(*counterfactuals())
    assert np.allclose(whole.direction, pieces.direction)
    assert np.allclose(whole.limits, pieces.limits)
    x = counterfactuals()[0]
    assert np.allclose(whole.project(x), (x - whole.center) @ whole.direction)
    assert whole.project(x[:0]).shape == (0,)


def test_token_probe_mirrors_when_the_values_change_places() -> None:
    a, b, neutral = counterfactuals()
    one, other = fit_token_probe(a, b, neutral), fit_token_probe(b, a, neutral)
    assert np.allclose(one.direction, -other.direction)
    assert np.allclose(one.limits, (-other.limits[1], -other.limits[0]))


def test_words_that_barely_move_do_not_fire() -> None:
    a, b, neutral = counterfactuals()
    a[:, 0] += 2 - 0.01
    b[:, 0] -= 3 - 0.01
    probe = fit_token_probe(a, b, neutral)
    assert probe.fires(probe.project(neutral)).mean() < 0.01
    assert probe.fires(probe.project(b)).mean() < 0.05


def test_a_token_probe_of_words_that_change_nothing_is_refused() -> None:
    a, _, neutral = counterfactuals()
    with pytest.raises(InputError, match="change nothing"):
        fit_token_probe(a, a, neutral)
