"""Stability: one for the same set in any order and scale, low for unrelated sets."""

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection import matched_cosines, stability

RNG = np.random.default_rng(0)
SET = RNG.normal(size=(40, 128))


def test_the_same_set_is_stable_in_any_order_and_scale() -> None:
    shuffled = RNG.permutation(SET) * RNG.uniform(0.5, 2, size=(40, 1))
    result = stability([SET, shuffled, SET[::-1]])
    assert result.share == 1
    assert result.mean_cosine == pytest.approx(1)
    assert result.n_pairs == 3


def test_unrelated_sets_are_not() -> None:
    result = stability([SET, RNG.normal(size=(40, 128))])
    assert result.share == 0
    assert result.mean_cosine < 0.3


def test_half_a_set_and_a_larger_one() -> None:
    half = np.concatenate([SET[:20], RNG.normal(size=(20, 128))])
    assert stability([SET, half]).share == 0.5
    assert stability([SET, SET[:20]]).share == 0.5
    assert stability([SET, SET[:20]]).mean_cosine == pytest.approx(1)


def test_each_row_is_matched_once() -> None:
    copies = np.repeat(SET[:1], 5, axis=0)
    assert (matched_cosines(copies, SET[:5]) > 0.7).sum() == 1
    assert np.allclose(np.sort(matched_cosines(copies, SET)), np.sort(matched_cosines(SET, copies)))


def test_opposite_directions_are_not_the_same_latent() -> None:
    assert stability([SET[:1], -SET[:1]]).mean_cosine == pytest.approx(-1)


def test_what_cannot_be_compared_is_refused() -> None:
    for bad in ([SET], [SET, SET[:0]]):
        with pytest.raises(InputError, match="two or more sets"):
            stability(bad)
    with pytest.raises(InputError, match="same hookpoint"):
        matched_cosines(SET, SET[:, :4])
