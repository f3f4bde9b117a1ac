"""Small planted data and SAEs for the tests of this folder."""

import torch
from torch import Tensor

from debias_ssae.core.config import SAEConfig
from debias_ssae.sae import SparseAutoencoder
from debias_ssae.sae.model import fvu

ARCHITECTURES = ("relu", "topk", "batchtopk", "jumprelu", "matryoshka")


def planted_rows(n: int, *, d_in: int = 16, n_directions: int = 32, k: int = 3, seed: int = 0) -> Tensor:
    """Return rows that are sums of k of n_directions unit vectors, with an offset."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_directions, d_in, generator=torch.Generator().manual_seed(99))
    directions /= directions.norm(dim=1, keepdim=True)
    chosen = torch.rand(n, n_directions, generator=generator).argsort(1)[:, :k]
    strengths = 1 + torch.rand(n, k, generator=generator)
    codes = torch.zeros(n, n_directions).scatter(1, chosen, strengths)
    return codes @ directions + 5.0


def random_sae(
    architecture: str, *, d_in: int = 16, d_sae: int = 48, k: int = 4, **changes: object
) -> SparseAutoencoder:
    """Return an SAE whose every tensor is random, the threshold such that about k of d_sae fire."""
    cfg = SAEConfig(d_in=d_in, d_sae=d_sae, k=k, architecture=architecture, **changes)
    sae = SparseAutoencoder(cfg, random_state=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))
        if architecture in ("batchtopk", "matryoshka"):
            sae.threshold.fill_(0.7)
        elif architecture == "jumprelu":
            sae.threshold.copy_(0.5 + torch.rand(d_sae, generator=generator))
    return sae


@torch.no_grad()
def evaluate(sae: SparseAutoencoder, x: Tensor) -> dict[str, float]:
    """Return fvu, l0 and dead_fraction of inference on ``x`` [n, d_in]."""
    active = (latents := sae.encode(x)) != 0
    return {
        "fvu": fvu(x, sae.decode(latents)),
        "l0": float(active.sum(1).double().mean()),
        "dead_fraction": 1 - float(active.any(0).double().mean()),
    }
