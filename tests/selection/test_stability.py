"""Latents of two trainings are matched one to one, whatever their order and scale."""

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection import matched_cosines

RNG = np.random.default_rng(0)
SET = RNG.normal(size=(40, 128))


def test_the_same_set_is_found_again_in_any_order_and_scale() -> None:
    shuffled = RNG.permutation(SET) * RNG.uniform(0.5, 2, size=(40, 1))
    assert np.allclose(matched_cosines(SET, shuffled), 1)
    assert matched_cosines(SET, RNG.normal(size=(40, 128))).max() < 0.7


def test_each_row_is_matched_once() -> None:
    copies = np.repeat(SET[:1], 5, axis=0)
    assert (matched_cosines(copies, SET[:5]) > 0.7).sum() == 1
    assert np.allclose(np.sort(matched_cosines(copies, SET)), np.sort(matched_cosines(SET, copies)))


def test_opposite_directions_are_not_the_same_latent() -> None:
    assert matched_cosines(SET[:1], -SET[:1]) == pytest.approx(-1)


def test_widths_must_agree() -> None:
    with pytest.raises(InputError, match="same hookpoint"):
        matched_cosines(SET, SET[:, :4])
