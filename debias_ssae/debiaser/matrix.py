"""A debiaser without an encoder: an SAE of a matrix's rows, and what is to be removed of them."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from debias_ssae.debiaser.checks import check_saes
from debias_ssae.debiaser.intervention import Intervention
from debias_ssae.debiaser.residual import LABELLED_RESIDUALS, residual_kind
from debias_ssae.debiaser.settings import config_of, read_sae, seed_of
from debias_ssae.debiaser.specialise import learn_from_rows
from debias_ssae.erase import LatentEraser, inverse, spread
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.select import select_from_labels

MATRIX = "matrix"
"""The one part of such a debiaser."""
_BLOCK = 16_384
"""Rows edited at a time; bounds their copies in double precision."""
LOST = 1e-6
"""Share of a column's mean below which its spread is lost in float32."""


def learn_from_matrix(debiaser: Any, X: np.ndarray, y: np.ndarray | None, z: Any) -> Intervention:
    """Train the SAE on rows ``X [n, d]`` and find what to remove; nothing without labels ``z``.

    An SAE sees what is large: with columns of unequal spread, as some models give, it would write noise into the
    small ones. So it learns in units of the columns' spread, which are folded into its weights. A general SAE that is
    given knows the rows as they are.
    """
    check_saes(debiaser.sae, [MATRIX])
    config, options = config_of(debiaser), {"random_state": seed_of(debiaser)}
    general = read_sae(debiaser.sae, MATRIX)
    center, scale = _units(X) if general is None else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
    x = torch.from_numpy(((X - center) * inverse(scale)).astype(np.float32))
    learned = learn_from_rows(x, config, general=general, progress=debiaser.verbose, **options)
    for_rows = replace(learned, sae=_folded(learned.sae, center, scale))
    if z is None:
        return Intervention.cut(for_rows, None, debiaser.alpha)
    n, kind = len(x), residual_kind(debiaser.residual, None, changes_anything=True)
    blank = torch.zeros(n, 2, dtype=torch.long)
    found = select_from_labels(
        learned.sae,
        Activations(x, torch.arange(n), torch.zeros(n, dtype=torch.long), blank, n),
        y,
        z,
        config.selection,
        keep=debiaser.edit == "keep",
        n_latents=debiaser.n_latents,
        residual=LABELLED_RESIDUALS.get(kind or ""),
        **options,
    )
    return Intervention.cut(for_rows, found, debiaser.alpha)


def edit_matrix(eraser: LatentEraser, X: np.ndarray) -> np.ndarray:
    """Return the edited rows of ``X [n, d]``, in its dtype; what is not edited keeps all its digits.

    In double precision: in float32 a row's change would depend, by a digit, on how many rows are beside it.
    """
    edited, eraser = X.copy(), eraser.double()
    for start in range(0, len(X), _BLOCK):
        rows = torch.from_numpy(X[start : start + _BLOCK].astype(np.float64, order="C"))
        edited[start : start + _BLOCK] += (eraser(rows) - rows).numpy().astype(X.dtype)
    return edited


def _units(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the columns of ``X [n, d]``; no spread where float32 cannot tell it beside the mean."""
    center, scale = X.mean(axis=0, dtype=np.float64), spread(X)
    return center, np.where(scale > LOST * np.abs(center), scale, 0.0)


def _folded(sae: SparseAutoencoder, center: np.ndarray, scale: np.ndarray) -> SparseAutoencoder:
    """The SAE for rows as they come, given one for ``(rows - center) / scale``."""
    folded, to_units = copy.deepcopy(sae), torch.from_numpy(inverse(scale))
    middle, unit = torch.from_numpy(center), torch.from_numpy(scale)
    with torch.no_grad():
        folded.W_enc.copy_(sae.W_enc.double() * to_units)
        folded.W_dec.copy_(sae.W_dec.double() * unit)
        folded.b_dec.copy_(sae.b_dec.double() * unit + middle)
    return folded
