"""What a method gives in one seed: representations of the seed's texts, or predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from debias_ssae.benchmark.heads import Head, Training


class PairActivations(NamedTuple):
    """Representations of counterfactuals of test texts."""

    at: np.ndarray
    """Place of each counterfactual's text among the test texts."""
    X: np.ndarray


@dataclass(frozen=True)
class Rows:
    """Representations of a seed's texts ``[n, d]``, in the order of the split."""

    head: np.ndarray
    attribute: np.ndarray
    test: np.ndarray
    counterfactuals: Mapping[str, PairActivations] = field(default_factory=dict)
    """"listed": test texts swapped by the words of the run's concept; "unlisted": by its words that the method
    was not given."""
    seconds: float = 0.0
    """For the test texts."""
    plain: bool = False
    """The model as it is."""

    def map(self, edit: Callable[[np.ndarray], np.ndarray]) -> "Rows":
        """Edit all rows."""
        counterfactuals = {
            kind: PairActivations(at, edit(X)) if len(at) else PairActivations(at, X)
            for kind, (at, X) in self.counterfactuals.items()
        }
        head, attribute, test = (edit(X) for X in (self.head, self.attribute, self.test))
        return Rows(head, attribute, test, counterfactuals, self.seconds)


@dataclass(frozen=True)
class Variant:
    """One method in one seed and regime.

    Most methods change the representation, and the benchmark trains heads on ``rows.head``; some change what
    heads learn from and give ``training``; some are classifiers themselves and give ``heads``.
    """

    method: str
    regime: str
    rows: Rows
    training: Training | None = None
    heads: tuple[Head, ...] = ()
    needs_attribute: bool = False
    """Of the texts it is used on: such a method is shown and never ranked."""
    hookpoint: str | None = None
    d_sae: int | None = None
    n_latents: int | None = None
    draw: int = 0
    n_parameters: int = 0
    """Numbers (of a text filter: words) that the method keeps besides encoder and head."""
    seconds_fit: float = 0.0

    @property
    def seconds_transform(self) -> float:
        """For the test texts."""
        return self.rows.seconds
