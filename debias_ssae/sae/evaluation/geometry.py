"""Measures of the decoder: how close latents lie, what two SAEs share, which latents hedge between two concepts."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from debias_ssae.sae.evaluation import Record, record
from debias_ssae.sae.model import SparseAutoencoder

Floats = NDArray[np.floating[Any]]
SHARED_COSINE = 0.7
"""Two latents of different SAEs are the same from this cosine on (Leask et al. 2025, arXiv 2502.04878)."""
MOST_MATCHED = 4096
"""The Hungarian method takes cubic time; beyond this many latents the most active ones are matched."""


def decoder_cosines(W_dec: Floats, alive: NDArray[np.bool_]) -> list[Record]:
    """Return quantiles of each live latent's largest cosine with another one; ``W_dec`` [d_sae, d_in]."""
    rows = unit(np.asarray(W_dec, np.float32)[alive])
    largest = np.concatenate(
        [_nearest_but_self(rows, start) for start in range(0, len(rows), 1024)] or [np.zeros(0)]
    )
    return [
        record(
            "nearest_cosine", float(np.quantile(largest, q)) if len(rows) > 1 else float("nan"), quantile=q
        )
        for q in (0.1, 0.5, 0.9)
    ]


def _nearest_but_self(rows: Floats, start: int) -> Floats:
    cosines = rows[start : start + 1024] @ rows.T
    cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -1.0
    return np.asarray(cosines.max(axis=1))


def pw_mcc(a: Floats, b: Floats, rates: tuple[Floats, Floats] | None = None) -> float:
    """Return the pairwise dictionary mean correlation coefficient: the mean absolute cosine of the decoder rows of
    two SAEs, matched one to one (Song et al. 2025, arXiv 2505.20254). Of SAEs with more than MOST_MATCHED latents the
    most active ones by ``rates`` are matched (without rates, the first ones)."""
    from scipy.optimize import linear_sum_assignment

    rows = []
    for i, W in enumerate((a, b)):
        order = np.arange(len(W)) if rates is None else np.argsort(-rates[i], kind="stable")
        rows.append(unit(np.asarray(W, np.float32)[order[:MOST_MATCHED]]))
    cosines = np.abs(rows[0] @ rows[1].T)
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())


@torch.no_grad()
def stitching(sae: SparseAutoencoder, reference: SparseAutoencoder, x: torch.Tensor) -> list[Record]:
    """Return what ``sae`` holds that ``reference`` does not, on ``x`` [n, d_in] (Leask et al. 2025, arXiv
    2502.04878).

    A latent whose decoder row has a cosine of at least SHARED_COSINE with one of the reference is shared, the others
    are new. New latents are worth something when the reference's reconstruction becomes better with their share
    added; adding shared ones only repeats what is there.
    """
    cosines = unit(sae.W_dec.cpu().numpy()) @ unit(reference.W_dec.cpu().numpy()).T
    shared = torch.from_numpy(cosines.max(axis=1) >= SHARED_COSINE)
    x = x.to(sae.W_enc)
    latents, x_hat = sae.encode(x), reference(x.to(reference.W_enc)).x_hat
    spread = (x - x.mean(0)).double().square().sum()
    found: list[Record] = [
        record("shared_latents", float(shared.double().mean()), cosine=SHARED_COSINE),
        record("reference_fvu", float((x - x_hat).double().square().sum() / spread)),
    ]
    for name, chosen in (("new", ~shared), ("shared", shared)):
        stitched = x_hat + (latents * chosen.to(latents)) @ sae.W_dec
        fvu = float((x - stitched).double().square().sum() / spread)
        found.append(record(f"reference_fvu_with_{name}_latents", fvu))
    return found


def hedging(W_dec: Floats, probe_a: Floats, probe_b: Floats) -> list[Record]:
    """Return the cosines of the best latent of either of two concepts with the probes of both [d_in].

    A narrow SAE merges correlated concepts into one latent (feature hedging, Chanin et al. 2025, arXiv 2505.11756):
    its cosine with the other concept's probe is then larger than the probes' own.
    """
    rows, (a, b) = unit(np.asarray(W_dec)), (unit(np.asarray(p)[None])[0] for p in (probe_a, probe_b))
    found: list[Record] = [record("probe_cosine", float(a @ b))]
    for name, own, other in (("a", a, b), ("b", b, a)):
        best = int(np.abs(rows @ own).argmax())
        sign = float(np.sign(rows[best] @ own))
        for which, probe in (("own", own), ("other", other)):
            value = sign * float(rows[best] @ probe)
            found.append(record(f"hedging_{which}", value, concept=name, latent=best))
    return found


def unit(rows: Floats) -> Floats:
    """Return the rows divided by their lengths."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
