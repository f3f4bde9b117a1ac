"""Heads with group labels in training: each lifts the worst cell of a confounded set, none asks for it later."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import _num_samples

from debias_ssae.baselines import (
    GroupDRO,
    GroupReweighting,
    GroupSubsampling,
    LastLayerRetraining,
    ParityThresholds,
    ReducedHead,
)
from debias_ssae.baselines.heads import balanced_rows
from debias_ssae.core.errors import InputError


def make_data(
    n: int, minority: float, seed: int, n_classes: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The attribute's column is clean, the target's noisy; they agree but for a ``minority`` of the rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    z = np.where(rng.random(n) < minority, 1 - (y > 0), y > 0).astype(int)
    X = rng.normal(size=(n, 12))
    X[:, 0] += 4 * (z - 0.5)
    for label in range(n_classes):
        X[:, 1 + label] += 2.0 * (y == label)
    return X, y, z


def worst(y: np.ndarray, predicted: np.ndarray, z: np.ndarray) -> float:
    return min((predicted == y)[(y == c) & (z == g)].mean() for c in np.unique(y) for g in (0, 1))


HEADS = [
    GroupReweighting(),
    GroupSubsampling(random_state=0),
    LastLayerRetraining(random_state=0),
    GroupDRO(),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_the_worst_cell_is_lifted(head: Any) -> None:
    X, y, z = make_data(2000, 0.05, 0)
    X_test, y_test, z_test = make_data(2000, 0.5, 1)
    plain = worst(y_test, LogisticRegression(C=0.1).fit(X, y).predict(X_test), z_test)
    lifted = worst(y_test, head.fit(X, y, sensitive_features=z).predict(X_test), z_test)
    assert plain < 0.7
    assert lifted > plain + 0.1
    assert not head.needs_attribute_at_predict


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_more_than_two_classes_named_by_strings(head: Any) -> None:
    X, codes, z = make_data(900, 0.3, 0, n_classes=3)
    y = np.array(["a", "b", "c"])[codes]
    head.fit(X, y, sensitive_features=np.array(["f", "m"])[z])
    assert (head.predict(X) == y).mean() > 0.6
    assert head.decision_function(X).shape == (900, 3)


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_same_seed_same_weights(head: Any) -> None:
    X, y, z = make_data(400, 0.2, 0)
    first = head.fit(X, y, sensitive_features=z).coef_
    np.testing.assert_array_equal(head.fit(X, y, sensitive_features=z).coef_, first)


def test_reweighting_equals_duplicating_the_small_cells() -> None:
    X, y, z = make_data(600, 0.5, 0)
    cell = 2 * y + z
    rows = np.concatenate(
        [np.flatnonzero(cell == 0)[:40], *(np.flatnonzero(cell == c)[:80] for c in (1, 2, 3))]
    )
    doubled = np.concatenate([rows, rows[:40]])
    scaler_free = GroupReweighting(C=1e6).fit(X[rows], y[rows], sensitive_features=z[rows])
    twice = GroupReweighting(C=1e6).fit(X[doubled], y[doubled], sensitive_features=z[doubled])
    agree = scaler_free.predict(X) == twice.predict(X)
    assert agree.mean() > 0.995


def test_balanced_rows_holds_every_cell_equally() -> None:
    cell = np.repeat([0, 1, 3], [5, 50, 20])
    rows = balanced_rows(cell, np.random.default_rng(0))
    assert np.bincount(cell[rows]).tolist() == [5, 5, 0, 5]
    assert len(set(rows)) == len(rows)


def test_group_dro_lowers_the_worst_cells_loss_below_that_of_equal_weights() -> None:
    X, y, z = make_data(2000, 0.05, 0)
    cell = 2 * y + z

    def worst_loss(head: Any) -> float:
        margin = (2 * y - 1) * head.fit(X, y, sensitive_features=z).decision_function(X)
        losses = np.log1p(np.exp(-margin))
        return max(losses[cell == c].mean() for c in range(4))

    robust = GroupDRO(penalty=1e-4)
    assert worst_loss(robust) < worst_loss(GroupReweighting(C=10.0)) - 0.01
    assert robust.cell_weights_.sum() == pytest.approx(1, abs=1e-5)


def test_last_layer_retraining_needs_two_rows_of_a_cell_to_choose() -> None:
    X, y, z = make_data(200, 0.5, 0)
    keep = ~((y == 0) & (z == 1))
    keep[np.flatnonzero((y == 0) & (z == 1))[0]] = True
    with pytest.raises(InputError, match="give C"):
        LastLayerRetraining().fit(X[keep], y[keep], sensitive_features=z[keep])
    LastLayerRetraining(C=0.1, n_draws=2).fit(X[keep], y[keep], sensitive_features=z[keep])


@pytest.mark.parametrize("head", [*HEADS, ReducedHead(), ParityThresholds()], ids=lambda h: type(h).__name__)
def test_bad_input_is_told_in_one_line(head: Any) -> None:
    X, y, z = make_data(60, 0.5, 0)
    for bad, words in (
        (None, "needs the attribute"),
        (z[:-1], "must agree"),
        (np.zeros(60), "two are needed"),
    ):
        with pytest.raises(InputError, match=words):
            head.fit(X, y, sensitive_features=bad)
    with pytest.raises(InputError, match="class"):
        head.fit(X, np.zeros(60), sensitive_features=z)


@pytest.mark.parametrize("head", [GroupReweighting(), GroupDRO(n_steps=50), ReducedHead(max_iter=5)])
def test_rows_without_attribute_are_left_out(head: Any) -> None:
    X, y, z = make_data(300, 0.4, 0)
    gaps = z.astype(object)
    gaps[:100] = None
    with_gaps = head.fit(X, y, sensitive_features=gaps).predict(X)
    without = head.fit(X[100:], y[100:], sensitive_features=z[100:]).predict(X)
    np.testing.assert_array_equal(with_gaps, without)


@pytest.mark.parametrize("constraint", ["equalized_odds", "demographic_parity", "true_positive_rate_parity"])
def test_exponentiated_gradient_narrows_the_gap_without_the_attribute(constraint: str) -> None:
    X, y, z = make_data(1500, 0.1, 0)
    labels = np.array(["no", "yes"])[y]
    plain = LogisticRegression(C=0.1).fit(X, labels).predict(X)
    fair = ReducedHead(constraint=constraint, max_iter=10).fit(X, labels, sensitive_features=z).predict(X)

    def gap(predicted: np.ndarray) -> float:
        rows = np.ones(len(y), bool) if constraint == "demographic_parity" else y == 1
        rates = [(predicted == "yes")[rows & (z == g)].mean() for g in (0, 1)]
        return abs(rates[0] - rates[1])

    assert gap(plain) > 0.2
    assert gap(fair) < gap(plain) / 2


def test_unknown_constraint() -> None:
    X, y, z = make_data(60, 0.5, 0)
    with pytest.raises(InputError, match="known: equalized_odds"):
        ReducedHead(constraint="justice").fit(X, y, sensitive_features=z)


def test_thresholds_close_the_gap_and_need_the_attribute() -> None:
    X, y, z = make_data(1500, 0.05, 0)
    head = ParityThresholds().fit(X, y, sensitive_features=z)
    plain = LogisticRegression(C=0.1).fit(X, y).predict(X)

    def gap(predicted: np.ndarray) -> float:
        return abs(np.subtract(*((predicted == 1)[(y == 1) & (z == g)].mean() for g in (0, 1))))

    assert head.needs_attribute_at_predict
    assert gap(plain) > 0.15
    assert gap(head.predict(X, sensitive_features=z)) < 0.05
    with pytest.raises(InputError, match="rows it is used on"):
        head.predict(X)
    with pytest.raises(InputError, match="not seen in fit"):
        head.predict(X, sensitive_features=z + 5)


def test_a_group_of_one_class_has_no_threshold() -> None:
    X, y, _ = make_data(200, 0.5, 0)
    with pytest.raises(InputError, match="one class only"):
        ParityThresholds().fit(X, y, sensitive_features=y)


class _Reweighting(GroupReweighting):
    """Takes every other row as the second group, so that scikit-learn's checks reach the fit."""

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> Any:
        return super().fit(X, y, sensitive_features=np.arange(_num_samples(X)) % 2)


CHECKED = list(parametrize_with_checks([_Reweighting()]).args[1])


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKED)
def test_scikit_learn_conformance(estimator: Any, check: Any) -> None:
    check(estimator)
