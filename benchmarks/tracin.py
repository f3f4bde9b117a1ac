"""Which texts pull a sparse autoencoder where the seeds pull it: TracIn on the SAE's own loss.

TracIn (Pruthi et al. 2020, arXiv 2002.08484, eq. 1) scores a training example by the inner product of its
loss gradient with that of a test example. Here the test example is the mean of the seeds' rows, the loss is the
squared reconstruction error of one row, and both gradients are scaled to unit length (as LESS does,
arXiv 2402.04333), since the plain product is ruled by rows of large norm. The gradients of one row are products
of short vectors, so inner products and norms need no per-row gradient in memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
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


@torch.no_grad()
def _factors(sae: SparseAutoencoder, x: Tensor) -> _Factors:
    x = x.to(sae.W_enc.device, sae.W_enc.dtype)
    a = sae.encode(x)
    e = 2 * (sae.decode(a) - x)
    s = (e @ sae.W_dec.T) * (a > 0)
    return _Factors(a, e, s, x - sae.b_dec, e - s @ sae.W_enc)
