"""Measures over token activations: reconstruction, coverage of token types, activation counts, description length."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from debias_ssae.core.errors import InputError
from debias_ssae.sae.evaluation import Record, record
from debias_ssae.sae.model import SparseAutoencoder

Ints = NDArray[np.int64]
CHUNK = 2048
"""Token activations encoded at a time; bounds the dense latents to CHUNK x d_sae."""
COVERED_F1 = 0.5
"""A token type is covered when some latent finds its tokens with at least this F1. The SSAE paper does not state its
criterion (its figures 2 and 11)."""
MIN_TOKENS = 5
"""Token types with fewer tokens have no F1 to speak of."""
DENSE = 0.1
"""A latent that is active on more than this share of the tokens is dense."""
MOST_BITS = 16


class TokenPass(NamedTuple):
    """One pass of an SAE over token activations."""

    latents: csr_array
    """[n, d_sae]; what is not active is not stored."""
    error: NDArray[np.float64]
    """[n], ``|x - x_hat|^2``."""
    spread: NDArray[np.float64]
    """[n], ``|x - mean x|^2``."""
    cosine: NDArray[np.float64]
    """[n], of x and x_hat."""
    bias: float
    """``|mean(x - x_hat)|^2``."""


@torch.no_grad()
def encode_tokens(sae: SparseAutoencoder, x: torch.Tensor) -> TokenPass:
    """Run inference over ``x`` [n, d_in]; the latents of all tokens never exist as a dense matrix.

    Raises InputError for fewer than two tokens.
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} tokens were given; at least two are needed")
    mean = x.double().mean(0)
    parts, errors, spreads, cosines = [], [], [], []
    residual = torch.zeros(x.shape[1], dtype=torch.float64)
    for part in x.split(CHUNK):
        rows = part.to(sae.W_enc)
        latents = sae.encode(rows)
        x_hat = sae.decode(latents)
        difference = (rows - x_hat).double().cpu()
        residual += difference.sum(0)
        parts.append(csr_array(latents.float().cpu().numpy()))
        errors.append(difference.square().sum(1))
        spreads.append((part.double().cpu() - mean).square().sum(1))
        cosines.append(torch.cosine_similarity(rows.double(), x_hat.double(), dim=1).cpu())
    error, spread, cosine = (torch.cat(values).numpy() for values in (errors, spreads, cosines))
    bias = float((residual / len(x)).square().sum())
    return TokenPass(csr_array(vstack(parts, format="csr")), error, spread, cosine, bias)


def frequency_deciles(token_ids: Ints, counts: Ints) -> Ints:
    """Return the decile [n] of each token by how frequent its type is, 0 the rarest.

    ``counts[id]`` is the frequency that orders the types. Each decile holds about a tenth of the tokens; all tokens
    of a type are in one.
    """
    types, inverse, here = np.unique(token_ids, return_inverse=True, return_counts=True)
    order = np.argsort(counts[types], kind="stable")
    middle = np.empty(len(types))
    middle[order] = np.cumsum(here[order]) - here[order] / 2
    deciles: Ints = np.minimum(10 * middle / len(token_ids), 9).astype(np.int64)[inverse]
    return deciles


def reconstruction(run: TokenPass, deciles: Ints | None = None) -> list[Record]:
    """Return FVU, explained variance, cosine, L0 and the shares of dead and dense latents; FVU, cosine and L0 for
    each of ``deciles`` [n] as well.

    Explained variance counts the residual about its mean, as SAEBench does; ``1 - fvu`` counts a constant error too.
    """
    l0 = np.diff(run.latents.indptr)
    rate = firing_rates(run.latents)
    spread = max(float(run.spread.mean()), 1e-30)
    found: list[Record] = [
        record("explained_variance", 1 - (float(run.error.mean()) - run.bias) / spread),
        record("dead_share", float((rate == 0).mean())),
        record("dense_share", float((rate > DENSE).mean())),
    ]
    groups: list[tuple[Record, NDArray[np.bool_]]] = [({}, np.ones(len(l0), bool))]
    if deciles is not None:
        groups += [({"decile": int(d)}, deciles == d) for d in np.unique(deciles)]
    for where, rows in groups:
        found += [
            record("fvu", float(run.error[rows].sum() / max(run.spread[rows].sum(), 1e-30)), **where),
            record("cosine", float(run.cosine[rows].mean()), **where),
            record("l0", float(l0[rows].mean()), **where),
            record("n_tokens", int(rows.sum()), **where),
        ]
    return found


def firing_rates(latents: csr_array) -> NDArray[np.float64]:
    """Return the share of tokens on which each latent is active [d_sae]."""
    counts = np.bincount(latents.indices, minlength=latents.shape[1])
    rates: NDArray[np.float64] = counts / latents.shape[0]
    return rates


def dense_latents(latents: csr_array, most: int = 20) -> Ints:
    """Return the ids of the latents that are active on more than DENSE of the tokens, most active first."""
    rate = firing_rates(latents)
    order = np.argsort(-rate, kind="stable")[:most]
    return order[rate[order] > DENSE]


