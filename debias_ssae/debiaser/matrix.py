"""A matrix of activations in place of an encoder: one hookpoint, no text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from debias_ssae.core.errors import InputError
from debias_ssae.erase import LatentEraser, inverse, spread
from debias_ssae.model import Activations

MATRIX = "matrix"
"""The one hookpoint of such a debiaser."""
_BLOCK = 16_384
"""Rows edited at a time; bounds their copies in double precision."""
LOST = 1e-6
"""Share of a column's mean below which its standard deviation is lost in float32."""


@dataclass(frozen=True)
class MatrixEncoder:
    """Rows as they are, and as an SAE sees them: in units of the columns' standard deviation.

    An SAE sees what is large: with columns of unequal size, as some models give, it would write noise into the small
    ones. A general SAE that is given knows the rows as they are.
    """

    center: np.ndarray
    """``[d]``"""
    scale: np.ndarray
    """``[d]``; 0 where a column is constant, which is neither read nor written."""

    @classmethod
    def of(cls, X: np.ndarray, *, as_they_are: bool = False) -> "MatrixEncoder":
        """The encoder for rows like ``X [n, d]``."""
        if as_they_are:
            return cls(np.zeros(X.shape[1]), np.ones(X.shape[1]))
        center, scale = X.mean(axis=0, dtype=np.float64), spread(X)
        # no standard deviation where float32 cannot tell it beside the mean
        return cls(center, np.where(scale > LOST * np.abs(center), scale, 0.0))

    @property
    def language_model(self) -> NoReturn:
        """There is none. Raises InputError."""
        raise InputError(
            "a concept swaps words and needs texts, but X is a matrix; name an encoder=, or give labels"
        )

    def rows(self, X: Any, hookpoint: str = MATRIX) -> Activations:
        """The rows as activations in the SAE's units, one a sample."""
        x = torch.from_numpy(((X - self.center) * inverse(self.scale)).astype(np.float32))
        n = len(x)
        return Activations(
            x, torch.arange(n), torch.zeros(n, dtype=torch.long), torch.zeros(n, 2, dtype=torch.long), n
        )

    def encode(self, X: Any, edits: Mapping[str, LatentEraser] | None = None) -> np.ndarray:
        """Return a copy of ``X [n, d]``, edited, in its dtype; what is not edited keeps all its digits.

        In double precision: in float32 a row's change would depend, by a digit, on how many rows are beside it.
        """
        edited = X.copy()
        for eraser in (edits or {}).values():
            double = eraser.double()
            for start in range(0, len(X), _BLOCK):
                rows = torch.from_numpy(
                    (X[start : start + _BLOCK].astype(np.float64, order="C") - self.center)
                    * inverse(self.scale)
                )
                change = (double(rows) - rows).numpy() * self.scale
                edited[start : start + _BLOCK] += change.astype(X.dtype)
        return edited
