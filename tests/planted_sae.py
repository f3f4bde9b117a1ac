"""Small planted data and SAEs, and the files of another library."""

import json
from pathlib import Path

import torch
from torch import Tensor

from debias_ssae.core.config import SAEConfig
from debias_ssae.sae import SparseAutoencoder
from debias_ssae.sae.model import fvu, nested_widths

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


@torch.no_grad()
def save_dictionary_learning(sae: SparseAutoencoder, folder: Path) -> None:
    """Write ``ae.pt`` and ``config.json`` as the library dictionary_learning does."""
    folder.mkdir(exist_ok=True)
    architecture, k = sae.cfg.architecture, torch.tensor(sae.cfg.k, dtype=torch.int32)
    if architecture in ("jumprelu", "matryoshka"):
        tensors = {"W_enc": sae.W_enc.T, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
        if architecture == "jumprelu":
            # this class reads its input as it is, without taking b_dec off
            tensors |= {"b_enc": sae.b_enc - sae.W_enc @ sae.b_dec, "threshold": sae.threshold}
        else:
            sizes = torch.diff(torch.tensor(nested_widths(sae.cfg)), prepend=torch.zeros(1, dtype=torch.long))
            tensors |= {"k": k, "threshold": sae.threshold, "group_sizes": sizes}
    else:
        tensors = {"encoder.weight": sae.W_enc, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
        if architecture == "relu":
            tensors |= {"bias": sae.b_dec}
        else:
            threshold = sae.threshold if architecture == "batchtopk" else torch.tensor(-1.0)
            tensors |= {"b_dec": sae.b_dec, "k": k, "threshold": threshold}
    torch.save(
        {name: value.detach().contiguous().clone() for name, value in tensors.items()}, folder / "ae.pt"
    )
    classes = {"topk": "AutoEncoderTopK", "batchtopk": "BatchTopKSAE"}
    config = {"trainer": {"dict_class": classes.get(architecture)}}
    (folder / "config.json").write_text(json.dumps(config))
