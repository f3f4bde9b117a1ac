"""Laws of the linear erasers: guardedness with a control, idempotence, rank, means; and scikit-learn's checks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_array
from sklearn.utils.estimator_checks import parametrize_with_checks

from debias_ssae.baselines import INLP, LEACE, SPLINCE, CorrelationRemoval, LinearErasure, MeanDifference
from debias_ssae.core.errors import InputError

N, D = 1200, 16


def make_data(
    n_values: int = 2, correlation: float = 0.6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in which attribute and target each shift a few columns, on top of correlated noise."""
    rng = np.random.default_rng(seed)
    z = rng.integers(0, n_values, N)
    y = np.where(rng.random(N) < (1 + correlation) / 2, z > 0, z == 0).astype(int)
    mixing = rng.normal(size=(D, D)) / np.sqrt(D) + np.eye(D)
    X = rng.normal(size=(N, D)) @ mixing
    X += np.eye(n_values, 3)[z] @ rng.normal(size=(3, D)) * 1.5 + y[:, None] * rng.normal(size=D)
    return X, y, z


def probe(X: np.ndarray, z: np.ndarray) -> float:
    return LogisticRegression(C=1e6, max_iter=2000).fit(X, z).score(X, z)


def majority(z: np.ndarray) -> float:
    return np.bincount(z).max() / len(z)


@pytest.mark.parametrize("n_values", [2, 3])
@pytest.mark.parametrize("eraser", [LEACE(), SPLINCE(), INLP(C=1e4)], ids=lambda e: type(e).__name__)
def test_no_linear_probe_beats_the_majority_on_the_training_rows(
    eraser: LinearErasure, n_values: int
) -> None:
    X, y, z = make_data(n_values)
    assert probe(X, z) > majority(z) + 0.2
    erased = eraser.fit(X, y, sensitive_features=z).transform(X)
    assert probe(erased, z) <= majority(z) + 0.02


@pytest.mark.parametrize("n_values", [2, 3])
@pytest.mark.parametrize("eraser", [LEACE(), LEACE(shrinkage=False), SPLINCE(), MeanDifference()])
def test_group_means_are_equal_afterwards(eraser: LinearErasure, n_values: int) -> None:
    X, y, z = make_data(n_values)
    before = np.ptp([X[z == g].mean(axis=0) for g in range(n_values)], axis=0).max()
    erased = eraser.fit(X, y, sensitive_features=z).transform(X)
    after = np.ptp([erased[z == g].mean(axis=0) for g in range(n_values)], axis=0).max()
    assert before > 0.3
    assert after < 1e-6


@pytest.mark.parametrize("pooled", [False, True])
def test_conditional_erasers_make_group_means_equal_inside_classes(pooled: bool) -> None:
    """LEACE in each class, the mean difference on average over the classes."""
    X, y, z = make_data()
    eraser = MeanDifference if pooled else LEACE
    plain = eraser().fit(X, y, sensitive_features=z).transform(X)
    erased = eraser(conditional=True).fit(X, y, sensitive_features=z).transform(X)

    def gap(rows: np.ndarray) -> float:
        gaps, sizes = [], []
        for c in (0, 1):
            groups = [rows[(y == c) & (z == g)] for g in (0, 1)]
            gaps.append(groups[0].mean(axis=0) - groups[1].mean(axis=0))
            sizes.append(len(groups[0]) * len(groups[1]) / (len(groups[0]) + len(groups[1])))
        return np.abs(np.average(gaps, axis=0, weights=sizes) if pooled else gaps).max()

    assert gap(plain) > 0.05
    assert gap(erased) < 1e-6


ALL = [MeanDifference(), LEACE(), LEACE(conditional=True), SPLINCE(), INLP()]


@pytest.mark.parametrize("eraser", ALL, ids=repr)
def test_erasure_is_an_idempotent_projection_that_keeps_its_centre(eraser: LinearErasure) -> None:
    X, y, z = make_data()
    eraser.fit(X, y, sensitive_features=z)
    once = eraser.transform(X)
    np.testing.assert_allclose(eraser.transform(once), once, atol=1e-8)
    kept = eraser.eraser_.center  # of the mean difference the point midway between the groups, else the mean
    np.testing.assert_allclose(eraser.transform(kept[None])[0], kept, atol=1e-8)
    midway = np.mean([X[z == g].mean(axis=0) for g in (0, 1)], axis=0)
    expected = midway if isinstance(eraser, MeanDifference) else X.mean(axis=0)
    np.testing.assert_allclose(kept, expected, atol=1e-8)
    assert np.linalg.matrix_rank(X - once, tol=1e-8) == len(eraser.eraser_.read)


