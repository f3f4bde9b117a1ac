"""Who trains the head, who describes the attribute, who is tested."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from debias_ssae.core.errors import InputError
from debias_ssae.retrieval.duplicates import fold

LEAST_HEAD = 5
"""Texts of a class that train the head, at least: as many as there are folds to choose its C in."""
Setting = Literal["confounded", "natural"]


class Split(NamedTuple):
    """Row numbers of disjoint sets."""

    head: np.ndarray
    """Trains the classifier; in setting "confounded" only the majority cell of each class."""
    attribute: np.ndarray
    """Set A, balanced over class x attribute: labels of the labelled regime, training set of the oracle."""
    test: np.ndarray
    """Balanced over class x attribute."""
    rest: np.ndarray = np.array([], dtype=int)
    """What is left over, at most as much of a cell as the head may have; for the large oracle alone."""


def majority_values(y: np.ndarray, z: np.ndarray) -> dict[str, str]:
    """For each class, the attribute value that is most over-represented in it."""
    share = pd.crosstab(y, z, normalize="index") / pd.Series(z).value_counts(normalize=True)
    return {str(c): str(g) for c, g in share.idxmax(axis=1).items()}


def make_split(
    y: np.ndarray,
    z: np.ndarray,
    *,
    setting: Setting = "confounded",
    n_test: int = 120,
    n_attribute: int = 120,
    max_head: int = 2000,
    random_state: int = 0,
) -> Split:
    """Draw the three sets; ``n_test`` and ``n_attribute`` texts from every cell, ``max_head`` from a head's cell.

    In setting "natural" the head's set is a plain sample of the rest, as large as the confounded one.
    Raises InputError for a cell that is too small, naming it, for a class with too few texts left for the head, and,
    in setting "confounded", when all classes share their majority value: then nothing is confounded.
    """
    rng = np.random.default_rng(random_state)
    majority = majority_values(y, z)
    if setting == "confounded" and len(set(majority.values())) < 2:
        raise InputError(
            f"every class has the same majority attribute value {next(iter(majority.values()))!r}"
        )
    head, attribute, test, rest = [], [], [], []
    for c in np.unique(y):
        for g in np.unique(z):
            rows = rng.permutation(np.flatnonzero((y == c) & (z == g)))
            if len(rows) < n_test + n_attribute:
                raise InputError(
                    f"the cell {c} x {g} holds {len(rows)} texts, fewer than the {n_test} for test and "
                    f"{n_attribute} for the attribute set; lower --n-test and --n-attribute, or leave out the rows "
                    "of a value or class that is so rare"
                )
            test.append(rows[:n_test])
            attribute.append(rows[n_test : n_test + n_attribute])
            rest.append(rows[n_test + n_attribute :])
            if majority[c] == g:
                head.append(rest[-1][:max_head])
    chosen = np.concatenate(head)
    if setting == "natural":
        chosen = rng.permutation(np.concatenate(rest))[: len(chosen)]
    for c in np.unique(y):
        n = int((y[chosen] == c).sum())
        if n < LEAST_HEAD:
            raise InputError(
                f"{n} texts of class {c} are left to train the head, fewer than {LEAST_HEAD}; lower --n-test and "
                "--n-attribute, or leave out the class"
            )
    unused = np.concatenate([np.setdiff1d(rows, chosen)[:max_head] for rows in rest])
    parts = (chosen, np.concatenate(attribute), np.concatenate(test), unused)
    return Split(*(np.sort(part) for part in parts))


def drop_duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """Drop repeated texts, compared as ``fold`` compares texts with those held out; the first stays."""
    return table[~table["text"].map(fold).duplicated()].reset_index(drop=True)
