"""A debiaser without an encoder: an SAE of a matrix's rows, and what is to be removed of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debias_ssae.ablation import LatentEraser, inverse, spread
from debias_ssae.activations import Activations
from debias_ssae.debiaser.finding import find_from_labels
from debias_ssae.debiaser.part import Part
from debias_ssae.debiaser.residual import LABELLED_RESIDUALS, residual_kind
from debias_ssae.debiaser.settings import config_of, read_sae, seed_of
from debias_ssae.debiaser.specialise import learn_from_rows

MATRIX = "matrix"
"""The one part of such a debiaser."""


@dataclass(frozen=True)
class Units:
    """What the SAE takes for zero and for one in each column ``[d]``, float64.

    An SAE sees what is large: with columns of unequal spread, as some models give, it would write noise into the
    small ones. A general SAE that is given knows the rows as they are.
    """

    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, *, as_they_are: bool = False) -> "Units":
        """Mean and spread of the columns of ``X [n, d]``, or 0 and 1."""
        if as_they_are:
            return cls(np.zeros(X.shape[1]), np.ones(X.shape[1]))
        return cls(X.mean(axis=0, dtype=np.float64), spread(X))

    def rows(self, X: np.ndarray) -> Tensor:
        """Rows for the SAE, float32."""
        return torch.from_numpy(((X - self.center) * inverse(self.scale)).astype(np.float32))

    def edit(self, X: np.ndarray, eraser: LatentEraser) -> np.ndarray:
        """The edited rows ``[n, d]``; what is not edited keeps all its digits."""
        rows = self.rows(X)
        edited: np.ndarray = X + ((eraser(rows) - rows).numpy() * self.scale).astype(X.dtype)
        return edited


def learn_from_matrix(debiaser: Any, x: Tensor, y: np.ndarray | None, z: Any) -> Part:
    """Train the SAE on rows ``x [n, d]`` and find what to remove; nothing without labels ``z``."""
    config, options = config_of(debiaser), {"random_state": seed_of(debiaser)}
    general = read_sae(debiaser.sae, MATRIX)
    learned = learn_from_rows(x, config, general=general, progress=debiaser.verbose, **options)
    if z is None:
        return Part.cut(learned, None, debiaser.alpha)
    n, kind = len(x), residual_kind(debiaser.residual, None, changes_anything=True)
    blank = torch.zeros(n, 2, dtype=torch.long)
    found = find_from_labels(
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
    return Part.cut(learned, found, debiaser.alpha)