def test_ranks() -> None:
    X, y, z = make_data(3)
    assert len(LEACE().fit(X, y, sensitive_features=z).eraser_.read) == 2
    assert len(MeanDifference().fit(X, y, sensitive_features=z).eraser_.read) == 2
    assert len(SPLINCE().fit(X, y, sensitive_features=z).eraser_.read) == 2
    assert len(LEACE(conditional=True).fit(X, y, sensitive_features=z).eraser_.read) == 4


def test_leace_moves_the_rows_less_than_other_projections_with_its_guarantee() -> None:
    X, y, z = make_data()
    leace = LEACE(shrinkage=False).fit(X, y, sensitive_features=z).transform(X)
    for other in (MeanDifference(), SPLINCE(shrinkage=False)):
        rows = other.fit(X, y, sensitive_features=z).transform(X)
        assert ((leace - X) ** 2).sum() <= ((rows - X) ** 2).sum() + 1e-6


def test_splince_keeps_the_covariance_with_the_target_and_leace_does_not() -> None:
    X, y, z = make_data()

    def covariance(rows: np.ndarray) -> np.ndarray:
        return (rows - rows.mean(axis=0)).T @ (y - y.mean()) / len(y)

    kept = SPLINCE().fit(X, y, sensitive_features=z).transform(X)
    np.testing.assert_allclose(covariance(kept), covariance(X), atol=1e-8)
    lost = LEACE().fit(X, y, sensitive_features=z).transform(X)
    assert np.abs(covariance(lost) - covariance(X)).max() > 0.05


def test_splince_refuses_an_attribute_that_equals_the_target() -> None:
    X, _, z = make_data()
    with pytest.raises(InputError, match="same direction"):
        SPLINCE().fit(X, z, sensitive_features=z)
    with pytest.raises(InputError, match="needs y"):
        SPLINCE().fit(X, sensitive_features=z)
    with pytest.raises(InputError, match="two classes"):
        SPLINCE().fit(X, np.zeros(N), sensitive_features=z)


def test_inlp_records_its_probes_and_stops_at_its_limit() -> None:
    X, y, z = make_data()
    inlp = INLP(max_iter=1, C=1e4).fit(X, y, sensitive_features=z)
    assert len(inlp.eraser_.read) == 1
    assert len(inlp.accuracies_) == 2
    assert inlp.accuracies_[0] > majority(z) + 0.2


def test_inlp_ends_when_nothing_is_left_to_project() -> None:
    z = np.repeat([0, 1], 50)
    X = z[:, None] + 0.1 * np.random.default_rng(0).normal(size=(100, 1))
    inlp = INLP(tol=-1.0).fit(X, sensitive_features=z)
    assert len(inlp.eraser_.read) == 1
    np.testing.assert_allclose(inlp.transform(X), X.mean(), atol=1e-9)


def test_rows_without_attribute_do_not_matter() -> None:
    X, y, z = make_data()
    named = np.array(["f", "m"], dtype=object)[z]
    named[::3] = None
    with_gaps = LEACE().fit(X, y, sensitive_features=named).transform(X)
    known = np.arange(N) % 3 != 0
    without = LEACE().fit(X[known], y[known], sensitive_features=named[known]).transform(X)
    np.testing.assert_allclose(with_gaps, without)


@pytest.mark.parametrize("eraser", ALL, ids=repr)
def test_bad_input_is_told_in_one_line(eraser: LinearErasure) -> None:
    X, y, z = make_data()
    for bad, words in (
        (None, "needs the attribute"),
        (z[:-1], "must agree"),
        (np.zeros(N), "two are needed"),
    ):
        with pytest.raises(InputError, match=words):
            eraser.fit(X, y, sensitive_features=bad)


@pytest.mark.parametrize("eraser", [LEACE(conditional=True), MeanDifference(conditional=True)])
def test_conditional_needs_a_target(eraser: LinearErasure) -> None:
    X, _, z = make_data()
    with pytest.raises(InputError, match="needs y"):
        eraser.fit(X, sensitive_features=z)


def test_attribute_is_routed_through_a_pipeline() -> None:
    X, y, z = make_data()
    with config_context(enable_metadata_routing=True):
        eraser = LEACE().set_fit_request(sensitive_features=True)
        pipeline = make_pipeline(eraser, LogisticRegression()).fit(X, y, sensitive_features=z)
        assert pipeline.predict(X).shape == (N,)
    direct = LEACE().fit(X, y, sensitive_features=z)
    np.testing.assert_allclose(pipeline[0].eraser_.read, direct.eraser_.read)


