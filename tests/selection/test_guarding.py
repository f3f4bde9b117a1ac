"""The guard on planted dictionaries: pure latents go, hedged ones stay, in both regimes."""

import json

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection import Costs, costs_from_labels, costs_from_pairs, guard

D_SAE, D_IN = 30, 20
LISTED, UNLISTED, HEDGED, TARGET = 0, 1, 2, 3


def dictionary(seed: int = 0) -> np.ndarray:
    """Axis 0 is the attribute, axis 1 the target; latent 1 (a word outside the list) leans on the attribute."""
    rng = np.random.default_rng(seed)
    W_dec = rng.normal(size=(D_SAE, D_IN)) * 0.2
    W_dec[:, :2] *= 0.05
    W_dec[:4] *= 0.2
    W_dec[LISTED, 0] = 1.0
    W_dec[UNLISTED, 0] = 0.8
    W_dec[HEDGED, :2] = (0.25, 1.0)
    W_dec[TARGET, 1] = 1.0
    return W_dec


def labelled(n: int = 1200, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    z = np.where(rng.random(n) < 0.6, y, rng.integers(0, 2, n))
    latents = rng.exponential(0.2, size=(n, D_SAE))
    latents[:, LISTED] += z
    latents[:, UNLISTED] += 0.5 * z
    latents[:, HEDGED] += 0.4 * z + 0.6 * y
    latents[:, TARGET] += 0.8 * y
    return latents, latents @ dictionary(), z, y


def confounded_counterfactuals(n: int = 800, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Attribute == target in every text. Counterfactuals differ in the listed word, and a little in the hedged one."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = rng.exponential(0.2, size=(n, D_SAE))
    a[:, UNLISTED] += 0.5 * y
    a[:, HEDGED] += 0.6 * y
    a[:, TARGET] += 0.8 * y
    b = a.copy()
    b[:, LISTED] += 1.0
    b[:, HEDGED] += 0.2
    W_dec = dictionary()
    return a, b, a @ W_dec, b @ W_dec, y


def test_labels_keep_the_hedged_latent_out_and_let_pure_ones_in() -> None:
    latents, X, z, y = labelled()
    costs = costs_from_labels(latents, np.ones(D_SAE), X, dictionary(), z, ("a", "b"), y)
    result = guard([HEDGED, LISTED, TARGET, UNLISTED], costs)
    assert result.kept.tolist() == [LISTED, UNLISTED]
    assert [h["latent"] for h in result.hedged] == [HEDGED, TARGET]
    assert result.hedged[0]["on_target"] > result.hedged[0]["on_attribute"] > 0
    assert result.hedged[0]["cos_target"] > result.hedged[0]["cos_attribute"]
    json.dumps(result.hedged)


def test_a_latent_that_only_follows_the_attribute_costs_no_target() -> None:
    """Control: without y the confounded target would make every attribute latent look hedged."""
    latents, X, z, y = labelled()
    costs = costs_from_labels(latents, np.ones(D_SAE), X, dictionary(), z, ("a", "b"), y)
    assert costs.on_target[LISTED] < 0.1 * costs.on_attribute[LISTED]
    assert costs.on_attribute[TARGET] < 0.1 * costs.on_target[TARGET]
    shuffled = np.random.default_rng(1).permutation(y)
    nothing = costs_from_labels(latents, np.ones(D_SAE), X, dictionary(), z, ("a", "b"), shuffled)
    assert guard(np.arange(D_SAE), nothing).hedged == []


def test_labels_with_unknown_rows_and_three_values() -> None:
    latents, X, z, y = labelled()
    z = np.where(np.arange(len(z)) % 7 == 0, -1, z)
    costs = costs_from_labels(latents, np.ones(D_SAE), X, dictionary(), z, ("a", "b"), y)
    assert guard([LISTED, HEDGED], costs).kept.tolist() == [LISTED]
    three = np.where((z == 0) & (np.arange(len(z)) % 2 == 0), 2, z)
    costs = costs_from_labels(latents, np.ones(D_SAE), X, dictionary(), three, ("a", "b", "c"), y)
    assert guard([LISTED, HEDGED], costs).kept.tolist() == [LISTED]


def test_a_class_and_value_that_stand_alone_do_not_switch_it_off() -> None:
    latents, X, z, y = labelled()
    alone = np.arange(len(y)) % 5 == 0
    z, y = np.where(alone, 2, z), np.where(alone, 2, y)
    costs = costs_from_labels(latents, np.ones(D_SAE), X, dictionary(), z, ("a", "b", "c"), y)
    assert guard([LISTED, HEDGED], costs).kept.tolist() == [LISTED]


def test_counterfactuals_tell_attribute_from_target_where_they_are_one() -> None:
    a, b, X_a, X_b, y = confounded_counterfactuals()
    costs = costs_from_pairs(a, b, X_a, X_b, dictionary(), y)
    result = guard([LISTED, UNLISTED, HEDGED, TARGET], costs)
    assert result.kept.tolist() == [LISTED, UNLISTED]
    assert costs.cos_attribute[LISTED] > 0.9
    assert costs.cos_target[TARGET] > 0.3
    assert costs.on_attribute[LISTED] > 0.5


def test_counterfactuals_the_names_of_values_and_classes_do_not_matter() -> None:
    a, b, X_a, X_b, y = confounded_counterfactuals()
    costs = costs_from_pairs(a, b, X_a, X_b, dictionary(), y)
    other = costs_from_pairs(b, a, X_b, X_a, dictionary(), np.where(y == 1, "alpha", "beta"))
    assert np.allclose(costs.on_attribute, other.on_attribute)
    assert np.allclose(costs.on_target, other.on_target)
    assert np.allclose(costs.cos_attribute, -other.cos_attribute)


def test_counterfactuals_with_a_target_of_noise_cost_nothing() -> None:
    a, b, X_a, X_b, y = confounded_counterfactuals()
    costs = costs_from_pairs(a, b, X_a, X_b, dictionary(), np.random.default_rng(5).permutation(y))
    assert not costs.on_target.any()
    three = costs_from_pairs(a, b, X_a, X_b, dictionary(), np.where(np.arange(len(y)) < 200, 2, y))
    assert guard([LISTED, HEDGED, TARGET], three).kept.tolist() == [LISTED]


def test_many_classes_cost_what_each_does_on_average() -> None:
    """Not what the dearest does: of many classes each latent would be dear to one."""
    a, b, X_a, X_b, y = confounded_counterfactuals()
    many = np.where(np.arange(len(y)) % 3 == 0, 2, y)
    costs = costs_from_pairs(a, b, X_a, X_b, dictionary(), many)
    each = [costs_from_pairs(a, b, X_a, X_b, dictionary(), many == c).on_target for c in range(3)]
    assert np.allclose(costs.on_target, np.mean(each, axis=0))
    assert costs.on_target[TARGET] > 0


def test_a_target_that_is_only_the_attribute_protects_nothing() -> None:
    """What the classes differ in is the attribute's own direction: nothing of the target is left beside it."""
    a, b, _, _, y = confounded_counterfactuals()
    W_dec = np.zeros((D_SAE, D_IN))
    W_dec[:, 0] = 1.0
    costs = costs_from_pairs(a, b, a @ W_dec, b @ W_dec, W_dec, y)
    assert guard([LISTED, UNLISTED, TARGET], costs).hedged == []


def test_counterfactuals_that_cannot_be_used() -> None:
    a, b, X_a, X_b, y = confounded_counterfactuals()
    with pytest.raises(InputError, match="change nothing"):
        costs_from_pairs(a, a, X_a, X_a, dictionary(), y)
    with pytest.raises(InputError, match="one class only"):
        costs_from_pairs(a, b, X_a, X_b, dictionary(), np.zeros(len(y)))


def test_guard_keeps_order_and_ties() -> None:
    tie = Costs(np.array([0.1, 0.2, 0.0]), np.array([0.1, 0.3, 0.0]), np.zeros(3), np.zeros(3))
    assert guard([2, 1, 0], tie).kept.tolist() == [2, 0]
    assert guard([2, 1, 0], tie, margin=2).kept.tolist() == [2, 1, 0]
    assert guard([2, 1, 0], tie, margin=0.9).kept.tolist() == [2]
    assert guard([], tie).kept.tolist() == []
