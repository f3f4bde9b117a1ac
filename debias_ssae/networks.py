"""Small networks trained many at once, each on rows of its own of one matrix: probes need dozens of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

N_HIDDEN = 64
BATCH_ROWS = 64
SEEN_ROWS = 40_000
"""Rows that a network sees in all, but between 8 and 100 times each."""
_LEARNING_RATE = 3e-3
_DECAY = 1.0 / BATCH_ROWS
_BETAS = (0.9, 0.999)


class Problem(NamedTuple):
    """What one classifier is to learn and to tell."""

    train: NDArray[np.int64]
    """Rows of the matrix to learn from ``[n]``."""
    z: NDArray[np.int64]
    """Their classes, from 0 on ``[n]``."""
    test: NDArray[np.int64]
    """Rows whose classes are to be told."""
    seed: int


def n_epochs(n: int) -> int:
    """How often each of ``n`` rows is seen: a number rather than early stopping, for a tenth of few rows is too
    little to stop on.
    """
    return int(np.clip(SEEN_ROWS // n, 8, 100))


def predict_by_networks(X: NDArray[np.float32], problems: Sequence[Problem]) -> list[NDArray[np.int64]]:
    """Train a network for each problem and return the classes it tells its test rows to be.

    ``X`` is float32 ``[n_rows, d]``. One hidden layer of 64 rectified units on columns standardised by the training
    rows; cross-entropy in which every class weighs the same, Adam, L2 penalty 1 (in scikit-learn's units), batches of
    64. All problems take a step in the same products; one with fewer rows than others stops before them.
    """
    import torch

    with torch.no_grad():
        by_length = sorted(range(len(problems)), key=lambda i: -_n_steps(problems[i]))
        training = _Training(torch.from_numpy(X), [problems[i] for i in by_length])
        training.run()
        told = training.predict()
    return [told[by_length.index(i)] for i in range(len(problems))]


def _n_steps(problem: Problem) -> int:
    return -(-n_epochs(len(problem.z)) * len(problem.z) // BATCH_ROWS)


class _Training:
    """All networks, those that train longest first."""

    def __init__(self, X: "Tensor", problems: Sequence[Problem]) -> None:
        import torch

        self.X, self.problems = X, problems
        self.steps = np.array([_n_steps(problem) for problem in problems])
        self.n_classes = 1 + max(int(problem.z.max()) for problem in problems)
        spreads = [torch.std_mean(X[torch.from_numpy(p.train)], dim=0, correction=0) for p in problems]
        self.mean = torch.stack([mean for _, mean in spreads])[:, None]
        scale = torch.stack([std for std, _ in spreads])[:, None]
        self.scale = torch.where(scale > 10 * torch.finfo(torch.float32).eps * self.mean.abs(), scale, 1.0)
        shapes = ((X.shape[1], N_HIDDEN), (1, N_HIDDEN), (N_HIDDEN, self.n_classes), (1, self.n_classes))
        self.weights = [torch.empty(len(problems), *shape) for shape in shapes]
        self.rngs = [torch.Generator().manual_seed(problem.seed) for problem in problems]
        for i, rng in enumerate(self.rngs):
            for W, b in (self.weights[:2], self.weights[2:]):
                bound = (6.0 / sum(W.shape[1:])) ** 0.5
                W[i].uniform_(-bound, bound, generator=rng)
                b[i].uniform_(-bound, bound, generator=rng)
        self.moments = [(torch.zeros_like(W), torch.zeros_like(W)) for W in self.weights]

    def run(self) -> None:
        """Do every step of every network."""
        rows, z, weight = self._seen()
        for step in range(int(self.steps[0])):
            at = slice(int((self.steps > step).sum())), slice(BATCH_ROWS * step, BATCH_ROWS * (step + 1))
            gradients = self._gradients(self._standardised(rows[at], at[0]), z[at], weight[at])
            self._move(gradients, step + 1)

    def predict(self) -> list[NDArray[np.int64]]:
        """The class of each problem's test rows."""
        import torch

        told = []
        for i, problem in enumerate(self.problems):
            x = self._standardised(torch.from_numpy(problem.test)[None], slice(i, i + 1))
            W1, b1, W2, b2 = (W[i : i + 1] for W in self.weights)
            logits = torch.baddbmm(b2, torch.baddbmm(b1, x, W1).relu_(), W2)
            # a class that the training rows lack is never told
            logits[..., np.setdiff1d(np.arange(self.n_classes), problem.z)] = -torch.inf
            told.append(logits[0].argmax(1).numpy())
        return told

    def _seen(self) -> tuple["Tensor", "Tensor", "Tensor"]:
        """Rows, classes and weights ``[n_problems, n_seen]`` in the order they are seen: each time in another,
        without a rest at the end; what stands behind a network's last step is not used.
        """
        import torch

        shape = len(self.problems), BATCH_ROWS * int(self.steps[0])
        rows, z = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
        weight = torch.zeros(shape)
        for i, (problem, rng) in enumerate(zip(self.problems, self.rngs, strict=True)):
            n, seen = len(problem.z), BATCH_ROWS * int(self.steps[i])
            order = torch.cat([torch.randperm(n, generator=rng) for _ in range(-(-seen // n))])[:seen]
            codes = torch.from_numpy(problem.z)
            worth = n / torch.bincount(codes, minlength=self.n_classes).clamp(min=1)
            rows[i, :seen] = torch.from_numpy(problem.train)[order]
            z[i, :seen] = codes[order]
            weight[i, :seen] = worth[codes[order]]
        return rows, z, weight

    def _standardised(self, rows: "Tensor", networks: slice) -> "Tensor":
        return (self.X[rows] - self.mean[networks]).div_(self.scale[networks])

    def _gradients(self, x: "Tensor", z: "Tensor", weight: "Tensor") -> list["Tensor"]:
        """Of the loss of rows ``x`` [a, rows, d] with classes and weights [a, rows], for the first ``a`` networks."""
        import torch

        W1, b1, W2, b2 = (W[: len(x)] for W in self.weights)
        hidden = torch.baddbmm(b1, x, W1).relu_()
        slope = torch.baddbmm(b2, hidden, W2).softmax(2)
        slope.scatter_add_(2, z[..., None], slope.new_full((*z.shape, 1), -1.0))
        slope.mul_((weight / weight.sum(1, keepdim=True))[..., None])
        inner = torch.bmm(slope, W2.transpose(1, 2)).mul_(hidden > 0)
        return [
            torch.baddbmm(W1, x.transpose(1, 2), inner, beta=_DECAY),
            inner.sum(1, keepdim=True),
            torch.baddbmm(W2, hidden.transpose(1, 2), slope, beta=_DECAY),
            slope.sum(1, keepdim=True),
        ]

    def _move(self, gradients: list["Tensor"], step: int) -> None:
        """Adam's step number ``step``, from 1 on."""
        first, second = _BETAS
        for W, (m, v), g in zip(self.weights, self.moments, gradients, strict=True):
            W, m, v = W[: len(g)], m[: len(g)], v[: len(g)]
            m.lerp_(g, 1 - first)
            v.mul_(second).addcmul_(g, g, value=1 - second)
            spread = v.sqrt().div_((1 - second**step) ** 0.5).add_(1e-8)
            W.addcdiv_(m, spread, value=-_LEARNING_RATE / (1 - first**step))