def test_an_attribute_that_nothing_depends_on_leaves_splince_idle() -> None:
    X = np.vstack([np.eye(4)[[0, 1, 2, 3]]] * 2)
    z, y = np.repeat([0, 1], 4), np.tile([0, 0, 1, 1], 2)
    eraser = SPLINCE().fit(X, y, sensitive_features=z)
    assert len(eraser.eraser_.read) == 0
    np.testing.assert_array_equal(eraser.transform(X), X)


def test_float32_stays_float32() -> None:
    X, y, z = make_data()
    assert (
        LEACE().fit(X.astype(np.float32), y, sensitive_features=z).transform(X.astype(np.float32)).dtype
        == np.float32
    )


def test_values_have_one_name_at_both_times() -> None:
    X, y, _ = make_data(2)
    sex = np.arange(len(X)) % 2
    remover = CorrelationRemoval().fit(X, y, sensitive_features=sex.astype(float))
    assert remover.transform(X, sensitive_features=sex).shape == X.shape
    race = np.resize(["Black, non-Hispanic", "White", "White"], len(X))
    crossed = pd.DataFrame({"race": race, "sex": sex})
    remover = CorrelationRemoval().fit(X, y, sensitive_features=crossed)
    assert remover.transform(X, sensitive_features=crossed).shape == X.shape


def test_correlation_remover_needs_the_attribute_at_both_times() -> None:
    X, y, z = make_data(3)
    remover = CorrelationRemoval().fit(X, y, sensitive_features=z)
    assert remover.needs_attribute_at_predict
    assert not LEACE.needs_attribute_at_predict
    erased = remover.transform(X, sensitive_features=z)
    one_hot = np.eye(3)[z] - np.eye(3)[z].mean(axis=0)
    assert np.abs(X.T @ one_hot / N).max() > 0.1
    assert np.abs((erased - erased.mean(axis=0)).T @ one_hot / N).max() < 1e-8
    with pytest.raises(InputError, match="rows it is used on"):
        remover.transform(X)
    with pytest.raises(InputError, match="not seen in fit"):
        remover.transform(X, sensitive_features=z + 1)
    with pytest.raises(InputError, match="must agree"):
        remover.transform(X, sensitive_features=z[:-1])
    with pytest.raises(InputError, match="needs the attribute"):
        CorrelationRemoval().fit(X)
    with pytest.raises(InputError, match="miss the attribute"):
        CorrelationRemoval().fit(X, sensitive_features=np.where(z == 0, np.nan, z))


class _FromX:
    """Takes the attribute from the first column, so that scikit-learn's checks reach the erasure."""

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Any:
        try:
            column = check_array(X)[:, 0]
            halves = column > np.median(column)
        except (TypeError, ValueError):
            halves = np.arange(2) > 0  # the estimator's own checks say what is wrong with X
        if len(set(halves)) < 2:
            halves = np.arange(len(halves)) % 2 > 0
        return super().fit(X, y, sensitive_features=halves)  # type: ignore[misc]


class _MeanDifference(_FromX, MeanDifference):
    pass


class _LEACE(_FromX, LEACE):
    pass


class _INLP(_FromX, INLP):
    pass


CHECKED = list(parametrize_with_checks([_MeanDifference(), _LEACE(), _INLP(max_iter=3)]).args[1])


@pytest.mark.parametrize(("estimator", "check"), CHECKED)
def test_scikit_learn_conformance(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("eraser", [LEACE(), LEACE(conditional=True), SPLINCE(), INLP(), MeanDifference()])
def test_columns_of_tiny_spread_are_erased_like_any_other(eraser: LinearErasure) -> None:
    X, y, z = make_data()
    scale = np.where(np.arange(D) < 3, 1e-33, 1.0)
    tiny = (X * scale).astype(np.float32)
    expected = eraser.fit(X, y, sensitive_features=z).transform(X)
    edited = eraser.fit(tiny, y, sensitive_features=z).transform(tiny)
    assert np.allclose(edited / scale, expected, atol=2e-3)


@pytest.mark.parametrize("eraser", [LEACE(), LEACE(conditional=True), SPLINCE(), INLP(), MeanDifference()])
def test_constant_columns_stay_the_same_bits(eraser: LinearErasure) -> None:
    X, y, z = make_data()
    X[:, :2] = [0.0, 5.0]
    edited = eraser.fit(X, y, sensitive_features=z).transform(X)
    assert np.array_equal(edited[:, :2], X[:, :2])
    assert not np.allclose(edited[:, 2:], X[:, 2:])