def coverage(
    latents: csr_array, token_ids: Ints, counts: Ints, *, threshold: float = COVERED_F1
) -> list[Record]:
    """Return the share of token types that some latent stands for, by decile of the types' frequency (0: the rarest),
    cumulatively, and over the rarest 30%.

    A latent stands for a type when "the latent is active" finds the type's tokens with an F1 of at least
    ``threshold``. Types with fewer than MIN_TOKENS tokens are left out. The SSAE paper's figures 2, 6 and 11.
    """
    best, types = best_f1(latents, token_ids)
    if len(types) < 10:
        return []
    order = np.argsort(counts[types], kind="stable")
    covered = best[order] >= threshold
    found: list[Record] = [
        record("coverage", float(covered.mean()), n_types=len(types)),
        record("coverage_rarest_30", float(covered[: int(0.3 * len(types))].mean())),
        record("best_f1_rarest_30", float(best[order][: int(0.3 * len(types))].mean())),
    ]
    so_far = 0
    for decile, part in enumerate(np.array_split(covered, 10)):
        so_far += int(part.sum())
        share = so_far / max(int(covered.sum()), 1)
        found += [
            record("coverage", float(part.mean()), decile=decile),
            record("cumulative_coverage", share, decile=decile),
        ]
    return found


def best_f1(latents: csr_array, token_ids: Ints) -> tuple[NDArray[np.float64], Ints]:
    """Return, for each token type of at least MIN_TOKENS tokens, the best F1 of any latent in finding it; and the
    types."""
    all_types, inverse, sizes = np.unique(token_ids, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(sizes >= MIN_TOKENS)
    place = np.full(len(all_types), -1)
    place[kept] = np.arange(len(kept))
    rows = np.flatnonzero(place[inverse] >= 0)
    ones = np.ones(len(rows), np.float32)
    of_type = csr_array((ones, (place[inverse][rows], rows)), shape=(len(kept), len(token_ids)))
    active = csr_array(
        (np.ones(latents.nnz, np.float32), latents.indices, latents.indptr), shape=latents.shape
    )
    both = csr_array(of_type @ active)
    fired = np.bincount(latents.indices, minlength=latents.shape[1])
    both.data = 2 * both.data / (np.repeat(sizes[kept], np.diff(both.indptr)) + fired[both.indices])
    return both.max(axis=1).toarray().ravel().astype(np.float64), all_types[kept]


def error_by_rank(run: TokenPass, token_ids: Ints, counts: Ints) -> list[Record]:
    """Return mean, spread and largest normalised error (``|x - x_hat|^2`` over its mean spread) of the tokens whose
    type has the frequency rank 1-10, 11-100, ... (the SSAE paper's figure 3)."""
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    band = np.log10(np.maximum(rank[token_ids], 0) + 1).astype(int)
    error = run.error / max(float(run.spread.mean()), 1e-30)
    found: list[Record] = []
    for b in np.unique(band):
        inside, where = error[band == b], {"ranks": f"{10**b} to {10 ** (b + 1) - 1}"}
        for name, value in (("mean", inside.mean()), ("std", inside.std()), ("max", inside.max())):
            found.append(record(f"error_{name}_by_rank", float(value), **where))
    return found


def activation_counts(
    latents: csr_array, reference: csr_array | None = None, n_points: int = 20
) -> list[Record]:
    """Return how many tokens the latents of rank 1 ... d_sae are active on, at ``n_points`` ranks (the SSAE paper's
    figure 7); with ``reference``, the same tokens in the SAE that this one was fine-tuned from, the mean log2 ratio
    of the two counts by decile of the reference's count (figures 17 and 18; 0: its rarest latents)."""
    counts = np.bincount(latents.indices, minlength=latents.shape[1])
    ordered = np.sort(counts)[::-1]
    ranks = np.unique(np.geomspace(1, len(counts), n_points).astype(int))
    found: list[Record] = [record("activation_count", int(ordered[r - 1]), rank=int(r)) for r in ranks]
    if reference is not None:
        if reference.shape != latents.shape:
            raise InputError(
                f"the counts are of {latents.shape} and {reference.shape}: give SAEs of one shape"
            )
        before = np.bincount(reference.indices, minlength=reference.shape[1])
        ratio = np.log2((counts + 1) / (before + 1))
        for decile, part in enumerate(np.array_split(np.argsort(before, kind="stable"), 10)):
            found.append(record("log2_count_ratio", float(ratio[part].mean()), decile=decile))
    return found


def description_length(
    sae: SparseAutoencoder, x: torch.Tensor, run: TokenPass, target: float, most: int = 8192
) -> list[Record]:
    """Return the bits a token that describe ``x`` [n, d_in] up to the FVU ``target``: the entropy of which latents
    are active, and for each active one the fewest bits of a uniform grid up to its largest value that keep the FVU
    (Ayonrinde et al. 2024, arXiv 2410.11179). NaN where the SAE does not reach the target at all.
    """
    n = min(most, len(x))
    latents, rows = run.latents[:n], x[:n].double().numpy()
    rate = np.clip(firing_rates(run.latents), 1e-30, 1 - 1e-16)
    entropy = -(rate * np.log2(rate) + (1 - rate) * np.log2(1 - rate))
    l0 = latents.nnz / n
    W, b = (t.detach().double().cpu().numpy() for t in (sae.W_dec, sae.b_dec))
    largest = np.maximum(run.latents.max(axis=0).toarray().ravel(), 1e-30)[latents.indices]
    spread = max(float(run.spread[:n].sum()), 1e-30)
    bits = float("nan")
    for width in range(1, MOST_BITS + 1):
        levels = 2**width - 1
        values = np.maximum(np.round(latents.data / largest * levels), 1) / levels * largest
        x_hat = csr_array((values, latents.indices, latents.indptr), shape=latents.shape) @ W + b
        if float(np.square(rows - x_hat).sum()) / spread <= target:
            bits = float(entropy.sum()) + l0 * width
            break
    return [record("bits_per_token", bits, target_fvu=float(target))]
