"""The latent eraser: subtract what the chosen latents write, keep everything else (the SAE's error too)."""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import write_bytes
from debias_ssae.sae.model import SparseAutoencoder, unwritten

Mode = Literal["zero", "mean", "project", "keep"]
FORMAT = 1


@dataclass(frozen=True)
class LatentEraser:
    """``x -> x - alpha * (f - target) @ W_dec`` over the chosen latents; call it on rows ``[n, d_in]``.

    ``f`` are the chosen latents' activations. The error of the SAE stays in ``x`` (SHIFT, Marks et al. 2024,
    section 4), so that no latents, or ``alpha = 0``, return the very tensor that came in.

    Modes: ``zero`` (target 0), ``mean`` (target: the latent's mean over training rows), ``project`` (remove
    the span of the encoder rows instead; S&P Top-K, arXiv 2509.10809) and ``keep`` (the other way round: only what
    the chosen latents write is left, ``f @ W_dec + b_dec``, and the SAE's error goes with the other latents).
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
    def from_sae(
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
        if mode == "keep" and not chosen:
            raise InputError(
                'mode="keep" with no latents would leave nothing of the rows; name those to keep'
            )
        if mode == "mean" and means is None:
            raise InputError('mode="mean" needs the mean activation of each latent; pass means=')
        index = torch.tensor(chosen, dtype=torch.long)
        # a copy, for the eraser goes where its rows are, and must not take the caller's SAE along
        part = sae.slice(index) if chosen and sae.is_elementwise else copy.deepcopy(sae)
        kept_means = means[index].clone() if means is not None else None
        return cls(part, chosen, float(alpha), mode, kept_means)

    def __call__(self, x: Tensor) -> Tensor:
        """Return edited rows; ``x`` itself where nothing is to be removed."""
        if not self.changes_anything:
            return x
        sae = self.sae.to(x.device)
        with torch.no_grad():
            edited = self._edit(sae, x.to(sae.W_enc.dtype)).to(x.dtype)
            still = self._still.to(x.device)
            edited[:, still] = x[:, still]
            return edited

    def double(self) -> "LatentEraser":
        """The same eraser with its weights in double precision."""
        means = None if self.means is None else self.means.double()
        return replace(self, sae=copy.deepcopy(self.sae).double(), means=means)

    def _edit(self, sae: SparseAutoencoder, rows: Tensor) -> Tensor:
        if self.mode == "project":
            basis = torch.linalg.qr(self._rows(sae.W_enc).T.double()).Q.to(rows.dtype)
            return torch.addmm(rows, rows @ basis, basis.T, alpha=-self.alpha)
        f = self._activations(rows)
        if self.mode == "keep":
            return torch.lerp(rows, torch.addmm(sae.b_dec, f, self._rows(sae.W_dec)), self.alpha)
        if self.mode == "mean" and self.means is not None:
            f = f - self.means.to(f)
        return torch.addmm(rows, f, self._rows(sae.W_dec), alpha=-self.alpha)

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
    def _still(self) -> Tensor:
        """Columns that the SAE leaves alone: they stay as they are to the bit."""
        return unwritten(self._rows(self.sae.W_dec.detach()))

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

    def save(self, file: str | Path) -> None:
        """Write the eraser alone, without the SAE it was cut from, as one safetensors file; atomically.

        Raises OSError where ``file`` cannot be written.
        """
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.sae.state_dict().items()}
        if self.means is not None:
            tensors["means"] = self.means.cpu().contiguous()
        about = {"format": FORMAT, "cfg": self.sae.cfg.model_dump(mode="json"), "latents": self.latents}
        about |= {"alpha": self.alpha, "mode": self.mode}
        write_bytes(Path(file), save(tensors, {"latent_eraser": json.dumps(about)}))

    @classmethod
    def load(cls, file: str | Path) -> "LatentEraser":
        """Read what ``save`` wrote; raises InputError for a file that is missing, damaged or something else."""
        try:
            data = Path(file).read_bytes()
            tensors = load(data)
            # the header's length in 8 bytes, then the header: the reader above does not hand out its metadata
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about = json.loads(header["__metadata__"]["latent_eraser"])
            if about["format"] != FORMAT:
                raise InputError(f"{file} has format {about['format']}; this version reads {FORMAT}")
            sae = SparseAutoencoder(SAEConfig(**about["cfg"]), random_state=0)
            means = tensors.pop("means", None)
            sae.load_state_dict(tensors)
            return cls(sae, tuple(about["latents"]), about["alpha"], about["mode"], means)
        except (KeyError, TypeError, OSError, RuntimeError, SafetensorError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{file} is no latent eraser, or is damaged: {reason}") from error

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
