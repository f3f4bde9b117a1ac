"""Networks that are trained together are what each would be alone, and what scikit-learn's are."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.core.stats import networks as room
from debias_ssae.core.stats.networks import Task, train_networks


def exclusive_or(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (n, 2))
    X = np.concatenate([bits + rng.normal(scale=0.3, size=bits.shape), rng.normal(size=(n, 6))], axis=1)
    return (100 + 30 * X).astype(np.float32), bits[:, 0] ^ bits[:, 1]


def task(
    z: np.ndarray, rows: np.ndarray | None = None, weight: np.ndarray | None = None, seed: int = 0
) -> Task:
    rows = np.arange(len(z)) if rows is None else rows
    return Task(rows, z[rows], np.ones(len(rows)) if weight is None else weight, seed)


@pytest.mark.parametrize(("n", "draws"), [(400, 1), (24, 12)])
def test_as_good_as_scikit_learns(n: int, draws: int) -> None:
    """Also on fewer rows than a batch holds."""
    ours, theirs = [], []
    for seed in range(draws):
        X, z = exclusive_or(n + 300, seed)
        if n < 64:
            z = (X[:, 0] + 8 * np.random.default_rng(seed).normal(size=len(X)) > 115).astype(int)
        (network,) = train_networks(X, [task(z, np.arange(n), seed=seed)])
        peer = make_pipeline(
            StandardScaler(),
            MLPClassifier(
                (64,),
                alpha=1.0,
                batch_size=min(64, n),
                learning_rate_init=3e-3,
                max_iter=100,
                tol=0.0,
                n_iter_no_change=100,
                random_state=seed,
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            peer.fit(X[:n], z[:n])
        for model, found in ((network, ours), (peer, theirs)):
            found.append((model.predict(X[n:]) == z[n:]).mean())
    assert np.mean(ours) > (0.85 if n > 64 else 0.6)
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.03


@pytest.mark.parametrize("together", [1 << 23, 1])
def test_together_as_alone(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X, z = exclusive_or(500)
    tasks = [
        task(z, np.arange(90), seed=1),
        task(z, np.arange(100, 500), seed=2),
        task(z, np.arange(30), seed=3),
    ]
    alone_each = [train_networks(X, [one])[0] for one in tasks]
    monkeypatch.setattr(room, "TOGETHER", together)
    for alone, network in zip(alone_each, train_networks(X, tasks), strict=True):
        for ours, its in zip(network.weights, alone.weights, strict=True):
            torch.testing.assert_close(ours, its, rtol=1e-3, atol=1e-4)
    assert [room._n_steps(len(one.z)) for one in tasks] == [200, 700, 100]


def test_gradients_are_those_of_the_penalised_weighted_loss() -> None:
    X, z = exclusive_or(64)
    weight = np.random.default_rng(0).random(64)
    training = room._Training(torch.from_numpy(X), [task(z, weight=weight)], 1e-3)
    leaves = [W.clone().requires_grad_() for W in training.weights]
    x = ((training.X - training.mean) / training.scale).reshape(1, 64, -1)
    logits = torch.relu(x @ leaves[0] + leaves[1]) @ leaves[2] + leaves[3]
    losses = torch.nn.functional.cross_entropy(logits[0], torch.from_numpy(z), reduction="none")
    share = torch.from_numpy(weight / weight.sum()).float()
    penalty = (leaves[0].square().sum() + leaves[2].square().sum()) / (2 * 64)
    ((losses * share).sum() + penalty).backward()
    found = training._gradients(x, torch.from_numpy(z)[None], torch.from_numpy(weight).float()[None])
    for ours, leaf in zip(found, leaves, strict=True):
        torch.testing.assert_close(ours, leaf.grad, rtol=1e-4, atol=1e-6)


def test_a_step_is_adams() -> None:
    X, z = exclusive_or(64)
    training = room._Training(torch.from_numpy(X), [task(z)], 1e-2)
    leaves = [W.clone().requires_grad_() for W in training.weights]
    peer = torch.optim.Adam(leaves, lr=1e-2)
    for step in range(1, 4):
        gradients = [torch.randn_like(W) for W in leaves]
        for leaf, g in zip(leaves, gradients, strict=True):
            leaf.grad = g.clone()
        peer.step()
        training._move(gradients, step)
    for ours, leaf in zip(training.weights, leaves, strict=True):
        torch.testing.assert_close(ours, leaf.detach())


def test_weights_and_classes() -> None:
    """Rows of no weight teach nothing, constant columns do no harm, and a class that was not seen is never told."""
    X, z = exclusive_or(600)
    X[:, 3] = 7.0
    swapped = np.where(np.arange(600) < 300, 1 - z, z)
    weight = (np.arange(600) >= 300).astype(float)
    ours, ends = train_networks(X, [task(swapped, weight=weight), task(2 * z)])
    assert (ours.predict(X[:300]) == z[:300]).mean() > 0.85
    assert set(ends.predict(X)) == {0, 2}
    assert np.isfinite(ours.predict(np.zeros((2, 8)))).all()
