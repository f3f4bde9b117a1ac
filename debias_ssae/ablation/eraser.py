"""The latent eraser: subtract what the chosen latents write, keep everything else (the SAE's error too)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from debias_ssae.exceptions import InputError
from debias_ssae.sae.model import SparseAutoencoder

Mode = Literal["zero", "mean", "project"]


@dataclass(frozen=True)
class LatentEraser:
    """``x -> x - alpha * (f - target) @ W_dec`` over the chosen latents; call it on rows ``[n, d_in]``.

    ``f`` are the chosen latents' activations. The error of the SAE stays in ``x`` (SHIFT, Marks et al. 2024,
    section 4), so that no latents, or ``alpha = 0``, return the very tensor that came in.

    Modes: ``zero`` (target 0), ``mean`` (target: the latent's mean over training rows) and ``project`` (remove
    the span of the encoder rows instead; S&P Top-K, arXiv 2509.10809).
    """

    sae: SparseAutoencoder
    """Only the chosen latents where the SAE is elementwise; the whole SAE for topk, whose latents compete."""
    latents: tuple[int, ...]
    """Ids in the SAE they were cut from."""
    alpha: float = 1.0
    mode: Mode = "zero"
    means: Tensor | None = None
    """Mean activation of each chosen latent ``[m]`` (mode "mean")."""

    @classmethod
    def cut(
        cls,
        sae: SparseAutoencoder,
        latents: Sequence[int],
        *,
        alpha: float = 1.0,
        mode: Mode = "zero",
        means: Tensor | None = None,
    ) -> "LatentEraser":
        """Cut an eraser from ``sae``. ``means`` are the mean activations of all latents ``[d_sae]``.

        Raises InputError for ids outside the SAE, an unknown mode, or mode "mean" without means.
        """
        chosen = tuple(int(i) for i in latents)
        if chosen and not (min(chosen) >= 0 and max(chosen) < sae.cfg.d_sae):
            raise InputError(
                f"latents reach from {min(chosen)} to {max(chosen)}, but the SAE has {sae.cfg.d_sae}"
            )
        if len(set(chosen)) < len(chosen):
            raise InputError("the list of latents names one of them twice")
        if mode not in get_args(Mode):
            raise InputError(f"mode is {mode!r}; expected one of {', '.join(get_args(Mode))}")
        if mode == "mean" and means is None:
            raise InputError('mode="mean" needs the mean activation of each latent; pass means=')
        index = torch.tensor(chosen, dtype=torch.long)
        part = sae.slice(index) if chosen and sae.is_elementwise else sae
        kept_means = means[index].clone() if means is not None else None
        return cls(part, chosen, float(alpha), mode, kept_means)

    def __call__(self, x: Tensor) -> Tensor:
        """Return edited rows; ``x`` itself where nothing is to be removed."""
        if not self.changes_anything:
            return x
        with torch.no_grad():
            return x - self.alpha * self._written(x).to(x.dtype)

    def _written(self, x: Tensor) -> Tensor:
        """What is to be subtracted at full strength ``[n, d_in]``."""
        sae = self.sae.to(x.device)
        if self.mode == "project":
            basis = torch.linalg.qr(self._rows(sae.W_enc).T.double()).Q.to(x.dtype)
            return (x @ basis) @ basis.T
        f = sae.encode(x) if sae.is_elementwise else sae.encode(x)[:, list(self.latents)]
        if self.mode == "mean" and self.means is not None:
            f = f - self.means.to(f)
        return f @ self._rows(sae.W_dec)

    def _rows(self, weights: Tensor) -> Tensor:
        return weights if self.sae.is_elementwise else weights[list(self.latents)]

    @property
    def changes_anything(self) -> bool:
        """False where the eraser returns its input."""
        return bool(self.latents) and self.alpha != 0

    @property
    def fingerprint(self) -> str:
        """A name for this edit in caches: same weights and settings, same string."""
        means = None if self.means is None else self.means.tolist()
        settings = json.dumps([self.latents, self.alpha, self.mode, means])
        return hashlib.sha256((self.sae.fingerprint() + settings).encode()).hexdigest()
