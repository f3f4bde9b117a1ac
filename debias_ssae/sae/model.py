"""One module for every architecture of sparse autoencoder."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError


class SAEOutput(NamedTuple):
    """What ``forward`` returns."""

    x_hat: Tensor
    """The reconstruction [n, d_in]."""
    latents: Tensor
    """The activations of the latents [n, d_sae]."""


class SparseAutoencoder(nn.Module):
    """``x_hat = latents @ W_dec + b_dec`` with ``latents = activation((x - b_dec) @ W_enc.T + b_enc)``.

    ``W_enc`` and ``W_dec`` are [d_sae, d_in]: one contiguous row a latent. The activation function is relu
    (relu), the k largest of a row (topk; Gao et al. 2024, arXiv 2406.04093), or the value where it is above
    ``threshold`` (batchtopk, arXiv 2412.06410, and matryoshka, arXiv 2503.17547: one number for all latents,
    learnt in training; jumprelu, arXiv 2407.14435: one number a latent). Latents are never below zero.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    threshold: Tensor

    def __init__(self, cfg: SAEConfig, *, random_state: int | None = None) -> None:
        """Random unit-norm decoder rows, encoder rows equal to them, biases and threshold zero."""
        super().__init__()
        check_memory(cfg)
        self.cfg = cfg
        dtype = torch.float64 if cfg.dtype == "float64" else torch.float32
        rows = torch.randn(cfg.d_sae, cfg.d_in, generator=seeded(random_state), dtype=torch.float64)
        rows = (rows / rows.norm(dim=1, keepdim=True)).to(dtype)
        self.W_enc = nn.Parameter(rows.clone())
        self.W_dec = nn.Parameter(rows)
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in, dtype=dtype))
        shape = (cfg.d_sae,) if cfg.architecture == "jumprelu" else ()
        self.register_buffer("threshold", torch.zeros(shape, dtype=dtype))

    @property
    def is_elementwise(self) -> bool:
        """Whether a latent's activation needs only its own row of the weights (all but topk)."""
        return self.cfg.architecture != "topk"

    def pre_acts(self, x: Tensor) -> Tensor:
        """Return ``(x - b_dec) @ W_enc.T + b_enc`` [n, d_sae]; raises InputError when x is not [n, d_in]."""
        if x.dim() != 2 or x.shape[1] != self.cfg.d_in:
            raise InputError(
                f"This SAE reads rows of width {self.cfg.d_in}, got shape {tuple(x.shape)}: "
                "give the activations of the hookpoint that it was trained on, as [n, d_in]"
            )
        return torch.addmm(self.b_enc, x.to(self.W_enc.dtype) - self.b_dec, self.W_enc.T)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents [n, d_sae] of rows ``x`` [n, d_in]."""
        pre = self.pre_acts(x)
        if self.is_elementwise:
            return self._activate(pre)
        values, indices = pre.topk(self.cfg.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())

    def decode(self, latents: Tensor) -> Tensor:
        """Return ``latents @ W_dec + b_dec`` [n, d_in]."""
        return torch.addmm(self.b_dec, latents, self.W_dec)

    def forward(self, x: Tensor) -> SAEOutput:
        """Return the reconstruction of ``x`` [n, d_in] and its latents."""
        latents = self.encode(x)
        return SAEOutput(self.decode(latents), latents)

    def slice(self, latents: Tensor) -> "SparseAutoencoder":
        """Return a smaller SAE of the chosen latents, in the given order; b_dec and threshold stay.

        Elementwise architectures give the same activations as before; topk becomes a competition among the
        chosen ones. A sliced matryoshka SAE is a batchtopk one.
        """
        latents = torch.as_tensor(latents, dtype=torch.long, device=self.W_enc.device)
        n_latents = len(latents) if latents.dim() == 1 else 0
        if n_latents == 0 or not 0 <= int(latents.min()) <= int(latents.max()) < self.cfg.d_sae:
            raise InputError(
                f"latents must be at least one number from 0 to {self.cfg.d_sae - 1}, in a vector"
            )
        architecture = "batchtopk" if self.cfg.architecture == "matryoshka" else self.cfg.architecture
        cfg = self.cfg.updated(
            d_sae=n_latents, k=min(self.cfg.k, n_latents), architecture=architecture, widths=()
        )
        small = SparseAutoencoder(cfg, random_state=0).to(self.W_enc.device)
        with torch.no_grad():
            small.W_enc.copy_(self.W_enc[latents])
            small.W_dec.copy_(self.W_dec[latents])
            small.b_enc.copy_(self.b_enc[latents])
            small.b_dec.copy_(self.b_dec)
            small.threshold.copy_(self.threshold if self.threshold.dim() == 0 else self.threshold[latents])
        return small

    def fingerprint(self) -> str:
        """Return the sha256 of the configuration and the weights' bytes."""
        digest = hashlib.sha256(json.dumps(self.cfg.model_dump(mode="json"), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _activate(self, pre: Tensor) -> Tensor:
        if self.cfg.architecture == "relu":
            return pre.relu()
        if self.threshold.dim() == 0 and pre.device.type == "cpu":  # one pass instead of two
            return torch.nn.functional.threshold(pre, max(0.0, float(self.threshold)), 0.0)
        return torch.where(pre > self.threshold.clamp(min=0), pre, 0.0)


def seeded(random_state: int | None) -> torch.Generator:
    """Return a generator that starts from ``random_state``; None starts it anywhere."""
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
        return generator
    return generator.manual_seed(int(random_state))


def check_memory(cfg: SAEConfig, copies: int = 1) -> None:
    """Raise InputError where ``copies`` of an SAE's matrices are more than the memory of this machine."""
    needed = 2 * copies * cfg.d_in * cfg.d_sae * (8 if cfg.dtype == "float64" else 4)
    there = _memory()
    if there is not None and needed > there:
        raise InputError(
            f"d_sae={cfg.d_sae} on rows of width {cfg.d_in} needs {needed / 2**30:,.0f} GiB, this machine has "
            f"{there / 2**30:,.0f} GiB: give fewer latents"
        )


def _memory() -> int | None:
    """Bytes of memory that this machine or this container has, where the system says."""
    found = []
    with suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found, default=None)


def unwritten(W_dec: Tensor) -> Tensor:
    """Return the columns [m] that no row of ``W_dec`` [d_sae, d_in] writes."""
    return (W_dec == 0).all(0).nonzero().squeeze(1)


def nested_widths(cfg: SAEConfig) -> list[int]:
    """Return the nested widths of a matryoshka SAE, or d_sae alone."""
    if cfg.architecture != "matryoshka":
        return [cfg.d_sae]
    return list(cfg.widths) or sorted({max(1, cfg.d_sae // part) for part in (8, 4, 2, 1)})


def fvu(x: Tensor, x_hat: Tensor) -> float:
    """Return the fraction of variance unexplained, ``|x - x_hat|^2 / |x - mean(x)|^2``, over rows [n, d].

    0 is perfect, 1 is as bad as the mean row. Computed in float64. Raises InputError on unequal shapes or
    when the rows do not vary.
    """
    if x.shape != x_hat.shape or x.dim() != 2:
        raise InputError(f"Expected two matrices of one shape, got {tuple(x.shape)} and {tuple(x_hat.shape)}")
    x = x.double()
    variance = (x - x.mean(0)).square().sum()
    if not variance > 0:
        raise InputError(f"FVU is undefined: the {len(x)} rows do not vary; give at least two different rows")
    return float((x - x_hat.detach().double()).square().sum() / variance)
