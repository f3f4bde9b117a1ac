"""How well a sparse autoencoder reconstructs, and how sparse it is."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError

if TYPE_CHECKING:
    from debias_ssae.sae.model import SparseAutoencoder


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


@torch.no_grad()
def evaluate(
    sae: "SparseAutoencoder", batches: Tensor | Iterable[Tensor], *, batch_size: int = 8192
) -> dict[str, float]:
    """Return fvu, l0 and dead_fraction of inference over all rows, in one pass without keeping the latents.

    ``batches`` is one matrix [n, d_in] or several. Raises InputError when there are no rows.
    """
    chunks = batches.split(batch_size) if isinstance(batches, Tensor) else batches
    rows, active = 0, 0
    error, total, square = 0.0, torch.zeros(sae.cfg.d_in, dtype=torch.float64), 0.0
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for x in chunks:
        x = x.to(sae.W_enc)
        latents = sae.encode(x)
        difference = (x - sae.decode(latents)).double()
        rows += len(x)
        on = latents != 0
        active += int(on.sum())
        fired |= on.any(0).cpu()
        error += float(difference.square().sum())
        total += x.double().sum(0).cpu()
        square += float(x.double().square().sum())
    if rows == 0:
        raise InputError("There are no rows to evaluate on")
    variance = square - float(total.square().sum()) / rows
    return {
        "fvu": error / variance if variance > 0 else float("nan"),
        "l0": active / rows,
        "dead_fraction": 1 - float(fired.double().mean()),
    }
