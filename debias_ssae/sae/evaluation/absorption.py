"""Splitting and absorption of a concept in an SAE: Chanin et al. 2024 (arXiv 2409.14507) and SAEBench's projection
rule.

A concept is split when several latents share it, and absorbed when the latents that stand for it stay silent on a
token because another, more special latent carries it there. The first-letter task asks this of the letters of a
model's own words; any concept with labelled tokens can be asked in the same way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from debias_ssae.core.stats.heads import quiet
from debias_ssae.sae.evaluation import Record, record
from debias_ssae.sae.evaluation.geometry import unit
from debias_ssae.sae.evaluation.probing import train_probes
from debias_ssae.sae.model import SparseAutoencoder

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Answers = Callable[[NDArray[np.int64]], tuple[torch.Tensor, torch.Tensor]]
"""Numbers of test tokens to their states [m, d_in] and to the gradients there [m, d_in] of what the model answers,
which is large where it names the token's own value."""
F1_JUMP = 0.03
"""Growth of F1 below which one more latent is no longer a part of a split one (Chanin et al. 2024)."""
SILENT = 1e-8
"""Activation below which a latent is silent."""
EFFECT_LEAD = 1.0
"""By how much the strongest ablation effect must lead the second, in logits (Chanin et al.)."""
FULL_COSINE = 0.025
"""Least cosine of the absorbing latent with the probe (Chanin et al.; SAEBench's full absorption)."""
FRACTION_COSINE = 0.1
"""The same for SAEBench's absorption fraction."""
SHARE = 0.4
"""Of a token's projection onto the probe that absorbing latents must carry (SAEBench)."""
MOST_ABSORBERS = 3
"""Latents that may absorb together (SAEBench's fraction)."""
MOST_ABLATED = 200
"""Tokens a value on which the ablation rule is tried (Chanin et al.)."""
MIN_PROBE_F1 = 0.6
"""A value that the probe itself does not find as well as this is left out (SAEBench)."""
K_SPARSE_L1, K_SPARSE_EPOCHS = 0.01, 50


def n_split(f1: dict[int, float]) -> int:
    """Return the last k before F1 grew by less than F1_JUMP over the best so far (at least 1 where any is)."""
    accepted, best = 0, -np.inf
    for k, value in sorted(f1.items()):
        if value <= best + F1_JUMP:
            break
        accepted, best = k, value
    return accepted


def projection_absorption(
    x: Floats, latents: Floats, W_dec: Floats, probe: Floats, main: NDArray[np.int64]
) -> tuple[Floats, Bools, NDArray[np.int64]]:
    """Return SAEBench's absorption fraction [n], full absorption [n] and the strongest absorbing latent [n].

    ``x`` [n, d_in] are tokens on which the probe [d_in] fires, ``latents`` [n, d_sae] their latents, ``main`` the
    latents that stand for the concept. A latent's projection is its activation times the cosine of its decoder row
    with the probe. The fraction is the share of at most three other latents (cosine at least 0.1) in what they and
    the main ones carry, where they carry at least 0.4 of the token's projection. Absorption is full where all main
    latents are silent and the largest projection of any latent (cosine at least 0.025) is at least 0.4 of the
    token's.
    """
    direction = unit(np.asarray(probe)[None])[0]
    cosines = unit(W_dec) @ direction
    carried, total = latents * cosines, x @ direction
    of_main = carried[:, main].sum(axis=1)
    may = (cosines >= FRACTION_COSINE) & ~np.isin(np.arange(len(cosines)), main)
    others = np.where(may, np.maximum(carried, 0), 0)
    most = min(MOST_ABSORBERS, others.shape[1])
    absorbed = np.sort(np.partition(others, -most, axis=1)[:, -most:], axis=1).sum(axis=1)
    positive = np.where(total > 0, total, np.inf)
    part = np.minimum(absorbed, np.maximum(total - of_main, 0))
    fraction = np.where(of_main <= 0, 1.0, part / np.maximum(part + of_main, 1e-30))
    fraction = np.where((of_main >= total) | (absorbed / positive < SHARE), 0.0, fraction)
    top = carried.argmax(axis=1)
    full = (np.abs(latents[:, main]) < SILENT).all(axis=1) & (cosines[top] >= FULL_COSINE)
    full &= carried[np.arange(len(x)), top] / positive >= SHARE
    return fraction, full, top


def ablation_absorption(
    latents: Floats, gradients: Floats, W_dec: Floats, probe: Floats, main: NDArray[np.int64]
) -> Bools:
    """Return where the paper's rule sees absorption [n].

    A latent's ablation effect is minus its activation times (``gradients`` [n, d_in] . decoder row). Absorption: all
    main latents are silent, the largest effect in size is negative (its removal hurts the right answer) and leads the
    second by EFFECT_LEAD logits, and that latent's decoder row has a cosine of at least FULL_COSINE with the probe.
    """
    effects = -latents * (gradients @ W_dec.T)
    size = np.abs(effects)
    top = size.argmax(axis=1)
    rows = np.arange(len(latents))
    second = np.partition(size, -2, axis=1)[:, -2]
    cosines = unit(W_dec) @ unit(np.asarray(probe)[None])[0]
    silent = (latents[:, main] < SILENT).all(axis=1)
    lead = size[rows, top] - second >= EFFECT_LEAD
    return np.asarray(silent & (effects[rows, top] < 0) & lead & (cosines[top] >= FULL_COSINE))


