"""The classifiers on top: the same kinds, and the same rules for their settings, for every method."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from debias_ssae.core.stats.heads import FIXED_C, GRID, best_c, choose_c, fit_head
from debias_ssae.core.stats.networks import Network, Task, train_networks


@dataclass(frozen=True)
class Head:
    """A fitted classifier and how it was set."""

    model: Any
    C: float | None
    C_rule: str
    """cv: average accuracy on its own data; group: worst-group accuracy on the group-annotated set; fixed; own: the
    method's."""
    head_model: str = "logistic"

    def predict(self, X: Any) -> np.ndarray:
        """Return class labels ``(n,)``."""
        return np.asarray(self.model.predict(X))


class Validation(NamedTuple):
    """Texts with group labels, to choose C and for nothing else."""

    X: np.ndarray
    y: np.ndarray
    z: np.ndarray


def fit_heads(
    X: np.ndarray, y: np.ndarray, *, validation: Validation | None = None, random_state: int = 0
) -> list[Head]:
    """Fit standardised heads: a logistic regression with each rule for C, and a small network.

    C by 5-fold accuracy on ``X, y`` alone ("cv"), C = 0.1 ("fixed"), and, with ``validation``, C by worst-group
    accuracy there ("group"). Ties go to the smaller C.
    """
    models = {C: fit_head(X, y, C=C) for C in GRID}
    chosen = {"cv": choose_c(X, y, random_state=random_state), "fixed": FIXED_C}
    if validation is not None:
        chosen["group"] = best_c(lambda C: _worst_group(models[C], validation))
    heads = [Head(models[C], C, rule) for rule, C in chosen.items()]
    return [*heads, Head(SmallNetwork.fit(X, y, random_state), None, "fixed", "mlp")]


def _worst_group(model: Any, validation: Validation) -> float:
    X, y, z = validation
    right = model.predict(X) == y
    return float(min(right[(y == c) & (z == g)].mean() for c, g in set(zip(y, z, strict=True))))


@dataclass(frozen=True)
class SmallNetwork:
    """A network with one hidden layer."""

    network: Network
    classes: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, y: np.ndarray, random_state: int) -> "SmallNetwork":
        """Train on all samples."""
        classes, codes = np.unique(y, return_inverse=True)
        task = Task(np.arange(len(codes)), codes, np.ones(len(codes)), random_state)
        (network,) = train_networks(np.asarray(X, np.float32), [task], learning_rate=1e-3)
        return cls(network, classes)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return class labels ``(n,)``."""
        return np.asarray(self.classes[self.network.predict(X)])
