"""The classifiers on top: the same kinds, and the same rules for their settings, for every method."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from debias_ssae.core.stats.networks import Network, Task, train_networks

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FIXED_C = 0.1


@dataclass(frozen=True)
class Head:
    """A fitted classifier, how it was set, and whether it asks for the attribute of what it predicts."""

    model: Any
    C: float | None
    C_rule: str
    """cv: average accuracy on its own data; group: worst-group accuracy on a part of A; fixed; own: the method's."""
    head_model: str = "logistic"
    needs_attribute: bool = False

    def predict(self, X: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
        """Return class labels ``(n,)``."""
        options = {"sensitive_features": z} if self.needs_attribute else {}
        return np.asarray(self.model.predict(X, **options))


class Training(NamedTuple):
    """What heads learn from."""

    X: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray | None = None
    chooses: np.ndarray | None = None
    """Rows (bool) that also choose C with group labels; they are left out while it is being chosen."""

    def part(self, rows: np.ndarray) -> "Training":
        """These rows alone."""
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return Training(self.X[rows], self.y[rows], weight)


class Validation(NamedTuple):
    """Texts with group labels, to choose C and for nothing else."""

    X: np.ndarray
    y: np.ndarray
    z: np.ndarray


def fit_heads(
    X: np.ndarray,
    y: np.ndarray,
    *,
    sample_weight: np.ndarray | None = None,
    chooses: np.ndarray | None = None,
    validation: Validation | None = None,
    random_state: int = 0,
) -> list[Head]:
    """Fit standardised heads: a logistic regression with each rule for C, and a small network.

    C by 5-fold accuracy on ``X, y`` alone ("cv"), C = 0.1 ("fixed"), and, with ``validation``, C by worst-group
    accuracy there ("group"). Ties go to the smaller C. ``chooses`` marks the rows of ``X`` that are also in
    ``validation``.
    """
    data = Training(X, y, sample_weight, chooses)
    with _quiet():
        models = {C: _fit(_logistic(C), data) for C in GRID}
        chosen = {
            "cv": choose_c(X, y, sample_weight=sample_weight, random_state=random_state),
            "fixed": FIXED_C,
        }
        if validation is not None:
            left = data if chooses is None else data.part(~chooses)
            chosen["group"] = _best(
                lambda C: _worst_group(models[C] if chooses is None else _fit(_logistic(C), left), validation)
            )
        heads = [Head(models[C], C, rule) for rule, C in chosen.items()]
        return [*heads, Head(SmallNetwork.fit(data, random_state), None, "fixed", "mlp")]


def choose_c(
    X: np.ndarray, y: np.ndarray, *, sample_weight: np.ndarray | None = None, random_state: int = 0
) -> float:
    """C of a standardised logistic regression by 5-fold accuracy on ``X, y``; ties go to the smaller C.

    Where rows have weights, they weigh in the accuracy too.
    """
    data = Training(X, y, sample_weight)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=random_state).split(X, y))

    def accuracy(C: float) -> float:
        scores = []
        for train, held in folds:
            right = _fit(_logistic(C), data.part(train)).predict(X[held]) == y[held]
            scores.append(np.average(right, weights=None if sample_weight is None else sample_weight[held]))
        return float(np.mean(scores))

    with _quiet():
        return _best(accuracy)


def fit_logistic(X: np.ndarray, y: np.ndarray, C: float) -> Any:
    """Fit one standardised logistic regression."""
    with _quiet():
        return _logistic(C).fit(X, y)


def _best(score: Callable[[float], float]) -> float:
    return GRID[int(np.argmax([score(C) for C in GRID]))]


def _worst_group(model: Any, validation: Validation) -> float:
    X, y, z = validation
    right = model.predict(X) == y
    return float(min(right[(y == c) & (z == g)].mean() for c, g in set(zip(y, z, strict=True))))


def _fit(model: Any, data: Training) -> Any:
    weight = (
        {} if data.sample_weight is None else {f"{model.steps[-1][0]}__sample_weight": data.sample_weight}
    )
    return model.fit(data.X, data.y, **weight)


def _logistic(C: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))


@dataclass(frozen=True)
class SmallNetwork:
    """A network with one hidden layer."""

    network: Network
    classes: np.ndarray

    @classmethod
    def fit(cls, data: Training, random_state: int) -> "SmallNetwork":
        """Train on all rows."""
        classes, codes = np.unique(data.y, return_inverse=True)
        weight = np.ones(len(codes)) if data.sample_weight is None else np.asarray(data.sample_weight)
        task = Task(np.arange(len(codes)), codes, weight, random_state)
        (network,) = train_networks(np.asarray(data.X, np.float32), [task], learning_rate=1e-3)
        return cls(network, classes)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class labels ``(n,)``."""
        return np.asarray(self.classes[self.network.predict(X)])


@contextmanager
def _quiet() -> Iterator[None]:
    # many small products: one thread is several times faster than a contended pool
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hardly penalised C on separable data
        yield
