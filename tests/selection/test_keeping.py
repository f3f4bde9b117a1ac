"""What carries the target and not the attribute, where the attribute is everywhere."""

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection import target_margin

D = 30


def everywhere(n: int = 800, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents 0..2 follow the target alone, 3..5 both, 6..19 the attribute, the rest nothing."""
    rng = np.random.default_rng(seed)
    y, z = rng.integers(0, 2, n), rng.integers(0, 2, n)
    latents = rng.exponential(0.1, size=(n, D))
    latents[:, :6] += 0.05 * y[:, None]
    latents[:, 3:20] += 0.1 * z[:, None]
    return latents, np.array(["bad", "good"])[y], z


def test_only_what_carries_the_target_alone_has_a_margin() -> None:
    latents, y, z = everywhere()
    scores = target_margin(latents, np.ones(D), z, ("a", "b"), y)
    assert set(scores.top(3)) == {0, 1, 2}
    assert (scores.score[3:20] == 0).all()
    assert scores.values == ("a", "b")


def test_roles_swapped_find_the_attribute() -> None:
    latents, y, z = everywhere()
    swapped = target_margin(latents, np.ones(D), (y == "good").astype(int), ("bad", "good"), z)
    assert set(swapped.top(14)) <= set(range(3, 20))
    assert (swapped.score[:3] == 0).all()


def test_rows_without_the_attribute_change_nothing() -> None:
    latents, y, z = everywhere()
    more = np.concatenate([latents, 100 * latents[:50]])
    extended = target_margin(
        more, np.ones(D), np.concatenate([z, np.full(50, -1)]), ("a", "b"), np.concatenate([y, y[:50]])
    )
    assert np.allclose(extended.score, target_margin(latents, np.ones(D), z, ("a", "b"), y).score)


def test_target_and_attribute_that_are_one_are_refused() -> None:
    latents, _, z = everywhere()
    with pytest.raises(InputError, match="cannot be told"):
        target_margin(latents, np.ones(D), z, ("a", "b"), z)


def test_the_error_names_the_combinations_that_lack_texts() -> None:
    latents, y, z = everywhere()
    rows = (y == "bad") | (z == 1) | (np.arange(len(y)) < 12)
    few = int(((y == "good") & (z == 0) & rows).sum())
    rows &= ~((y == "bad") & (z == 1))
    message = rf"fewer than 20 texts: bad with b \(0\), good with a \({few}\);"
    with pytest.raises(InputError, match=message):
        target_margin(latents[rows], np.ones(D), z[rows], ("a", "b"), y[rows])
