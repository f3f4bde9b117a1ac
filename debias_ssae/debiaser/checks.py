"""What ``SSAEDebiaser`` refuses, with the cure."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.core.config import DebiasConfig
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.residual import LABELLED_RESIDUALS
from debias_ssae.debiaser.settings import config_of
from debias_ssae.selection import encode_labels
from debias_ssae.text.concept import Concept


def check_params(debiaser: Any) -> None:
    """Raise InputError for a constructor parameter that cannot be."""
    if debiaser.n_latents != "auto" and (
        isinstance(debiaser.n_latents, bool)
        or not isinstance(debiaser.n_latents, int | np.integer)
        or debiaser.n_latents < 0
    ):
        raise InputError(f'n_latents is {debiaser.n_latents!r}; expected "auto" or a whole number, 0 or more')
    alpha = debiaser.alpha
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= float(alpha) < math.inf:
        raise InputError(f"alpha is {alpha!r}; expected a number, 0 or more: 1 removes all")
    if debiaser.config is not None and not isinstance(debiaser.config, DebiasConfig):
        raise InputError(
            f"config is {type(debiaser.config).__name__}; expected a DebiasConfig (load_config reads a file)"
        )
    if debiaser.residual not in (None, "auto", "counterfactual", *LABELLED_RESIDUALS):
        raise InputError(
            f'residual is {debiaser.residual!r}; expected "auto", None, "counterfactual", "mean_difference" or "leace"'
        )
    if debiaser.edit not in ("remove", "keep"):
        raise InputError(f'edit is {debiaser.edit!r}; expected "remove" or "keep"')
    if debiaser.edit == "keep" and debiaser.concept is not None:
        raise InputError('edit="keep" is told by labels what carries the target; it takes no concept=')
    if debiaser.edit == "keep" and debiaser.n_latents == 0:
        raise InputError('edit="keep" with n_latents=0 would keep nothing; give "auto" or 1 or more')
    if debiaser.edit == "keep" and debiaser.encoder is not None and debiaser.hookpoint != "final":
        raise InputError(
            f'edit="keep" leaves too little for the blocks after it; use hookpoint="final", '
            f"got {debiaser.hookpoint!r}"
        )
    _check_hookpoint(debiaser.hookpoint, debiaser.sae)
    if hasattr(debiaser.corpus, "__next__"):
        raise InputError(
            "corpus is a one-shot iterator; pass a list or a path, since it is read more than once"
        )
    if debiaser.encoder is None and debiaser.concept is not None:
        raise InputError(
            "concept= swaps words and needs texts; name an encoder=, or pass sensitive_features to fit"
        )
    if debiaser.encoder is None and debiaser.residual == "counterfactual":
        raise InputError(
            'residual="counterfactual" swaps words and needs texts; name an encoder=, or use "leace" or None'
        )


def _check_hookpoint(hookpoint: Any, sae: Any) -> None:
    if not isinstance(hookpoint, str | Sequence):
        raise InputError(f"hookpoint is {hookpoint!r}; expected a name or several")
    if not len(hookpoint):
        raise InputError('hookpoint is empty, so nothing would be edited; name at least one, or "auto"')
    several = hookpoint == "auto" or (not isinstance(hookpoint, str) and len(hookpoint) > 1)
    if several and sae is not None and not isinstance(sae, Mapping):
        raise InputError(
            "one sae is given for several hookpoints, but an SAE reads the rows of one; give a mapping of hookpoint "
            "to sae, or name the hookpoint that it was trained at"
        )


def check_saes(sae: Any, hookpoints: Sequence[str]) -> None:
    """Raise InputError for an SAE of a hookpoint that is not edited: it would be ignored."""
    strange = sorted(set(sae) - set(hookpoints)) if isinstance(sae, Mapping) else []
    if strange:
        raise InputError(f"sae names {', '.join(map(repr, strange))}, but edited are {', '.join(hookpoints)}")


def check_regime(debiaser: Any, concept: Concept | None, y: np.ndarray | None, z: Any) -> None:
    """Raise InputError where nothing says what to remove, or where the attribute cannot be told from the target.

    In a matrix labels may be missing altogether.
    """
    residual, keep = debiaser.residual, debiaser.edit == "keep"
    _check_residual(residual, concept, z)
    if concept is not None:
        if residual in LABELLED_RESIDUALS:
            encode_labels(z, y, len(z))
        return
    if z is None:
        if debiaser.encoder is None and not keep:
            return
        raise InputError(
            "neither sensitive_features nor a concept was given, so there is nothing to remove; pass "
            'sensitive_features to fit, or set concept= (for example "gender")'
        )
    if keep and y is None:
        raise InputError('edit="keep" keeps what carries the target; pass y to fit')
    codes, _, y = encode_labels(z, y, len(z))
    if y is not None and _same_partition(y[codes >= 0], codes[codes >= 0]):
        raise InputError(
            "sensitive_features equals y on every labelled row, so the attribute cannot be told from the target; "
            "give a labelled set that holds both values in every class, or name a concept="
        )
    if not keep:
        _check_cells(codes, y, config_of(debiaser).selection.min_cell)


def _check_residual(residual: str | None, concept: Concept | None, z: Any) -> None:
    """Raise InputError where a residual eraser has nothing to learn from."""
    if residual in LABELLED_RESIDUALS and z is None:
        raise InputError(
            f'residual="{residual}" needs sensitive_features in fit; without labels use "counterfactual" or None'
        )
    if residual == "counterfactual" and concept is None:
        raise InputError(
            'residual="counterfactual" needs concept=; with labels use "mean_difference" or "leace"'
        )
    if residual == "counterfactual" and concept is not None and not concept.pairs:
        raise InputError(
            f'residual="counterfactual" swaps words, but the concept {concept.name!r} has seed texts alone; '
            'give it pairs, or use residual=None, or "leace" with labels'
        )


def _check_cells(codes: np.ndarray, y: np.ndarray | None, min_cell: int) -> None:
    """Raise InputError, before anything is trained, where no class shows a difference between attribute values."""
    known = codes >= 0
    cells = pd.crosstab(np.zeros(known.sum()) if y is None else y[known], codes[known]).to_numpy()
    rest = cells.sum(axis=1, keepdims=True) - cells
    if not ((cells >= min_cell) & (rest >= min_cell)).any():
        raise InputError(
            f"no class of the target holds two attribute values with {min_cell} rows each, so the attribute cannot be "
            "told from the target; give a labelled set that holds more of both, or set selection.min_cell lower"
        )


def check_target(y: np.ndarray) -> None:
    """Raise InputError for classes that cannot be compared."""
    try:
        np.unique(y[~pd.isna(y)])
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in y})
        raise InputError(f"y mixes {', '.join(kinds)}; give all its classes one type") from error


def check_lengths(n: int, y: Any, z: Any) -> None:
    """Raise InputError where labels and rows differ in number."""
    for name, values in (("y", y), ("sensitive_features", z)):
        try:
            differs = values is not None and len(values) != n
        except TypeError as error:
            raise InputError(
                f"{name} is {type(values).__name__}; expected an array with a value for each of the {n} rows"
            ) from error
        if differs:
            raise InputError(f"X has {n} rows, but {name} has {len(values)}; they must agree")


def _same_partition(y: np.ndarray, z: np.ndarray) -> bool:
    """Whether the attribute's value follows from the class alone, and the class from the value."""
    pairs = {(str(a), str(b)) for a, b in zip(y, z, strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 1
