"""Where a training starts, and what its configuration means on this machine and for this architecture."""

import torch
from torch import Tensor

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.device import has_fast_bf16
from debias_ssae.sae.gradients import Weights
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.sae.selection import active_at, where
from debias_ssae.sae.sparse_ops import combine


def multiplies_bfloat16(cfg: SAEConfig, train: TrainConfig, device: torch.device) -> bool:
    """Return whether latents are proposed from a bfloat16 product; only top-k architectures can be."""
    if cfg.architecture in ("relu", "jumprelu") or cfg.dtype == "float64" or train.matmul_dtype == "float32":
        return False
    if train.matmul_dtype == "bfloat16":
        return True
    return has_fast_bf16(device.type)


def sparsity(cfg: SAEConfig, train: TrainConfig) -> float:
    """Return the weight of the penalty on latents, with its default for the architecture."""
    if train.sparsity is not None:
        return train.sparsity
    return {"relu": 0.1, "jumprelu": 1.0}.get(cfg.architecture, 0.0)


def unit_decoder(sae: SparseAutoencoder, scale: float) -> Weights:
    """Return the weights for rows multiplied by ``scale``, each decoder row at norm 1; the same function."""
    norm = sae.W_dec.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
    return Weights(
        W_enc=sae.W_enc.detach() * norm,
        b_enc=sae.b_enc.detach() * norm.squeeze(1) * scale,
        W_dec=sae.W_dec.detach() / norm,
        b_dec=sae.b_dec.detach() * scale,
    )


def centre(rows: Tensor, how: str) -> Tensor:
    """Return where b_dec starts, [d_in]: the mean of the rows, their geometric median, or zero."""
    if how == "zero":
        return torch.zeros_like(rows[0])
    point = rows.mean(0)
    if how == "mean":
        return point
    for _ in range(100):
        # Weiszfeld's iteration: the mean weighted with inverse distances
        inverse = 1.0 / (rows - point).norm(dim=1, keepdim=True).clamp_min(1e-12)
        moved = (rows * inverse).sum(0) / inverse.sum()
        if float((moved - point).norm()) <= 1e-6 * float(point.norm() + 1e-12):
            return moved
        point = moved
    return point


def log_threshold(
    weights: Weights, rows: Tensor, scale: float, cfg: SAEConfig, init: SparseAutoencoder | None
) -> Tensor:
    """Return jumprelu's first log threshold [d_sae]: init's, else one at which k latents a row are active.

    ``rows`` [n, d_in] and ``weights`` are in the units of training, ``scale`` times those of ``init``.
    """
    if init is not None:
        norm = init.W_dec.detach().norm(dim=1).to(weights.b_enc)
        threshold = init.threshold.detach().to(weights.b_enc) * norm * scale
        return threshold.clamp_min(1e-3).log()
    sample = rows[:512]
    pre = torch.addmm(weights.b_enc, sample - weights.b_dec, weights.W_enc.T).flatten()
    n_active = min(len(sample) * cfg.k, len(pre))
    return pre.kthvalue(len(pre) - n_active + 1).values.clamp_min(1e-3).log().repeat(cfg.d_sae)


def reconstruction(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """Return ``sae.decode(sae.encode(x)) - b_dec`` [n, d_in] of an elementwise SAE, by its active latents."""
    with torch.no_grad():
        pre = sae.pre_acts(x)
        threshold = sae.threshold if sae.cfg.architecture != "relu" else torch.zeros_like(sae.threshold)
        flat = where(pre > threshold.clamp_min(0.0))
        return combine(active_at(flat, *pre.shape), pre.flatten()[flat], sae.W_dec)


def joined(frozen: SparseAutoencoder, added: SparseAutoencoder) -> SparseAutoencoder:
    """Return one jumprelu SAE of the frozen latents, unchanged, and then the added ones."""
    cfg = added.cfg.updated(
        d_sae=frozen.cfg.d_sae + added.cfg.d_sae,
        architecture="jumprelu",
        k=frozen.cfg.k + added.cfg.k,
        widths=(),
    )
    sae = SparseAutoencoder(cfg, random_state=0)
    with torch.no_grad():
        for name in ("W_enc", "b_enc", "W_dec"):
            value = torch.cat([getattr(part, name).cpu() for part in (frozen, added)])
            getattr(sae, name).copy_(value)
        sae.b_dec.copy_(frozen.b_dec)
        sae.threshold.copy_(torch.cat([_threshold_vector(part).cpu() for part in (frozen, added)]))
    return sae


def _threshold_vector(sae: SparseAutoencoder) -> Tensor:
    if sae.cfg.architecture == "relu":
        return torch.zeros_like(sae.b_enc.detach())
    return sae.threshold.expand(sae.cfg.d_sae)
