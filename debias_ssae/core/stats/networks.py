"""Small networks trained many at once, each on rows of its own of one matrix: probes need dozens of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

N_HIDDEN = 64
BATCH_ROWS = 64
SEEN_ROWS = 40_000
"""Rows that a network sees in all, but each 8 to 100 times: a number rather than early stopping, for a tenth of few
rows is too little to stop on, and so that small and large sets are trained alike."""
TOGETHER = 1 << 23
"""Weights of the first layer that are trained together at most; memory holds about eight times as many numbers."""
_BETAS = (0.9, 0.999)


class Task(NamedTuple):
    """What one network is to learn."""

    rows: NDArray[np.int64]
    """Of the matrix ``[n]``."""
    z: NDArray[np.int64]
    """Their classes, from 0 on ``[n]``."""
    weight: NDArray[np.floating]
    """Of each row in the loss ``[n]``."""
    seed: int


@dataclass(frozen=True)
class Network:
    """A trained classifier."""

    mean: "Tensor"
    scale: "Tensor"
    weights: list["Tensor"]
    """W1 [d, 64], b1 [1, 64], W2 [64, n_classes], b2 [1, n_classes]."""
    known: "Tensor"
    """The classes it has seen, sorted."""

    def predict(self, X: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the class ``[n]`` of each row of ``X`` [n, d]."""
        import torch

        W1, b1, W2, b2 = self.weights
        with torch.no_grad():
            x = (torch.from_numpy(np.array(X, np.float32)) - self.mean) / self.scale
            logits = torch.addmm(b2, torch.addmm(b1, x, W1).relu_(), W2)
            return self.known[logits[:, self.known].argmax(1)].numpy()


def train_networks(
    X: NDArray[np.float32], tasks: Sequence[Task], *, learning_rate: float = 3e-3
) -> list[Network]:
    """Train a network for each task on its rows of ``X`` [n_rows, d].

    One hidden layer of 64 rectified units on columns standardised by the task's rows; weighted cross-entropy, Adam,
    L2 penalty 1 (in the units of scikit-learn's MLPClassifier), batches of 64; fewer rows than that are seen again
    within a batch. Tasks take a step in the same products; one with fewer rows than others stops before them.
    """
    import torch

    order = sorted(range(len(tasks)), key=lambda i: -_n_steps(len(tasks[i].z)))
    x, size = torch.from_numpy(np.array(X, np.float32)), max(1, TOGETHER // (N_HIDDEN * X.shape[1]))
    trained: dict[int, Network] = {}
    with torch.no_grad():
        for start in range(0, len(order), size):
            some = order[start : start + size]
            networks = _Training(x, [tasks[i] for i in some], learning_rate).run()
            trained |= dict(zip(some, networks, strict=True))
    return [trained[i] for i in range(len(tasks))]


def _n_steps(n: int) -> int:
    times = int(np.clip(SEEN_ROWS // n, 8, 100))
    return times * -(-n // BATCH_ROWS)


class _Training:
    """All networks, those that train longest first."""

    def __init__(self, X: "Tensor", tasks: Sequence[Task], learning_rate: float) -> None:
        import torch

        self.X, self.tasks, self.learning_rate = X, tasks, learning_rate
        self.steps = np.array([_n_steps(len(task.z)) for task in tasks])
        spreads = [torch.std_mean(X[torch.from_numpy(t.rows)], dim=0, correction=0) for t in tasks]
        self.mean = torch.stack([mean for _, mean in spreads])[:, None]
        scale = torch.stack([std for std, _ in spreads])[:, None]
        tiny = 10 * torch.finfo(torch.float32).eps * self.mean.abs()
        self.scale = torch.where(scale > tiny, scale, 1.0)
        n_classes = 1 + max(int(task.z.max()) for task in tasks)
        shapes = ((X.shape[1], N_HIDDEN), (1, N_HIDDEN), (N_HIDDEN, n_classes), (1, n_classes))
        self.weights = [torch.empty(len(tasks), *shape) for shape in shapes]
        self.moments = [(torch.zeros_like(W), torch.zeros_like(W)) for W in self.weights]
        # the penalty counts against a batch, which fewer rows than that do not fill
        sizes = torch.tensor([min(BATCH_ROWS, len(task.z)) for task in tasks], dtype=torch.float32)
        self.decay = sizes.reciprocal()[:, None, None]
        self.rngs = [torch.Generator().manual_seed(task.seed) for task in tasks]
        for i, rng in enumerate(self.rngs):
            for W, b in (self.weights[:2], self.weights[2:]):
                bound = (6.0 / sum(W.shape[1:])) ** 0.5
                W[i].uniform_(-bound, bound, generator=rng)
                b[i].uniform_(-bound, bound, generator=rng)

    def run(self) -> list[Network]:
        """Do every step of every network."""
        import torch

        rows, z, weight = self._seen()
        for step in range(int(self.steps[0])):
            # what has done its steps stands behind the rest
            at = slice(int((self.steps > step).sum())), slice(BATCH_ROWS * step, BATCH_ROWS * (step + 1))
            x = (self.X[rows[at]] - self.mean[at[0]]).div_(self.scale[at[0]])
            self._move(self._gradients(x, z[at], weight[at]), step + 1)
        return [
            Network(
                self.mean[i],
                self.scale[i],
                [W[i].clone() for W in self.weights],
                torch.from_numpy(np.unique(task.z)),
            )
            for i, task in enumerate(self.tasks)
        ]

    def _seen(self) -> tuple["Tensor", "Tensor", "Tensor"]:
        """Rows, classes and weights ``[n_tasks, n_seen]`` in the order they are seen: each time in another, without a
        rest at the end; what stands behind a network's last step is not used.
        """
        import torch

        shape = len(self.tasks), BATCH_ROWS * int(self.steps[0])
        rows, z = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
        weight = torch.zeros(shape)
        for i, (task, rng) in enumerate(zip(self.tasks, self.rngs, strict=True)):
            n, seen = len(task.z), BATCH_ROWS * int(self.steps[i])
            order = torch.cat([torch.randperm(n, generator=rng) for _ in range(-(-seen // n))])[:seen]
            for into, values in ((rows, task.rows), (z, task.z), (weight, task.weight)):
                into[i, :seen] = torch.from_numpy(values)[order]
        return rows, z, weight

    def _gradients(self, x: "Tensor", z: "Tensor", weight: "Tensor") -> list["Tensor"]:
        """Of the loss of rows ``x`` [a, rows, d] with classes and weights [a, rows], for the first ``a`` networks."""
        import torch

        W1, b1, W2, b2 = (W[: len(x)] for W in self.weights)
        hidden = torch.baddbmm(b1, x, W1).relu_()
        slope = torch.baddbmm(b2, hidden, W2).softmax(2)
        slope.scatter_add_(2, z[..., None], slope.new_full((*z.shape, 1), -1.0))
        slope.mul_((weight / weight.sum(1, keepdim=True).clamp_min(1e-12))[..., None])
        inner = torch.bmm(slope, W2.transpose(1, 2)).mul_(hidden > 0)
        decay = self.decay[: len(x)]
        return [
            torch.bmm(x.transpose(1, 2), inner).addcmul_(W1, decay),
            inner.sum(1, keepdim=True),
            torch.bmm(hidden.transpose(1, 2), slope).addcmul_(W2, decay),
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
            W.addcdiv_(m, spread, value=-self.learning_rate / (1 - first**step))