@torch.no_grad()
def encode_dense(sae: SparseAutoencoder, x: torch.Tensor) -> Floats:
    """Return all latents of ``x`` [n, d_in] as a matrix [n, d_sae]; for a few thousand tokens."""
    return np.concatenate([sae.encode(part.to(sae.W_enc)).float().cpu().numpy() for part in x.split(2048)])


def k_sparse(
    train: tuple[Floats, Bools], test: tuple[Floats, Bools], ranking: Floats, max_k: int
) -> tuple[NDArray[np.int64], Bools, dict[int, float]]:
    """Return the latents that one value is split over, where their probe fires on the test tokens [n], and F1 by k.

    ``train`` and ``test`` are latents [n, d_sae] and labels [n]; ``ranking`` [d_sae] are an L1 probe's weights, of
    which the largest signed ones count. Each k has a balanced logistic probe of its own.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    order = np.argsort(-ranking, kind="stable")[:max_k]
    scale = max(float(np.sqrt(np.square(train[0][:, order]).mean())), 1e-12)
    f1, fires = {}, {}
    for k in range(1, len(order) + 1):
        with quiet():
            probe = LogisticRegression(max_iter=500, class_weight="balanced")
            probe.fit(train[0][:, order[:k]] / scale, train[1])
        fires[k] = probe.decision_function(test[0][:, order[:k]] / scale) > 0
        f1[k] = float(f1_score(test[1], fires[k]))
    k = n_split(f1)
    return order[:k], fires[k], f1


def absorption_task(
    sae: SparseAutoencoder,
    train: tuple[torch.Tensor, Bools],
    test: tuple[torch.Tensor, Bools],
    names: Sequence[str],
    *,
    answers: Answers | None = None,
    max_k: int = 10,
    most_ablated: int = MOST_ABLATED,
    random_state: int = 0,
) -> list[Record]:
    """Return splitting and absorption of each value of a concept, and their means.

    ``train`` and ``test`` are states of tokens [n, d_in] and whether each token has each value [n, m]; ``names`` are
    the m values. Probes on the states say where the value is; k-sparse probes on the latents, walked until F1 grows
    by less than F1_JUMP, say which latents stand for it. The absorption rates are shares of the test tokens that have
    the value and on which the probe fires. With ``answers`` the paper's ablation rule is applied to the tokens that
    the latents miss, at most ``most_ablated`` a value. Values whose probe has an F1 below MIN_PROBE_F1 are left out
    of the means.
    """
    from sklearn.metrics import f1_score

    (x, Y), (x_test, Y_test) = train, test
    rng = np.random.default_rng(random_state)
    W_dec = sae.W_dec.detach().float().cpu().numpy()
    f, f_test = encode_dense(sae, x), encode_dense(sae, x_test)
    states = x_test.float().cpu().numpy()
    probes, biases = train_probes(x.float().cpu().numpy(), Y, random_state=random_state)
    rankings, _ = train_probes(f, Y, l1=K_SPARSE_L1, n_epochs=K_SPARSE_EPOCHS, random_state=random_state)
    fires = states @ probes.T + biases > 0
    found: list[Record] = []
    for i, name in enumerate(names):
        if not Y[:, i].any() or not Y_test[:, i].any():
            continue
        probe_f1 = float(f1_score(Y_test[:, i], fires[:, i]))
        main, found_by_main, f1 = k_sparse((f, Y[:, i]), (f_test, Y_test[:, i]), rankings[i], max_k)
        hits = np.flatnonzero(Y_test[:, i] & fires[:, i])
        fraction, full, top = projection_absorption(states[hits], f_test[hits], W_dec, probes[i], main)
        values: dict[str, Any] = {
            "probe_f1": probe_f1, "k_sparse_f1": f1[len(main)], "best_latent_f1": f1[1], "n_split": len(main) - 1,
            "absorption_fraction": float(fraction.mean()) if len(hits) else float("nan"),
            "full_absorption": float(full.mean()) if len(hits) else float("nan"),
        }  # fmt: skip
        if answers is not None and len(hits):
            missed = hits[~found_by_main[hits] & (f_test[hits][:, main].sum(axis=1) < SILENT)]
            tried = np.sort(rng.permutation(missed)[:most_ablated])
            absorbed = 0.0
            if len(tried):
                there, gradients = answers(tried)
                rule = ablation_absorption(
                    encode_dense(sae, there), gradients.numpy(), W_dec, probes[i], main
                )
                absorbed = float(rule.sum()) * len(missed) / len(tried)
            values["absorption_rate"] = absorbed / len(hits)
            values["n_missed"] = len(missed)
        where = {
            "concept": str(name),
            "n_true": len(hits),
            "main": main.tolist(),
            "absorbing": sorted(set(top[full].tolist())),
        }
        found += [record(measure, value, **where) for measure, value in values.items()]
    sound = {r["concept"] for r in found if r["measure"] == "probe_f1" and r["value"] >= MIN_PROBE_F1}
    for measure in dict.fromkeys(r["measure"] for r in found):
        inside = [r["value"] for r in found if r["measure"] == measure and r["concept"] in sound]
        found.append(
            record(
                measure,
                float(np.mean(inside)) if inside else float("nan"),
                concept="mean",
                n_concepts=len(inside),
            )
        )
    return found
