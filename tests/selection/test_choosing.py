"""How many: the walk stops at the planted size; the ridge probe's folds equal refits."""

import json
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from debias_ssae.core.config import SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.erase import fit_mean_difference
from debias_ssae.selection.select import _spectrum, removal_score, smallest_sufficient

D_SAE, D_IN = 256, 48
MANY = SelectionConfig(most_latents=512)


def planted(n_carriers: int, n: int = 600, seed: int = 0) -> tuple[np.ndarray, ...]:
    """The attribute is written by the first ``n_carriers`` latents, the target by the last one."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    z = np.where(rng.random(n) < 0.5, y, rng.integers(0, 2, n))
    latents = rng.exponential(0.2, size=(n, D_SAE))
    latents[:, :n_carriers] += 0.4 * z[:, None]
    latents[:, -1] += 2.0 * y
    W_dec = rng.normal(size=(D_SAE, D_IN))
    W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
    X = latents @ W_dec + 0.1 * rng.normal(size=(n, D_IN))
    return X, latents, W_dec, z, y


@pytest.mark.parametrize("n_carriers", [4, 8, 32, 64])
def test_stops_at_the_planted_size(n_carriers: int) -> None:
    """What the last few of many write may be within noise."""
    X, latents, W_dec, z, y = planted(n_carriers)
    found = smallest_sufficient(
        np.arange(D_SAE - 1), removal_score(X, latents, W_dec, z, y, random_state=0), MANY
    )
    assert 0.75 * n_carriers <= found.n <= 1.1 * n_carriers  # sizes grow by an eighth
    assert found.path[0]["score"] > 0.3 or n_carriers == 4
    json.dumps(found.path)


def test_a_null_attribute_gives_the_smallest_size() -> None:
    X, latents, W_dec, z, y = planted(32)
    for seed in range(5):
        null = np.random.default_rng(seed).permutation(z)
        score = removal_score(X, latents, W_dec, null, y, random_state=seed)
        assert smallest_sufficient(np.arange(D_SAE - 1), score, MANY).n == 1


def test_a_latent_that_says_the_same_as_the_next_does_not_end_the_walk() -> None:
    """Two latents of one word: without the first alone the second still tells all."""
    scores = [1.0, 0.6, 0.6, 0.2, 0.2, 0.1]
    found = smallest_sufficient(
        np.arange(5), lambda ids: scores[len(ids)] + np.array([-0.01, 0.0, 0.01]), MANY
    )
    assert found.n == 5


def test_the_wrong_ranking_does_not_lower_the_probe() -> None:
    X, latents, W_dec, z, y = planted(32)
    score = removal_score(X, latents, W_dec, z, y, random_state=0)
    assert score(np.arange(100, 132)).mean() > 0.9 * score(np.array([], dtype=int)).mean()
    assert score(np.arange(32)).mean() < 0.05


def test_the_label_does_not_pass_for_the_attribute() -> None:
    """Nothing but y tells z: a probe given y reads nothing, one without reads it through y."""
    X, latents, W_dec, z, y = planted(0)
    assert removal_score(X, latents, W_dec, z, y, random_state=0)(np.array([], dtype=int)).mean() < 0.02
    assert removal_score(X, latents, W_dec, z, random_state=0)(np.array([], dtype=int)).mean() > 0.1


def test_folds_equal_refits() -> None:
    """The leave-out formula against ridge fitted again without each fold."""
    from sklearn.linear_model import Ridge

    X, latents, W_dec, z, y = planted(8, n=300)
    rng = np.random.default_rng(3)
    fold = rng.permutation(np.arange(300) % 4)
    score = removal_score(X, latents, W_dec, z, y, n_folds=4, random_state=3)(np.array([0, 1]))
    left = X - latents[:, :2] @ W_dec[:2]
    weight = np.array([np.mean(y == y[i]) / np.mean((y == y[i]) & (z == z[i])) / 2 for i in range(300)])
    scale = weight @ np.square(X - X.mean(0)).sum(1) / D_IN
    target = z - 0.5
    best = np.full(4, -np.inf)
    for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        expected = []
        for k in range(4):
            train, test = fold != k, fold == k
            design = np.column_stack(
                [left - left.mean(0), (y == 0) * 1e3 * scale**0.5, (y == 1) * 1e3 * scale**0.5]
            )
            ridge = Ridge(alpha=penalty * scale, fit_intercept=False, solver="cholesky")
            ridge.fit(design[train], target[train], sample_weight=weight[train])
            error = weight[test] * (target[test] - ridge.predict(design[test])) ** 2
            expected.append(1 - error.sum() / (weight[test] * target[test] ** 2).sum())
        best = max(best, np.array(expected), key=np.mean)
    assert np.allclose(score, best, atol=1e-4)


def test_both_spectra_give_the_same_smoother() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 12))
    for matrix in (rows, rows.T):
        basis, values = _spectrum(matrix)
        expected = matrix @ np.linalg.solve(matrix.T @ matrix + np.eye(matrix.shape[1]), matrix.T)
        assert np.allclose(basis / (values + 1) @ basis.T, expected)


def test_counterfactuals_share_a_fold() -> None:
    """Texts that tell nothing but themselves: leaking one across folds would read below chance or above."""
    rng = np.random.default_rng(0)
    n = 200
    texts = rng.normal(size=(n, D_IN)) * 3
    shift = np.eye(D_IN)[0] * 0.5
    X = np.concatenate([texts - shift, texts + shift])
    latents = np.zeros((2 * n, 4))
    latents[n:, 0] = 1.0
    W_dec = np.concatenate([2 * shift[None], np.zeros((3, D_IN))])
    z, groups = np.repeat([0, 1], n), np.tile(np.arange(n), 2)
    score = removal_score(X, latents, W_dec, z, groups=groups, random_state=0)
    assert score(np.array([], dtype=int)).mean() > 0
    assert abs(score(np.array([0])).mean()) < 0.01


def test_unusable_cells_unknown_rows_and_three_values() -> None:
    X, latents, W_dec, z, y = planted(8)
    more = np.concatenate([z, np.full(50, -1)])
    wide = [np.concatenate([a, a[:50]]) for a in (X, latents, y)]
    base = removal_score(X, latents, W_dec, z, y, random_state=0)(np.arange(2))
    assert np.allclose(
        removal_score(wide[0], wide[1], W_dec, more, wide[2], random_state=0)(np.arange(2)), base
    )
    third_class = np.where(np.arange(len(y)) < 30, 2, y)
    only_one = np.where(third_class == 2, 0, z)
    assert removal_score(X, latents, W_dec, only_one, third_class, random_state=0)(np.arange(8)).mean() < 0.05
    three = np.where(np.arange(len(z)) % 3 == 0, 2, z)
    assert removal_score(X, latents, W_dec, three, y, random_state=0)(np.arange(0)).shape == (10,)


def test_the_walk_by_hand() -> None:
    scores = {0: [2.0, 2.0], 1: [0.8, 0.9], 2: [0.3, 0.4], 3: [0.29, 0.42], 4: [0.3, 0.41]}

    def score(ids: np.ndarray) -> np.ndarray:
        return np.array(scores[len(ids)])

    found = smallest_sufficient(np.arange(4), score, MANY)
    assert found.n == 2
    assert found.left == pytest.approx(0.175)
    assert [step["n"] for step in found.path] == [1, 2, 3, 4]
    assert smallest_sufficient(np.arange(4), score, SelectionConfig(most_latents=1)).n == 1
    scores[3] = [-0.1, 0.2]
    assert [step["n"] for step in smallest_sufficient(np.arange(4), score, MANY).path] == [1, 2, 3]
    falling = smallest_sufficient(np.arange(30), lambda ids: np.array([1 / (1 + len(ids))]), MANY)
    assert [step["n"] for step in falling.path] == [*range(1, 17), 18, 20, 22, 24, 27, 30]
    assert falling.n == 30
    assert smallest_sufficient(np.arange(0), lambda ids: np.zeros(2), MANY).n == 0
    assert smallest_sufficient(np.arange(3), lambda ids: np.ones(2), MANY).n == 3


@pytest.mark.parametrize(("floor", "n"), [(0.24, 512), (0.26, 8)])
def test_an_attribute_that_its_latents_leave_readable_costs_no_more_of_them(floor: float, n: int) -> None:
    """Each step lowers the probe, as on reviews of two kinds of products, but most of it stays."""

    def score(ids: np.ndarray) -> np.ndarray:
        return np.array([1 - (1 - floor) * len(ids) / 512] * 2)

    found = smallest_sufficient(np.arange(600), score, MANY)
    assert (found.n, found.path[-1]["n"]) == (n, 512)
    assert found.left == pytest.approx(floor)


def test_what_cannot_be_walked_is_refused() -> None:
    X, latents, W_dec, z, y = planted(8, n=300)
    with pytest.raises(InputError, match="no class of the target"):
        removal_score(X, latents, W_dec, y, y)
    with pytest.raises(InputError, match="cannot fill"):
        removal_score(X, latents, W_dec, z, y, n_folds=10, groups=np.arange(300) // 60)


def test_a_score_costs_about_a_second_at_full_size() -> None:
    rng = np.random.default_rng(0)
    latents = rng.exponential(0.2, size=(2000, 600)).astype(np.float32)
    W_dec = rng.normal(size=(600, 384))
    score = removal_score(latents @ W_dec, latents, W_dec, rng.integers(0, 2, 2000), rng.integers(0, 2, 2000))
    with threadpool_limits(1):  # threads that wait for one another count as work
        start = time.process_time()
        score(np.arange(100))
        assert time.process_time() - start < 10


def test_what_a_linear_eraser_takes_needs_no_latents() -> None:
    X, latents, W_dec, z, y = planted(64)
    alone = removal_score(X, latents, W_dec, z, y, random_state=0)
    followed = removal_score(X, latents, W_dec, z, y, output_eraser=fit_mean_difference, random_state=0)
    assert alone(np.arange(8)).mean() > 0.3 > 0.05 > followed(np.arange(8)).mean()
    assert smallest_sufficient(np.arange(D_SAE - 1), followed, MANY).n == 1
    assert 48 <= smallest_sufficient(np.arange(D_SAE - 1), alone, MANY).n <= 64
