"""One record for every way of scoring latents."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from debias_ssae.core.stats import holm
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder

CHUNK = 8192
"""Rows encoded at a time; bounds the dense latents to CHUNK x d_sae."""


@dataclass(frozen=True)
class LatentScores:
    """How much each latent carries the attribute. Arrays are ``[d_sae]`` unless said."""

    method: str
    score: np.ndarray
    """Ranking, >= 0; zero means: no evidence."""
    sign: np.ndarray
    """+1 where the latent rises with the second value of ``values``, -1 with the first, 0 neither; of more than two
    values, +1 where it rises with the one that it tells best from the others, -1 where it falls."""
    effect: np.ndarray
    """Signed effect inside each class ``[n_classes, d_sae]``, in the method's units; NaN for an ignored class."""
    firing_rate: np.ndarray
    """Share of rows on which the latent is active."""
    mass: np.ndarray
    """Mean activation over rows."""
    p_value: np.ndarray
    """Two-sided, Holm-corrected for the number of latents."""
    values: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    ignored: list[dict[str, Any]] = field(default_factory=list)
    """Cells (class x value) too small to be used, with their size."""

    def top(self, n: int) -> np.ndarray:
        """Return the ids of the ``n`` best latents, best first; fewer where fewer have any evidence."""
        order = np.argsort(-self.score, kind="stable")[:n]
        return order[self.score[order] > 0]


def corrected_p_values(z: np.ndarray) -> np.ndarray:
    """Return Holm-corrected two-sided p-values of the z statistics ``[d_sae]``."""
    return holm(2 * norm.sf(np.abs(np.nan_to_num(z))))


def pooled_latents(sae: SparseAutoencoder, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
    """Return each text's mean latents ``[n_texts, d_sae]`` and each latent's firing rate ``[d_sae]``.

    Rows are encoded in chunks: the dense latents of all rows never exist at once.
    """
    sums = torch.zeros(activations.n_texts, sae.cfg.d_sae)
    fired = torch.zeros(sae.cfg.d_sae)
    for start in range(0, len(activations.x), CHUNK):
        rows = slice(start, start + CHUNK)
        with torch.no_grad():
            f = sae.encode(activations.x[rows]).float().cpu()
        sums.index_add_(0, activations.text_ids[rows], f)
        fired += (f > 0).sum(0, dtype=torch.int32)
    sizes = torch.bincount(activations.text_ids, minlength=activations.n_texts).clamp(min=1)
    return (sums / sizes[:, None]).numpy(), (fired / max(len(activations.x), 1)).numpy()
