"""The latent eraser: subtract what the chosen latents write, keep everything else (the SAE's error too)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import fingerprint
from debias_ssae.sae.model import SparseAutoencoder, unwritten


@dataclass(frozen=True)
class LatentEraser:
    """``x -> x - alpha * f @ W_dec`` over the chosen latents; call it on activations ``[n, d_in]``.

    ``f`` are the chosen latents' activations. The error of the SAE stays in ``x`` (SHIFT, Marks et al. 2024,
    section 4), so that no latents, or ``alpha = 0``, return the very tensor that came in.
    """

    sae: SparseAutoencoder
    """Only the chosen latents where the SAE is elementwise; the whole SAE for topk, whose latents compete."""
    latents: tuple[int, ...]
    """Ids in the SAE that the eraser was made from."""
    alpha: float = 1.0

    @classmethod
    def from_sae(
        cls, sae: SparseAutoencoder, latents: Sequence[int] | np.ndarray, *, alpha: float = 1.0
    ) -> "LatentEraser":
        """Make the eraser of ``latents`` of ``sae``. Raises InputError for ids outside the SAE or named twice."""
        chosen = tuple(int(i) for i in latents)
        if chosen and not (min(chosen) >= 0 and max(chosen) < sae.cfg.d_sae):
            raise InputError(
                f"latents reach from {min(chosen)} to {max(chosen)}, but the SAE has {sae.cfg.d_sae}"
            )
        if len(set(chosen)) < len(chosen):
            raise InputError("the list of latents names one of them twice")
        index = torch.tensor(chosen, dtype=torch.long)
        # a copy, for the eraser goes where its activations are, and must not take the caller's SAE along
        part = sae.slice(index) if chosen and sae.is_elementwise else copy.deepcopy(sae)
        return cls(part, chosen, float(alpha))

    def __call__(self, x: Tensor) -> Tensor:
        """Return edited activations; ``x`` itself where nothing is to be removed."""
        if not self.changes_anything:
            return x
        sae = self.sae if self.sae.W_enc.device == x.device else self.sae.to(x.device)
        with torch.set_grad_enabled(x.requires_grad):  # attribution follows a gradient through the edit
            rows = x.to(sae.W_enc.dtype)
            edited = torch.addmm(rows, self._activations(rows), self._rows(sae.W_dec), alpha=-self.alpha).to(
                x.dtype
            )
            if self._unwritten:
                edited[:, self._unwritten] = x[:, self._unwritten]
            return edited

    def double(self) -> "LatentEraser":
        """The same eraser with its weights in double precision."""
        return replace(self, sae=copy.deepcopy(self.sae).double())

    def _activations(self, x: Tensor) -> Tensor:
        """The chosen latents ``[n, m]``."""
        sae = self.sae
        if not sae.is_elementwise:
            return sae.encode(x)[:, list(self.latents)]
        if x.dim() != 2 or x.shape[1] != sae.cfg.d_in:
            return sae.encode(x)  # which says what is wrong
        pre = torch.addmm(self._bias.to(x.device), x, sae.W_enc.T)
        if self._floor is not None:
            return torch.threshold_(pre, self._floor, 0.0)
        return torch.where(pre > sae.threshold, pre, 0.0).relu_()

    @cached_property
    def _unwritten(self) -> list[int]:
        """Columns that the SAE does not write: they stay bit-identical."""
        return unwritten(self._rows(self.sae.W_dec.detach())).tolist()

    @cached_property
    def _bias(self) -> Tensor:
        """``b_enc`` with what taking ``b_dec`` off the rows does to it, so that no row is ever copied."""
        with torch.no_grad():
            return self.sae.b_enc - self.sae.W_enc @ self.sae.b_dec

    @cached_property
    def _floor(self) -> float | None:
        """The one value that an activation must exceed; None where each latent has its own."""
        if self.sae.cfg.architecture == "relu":
            return 0.0
        return max(0.0, float(self.sae.threshold)) if self.sae.threshold.dim() == 0 else None

    def _rows(self, weights: Tensor) -> Tensor:
        return weights if self.sae.is_elementwise else weights[list(self.latents)]

    @property
    def changes_anything(self) -> bool:
        """False where the eraser returns its input."""
        return bool(self.latents) and self.alpha != 0

    @property
    def fingerprint(self) -> str:
        """A name for this edit in caches: same weights and settings, same string."""
        return fingerprint(self.sae.fingerprint(), self.latents, self.alpha)
