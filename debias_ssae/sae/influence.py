"""Which texts pull a sparse autoencoder where the seeds pull it: TracIn on the SAE's own loss.

TracIn (Pruthi et al. 2020, arXiv 2002.08484, eq. 1) scores a training example by the inner product of its
loss gradient with that of a test example. Here the test example is the mean of the seeds' rows, the loss is the
squared reconstruction error of one row, and both gradients are scaled to unit length (as LESS does,
arXiv 2402.04333), since the plain product is ruled by rows of large norm. The gradients of one row are products
of short vectors, so inner products and norms need no per-row gradient in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel, harvest
from debias_ssae.sae.fast import Weights
from debias_ssae.sae.model import SparseAutoencoder

_ROWS = 8192


@dataclass(frozen=True)
class _Factors:
    """The factors of each row's gradient: dW_dec = a e', dW_enc = s c', db_enc = s, db_dec = g."""

    a: Tensor
    e: Tensor
    s: Tensor
    c: Tensor
    g: Tensor

    def norms(self) -> Tensor:
        """Length of each row's gradient over all four parameters."""
        dec = self.a.square().sum(1) * self.e.square().sum(1)
        enc = self.s.square().sum(1) * (self.c.square().sum(1) + 1)
        return (dec + enc + self.g.square().sum(1)).sqrt().clamp(min=1e-30)


def seed_gradient(sae: SparseAutoencoder, x: Tensor) -> Weights:
    """Return the mean of the unit gradients of the rows ``x`` [n, d_in]; raises InputError for no rows."""
    if len(x) == 0:
        raise InputError("The seeds have no rows: give seed texts with at least one token")
    total = [torch.zeros_like(w) for w in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)]
    for rows in x.split(_ROWS):
        f = _factors(sae, rows)
        scale = (1 / f.norms() / len(x))[:, None]
        for sums, part in zip(
            total,
            ((f.s * scale).T @ f.c, (f.s * scale).sum(0), (f.a * scale).T @ f.e, (f.g * scale).sum(0)),
            strict=True,
        ):
            sums += part
    return Weights(*total)


def row_influence(sae: SparseAutoencoder, gradient: Weights, x: Tensor) -> Tensor:
    """Return the cosine-scaled influence [n] of each row of ``x`` [n, d_in] on the seeds' loss."""
    out = []
    for rows in x.split(_ROWS):
        f = _factors(sae, rows)
        dots = (f.a * (f.e @ gradient.W_dec.T)).sum(1) + (
            f.s * (f.c @ gradient.W_enc.T + gradient.b_enc)
        ).sum(1)
        out.append((dots + f.g @ gradient.b_dec) / f.norms())
    return torch.cat(out) if out else torch.zeros(0)


def tracin_scorer(
    model: LanguageModel,
    sae: SparseAutoencoder,
    seeds: Sequence[str],
    *,
    hookpoint: str = "embeddings",
    max_length: int | None = 128,
    token_budget: int = 2048,
    progress: bool = False,
) -> Callable[[list[str]], NDArray[np.float32]]:
    """Return a function from texts to scores [n_texts]: the mean influence of a text's rows on the seeds.

    A text without tokens scores -1, the lowest. Raises InputError when the SAE does not fit the model.
    """
    if sae.cfg.d_in != model.d_model:
        raise InputError(f"The SAE reads rows of width {sae.cfg.d_in}, {model.name} gives {model.d_model}")
    options = {"max_length": max_length, "token_budget": token_budget}
    gradient = seed_gradient(sae, harvest(model, seeds, hookpoint, **options).x)  # type: ignore[arg-type]

    def scores(texts: list[str]) -> NDArray[np.float32]:
        out = np.full(len(texts), -1.0, np.float32)
        for start in tqdm(range(0, len(texts), 512), desc="influence", disable=not progress):
            found = harvest(model, texts[start : start + 512], hookpoint, **options)  # type: ignore[arg-type]
            sums = torch.zeros(found.n_texts).index_add_(
                0, found.text_ids, row_influence(sae, gradient, found.x)
            )
            counts = torch.bincount(found.text_ids, minlength=found.n_texts)
            mean = torch.where(counts > 0, sums / counts.clamp(min=1), -1.0)
            out[start : start + found.n_texts] = mean.numpy()
        return out

    return scores


@torch.no_grad()
def _factors(sae: SparseAutoencoder, x: Tensor) -> _Factors:
    x = x.to(sae.W_enc.device, sae.W_enc.dtype)
    a = sae.encode(x)
    e = 2 * (sae.decode(a) - x)
    s = (e @ sae.W_dec.T) * (a > 0)
    return _Factors(a, e, s, x - sae.b_dec, e - s @ sae.W_enc)
