"""Probes of SAEs: many logistic probes at once, k-sparse probing, and SAEBench's SCR and TPP on stored activations.

SCR and TPP are offered because the field reports them. An audit found that at their usual settings they fail to tell
good SAEs from bad ones (Chanin 2026, arXiv 2605.18229): do not select an SAE by them, and report seeds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.heads import quiet
from debias_ssae.sae.evaluation import Record, record

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
SCR_NS = (2, 5, 10, 20, 50, 100, 500)
"""Numbers of latents that SAEBench removes; it leads with 20."""
WARNING = (
    "SCR and TPP were found unfit to select SAEs (Chanin 2026, arXiv 2605.18229); read them beside the other measures "
    "and over several seeds."
)
LEAST_DENOMINATOR = 0.001
"""Smaller gaps between two probes count as none (SAEBench)."""
LEAST_BATCHES = 20
"""An epoch, where batches of 4,096 rows would be fewer: a few thousand words are otherwise not learnt in time."""


def train_probes(
    X: Floats, Y: Bools, *, l1: float = 0.0, n_epochs: int = 100, random_state: int = 0
) -> tuple[Floats, Floats]:
    """Train one logistic probe a column of ``Y`` [n, m] on ``X`` [n, d]; return weights [m, d] and biases [m].

    Adam from 0.01 to 1e-5 (exponentially, by epoch), weight decay 1e-6, positives weighted to half the loss, and the
    mean over probes of ``l1`` times the sum of absolute weights (Chanin et al. 2024, arXiv 2409.14507, appendix).
    Rows are divided by one number, so that these rates fit activations of any size.
    """
    rows, scale = _scaled(X)
    targets = torch.from_numpy(np.asarray(Y, dtype=np.float32))
    positives = targets.sum(0)
    generator = torch.Generator().manual_seed(random_state)
    W = torch.zeros(targets.shape[1], rows.shape[1], requires_grad=True)
    b = torch.zeros(targets.shape[1], requires_grad=True)
    weight = (len(rows) - positives) / positives.clamp(min=1)
    optimiser = torch.optim.Adam([W, b], lr=0.01, weight_decay=1e-6)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 1e-3 ** (1 / n_epochs))
    batch_size = min(4096, max(16, len(rows) // LEAST_BATCHES))
    for _ in range(n_epochs):
        for part in torch.randperm(len(rows), generator=generator).split(batch_size):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                rows[part] @ W.T + b, targets[part], pos_weight=weight
            )
            if l1:
                loss = loss + l1 * W.abs().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        decay.step()
    return W.detach().numpy() / scale, b.detach().numpy()


def _scaled(X: Floats) -> tuple[torch.Tensor, float]:
    rows = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
    scale = max(float(rows.square().mean().sqrt()), 1e-12)
    return rows / scale, scale


def linear_probe(X: Floats, y: Bools, random_state: int = 0, n_epochs: int = 20) -> tuple[Floats, float]:
    """Return weights [d] and bias of SAEBench's probe for SCR and TPP: AdamW at 1e-3, batches of 16 rows, an L1 of
    1e-3.

    It takes the last epoch. SAEBench takes the epoch that is best on its test texts, which looks at what it measures.
    """
    rows, scale = _scaled(X)
    targets = torch.from_numpy(np.asarray(y, dtype=np.float32))
    generator = torch.Generator().manual_seed(random_state)
    w, b = torch.zeros(rows.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.AdamW([w, b], lr=1e-3, foreach=False)
    for _ in range(n_epochs):
        for part in torch.randperm(len(rows), generator=generator).split(16):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(rows[part] @ w + b, targets[part])
            optimiser.zero_grad()
            (loss + 1e-3 * w.abs().sum()).backward()
            optimiser.step()
    return w.detach().numpy() / scale, float(b.detach())


def latent_effects(latents: Floats, y: Bools, weights: Floats, W_dec: Floats) -> Floats:
    """Return each latent's share in a probe's separation: (mean difference of ``latents`` [n, d_sae] between the
    values of ``y``) x (probe . decoder row). For TPP the mean difference counts where it is positive only."""
    return np.asarray((latents[y].mean(axis=0) - latents[~y].mean(axis=0)) * (W_dec @ weights))


def top_latents(effects: Floats, n: int) -> NDArray[np.int64]:
    """Return the ids of the ``n`` largest effects; fewer where fewer are not zero."""
    n = min(n, int((effects != 0).sum()))
    return np.argsort(-effects, kind="stable")[:n]


def _accuracy(X: Floats, y: Bools, probe: tuple[Floats, float]) -> float:
    return float(((X @ probe[0] + probe[1] > 0) == y).mean())


def without(X: Floats, latents: Floats, W_dec: Floats, ids: NDArray[np.int64]) -> Floats:
    """Pooled rows after the latents were set to zero at every token: pooling is linear, the SAE's error stays."""
    return np.asarray(X - latents[:, ids] @ W_dec[ids])


def _balanced(cells: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of which every cell has equally many, shuffled."""
    smallest = np.bincount(cells).min()
    rows = [rng.permutation(np.flatnonzero(cells == c))[:smallest] for c in np.unique(cells)]
    return rng.permutation(np.concatenate(rows))


def scr(
    X: Floats,
    latents: Floats,
    W_dec: Floats,
    y: Bools,
    z: Bools,
    train: Bools,
    *,
    ns: Sequence[int] = SCR_NS,
    random_state: int = 0,
) -> list[Record]:
    """Return SAEBench's spurious correlation removal (Karvonen et al. 2025, arXiv 2503.09532) for each number of
    latents.

    ``X`` [n, d] and ``latents`` [n, d_sae] are means over each text's tokens; ``y`` and ``z`` [n] are the target and
    the attribute, ``train`` [n] the texts that the probes learn from. A probe that learnt from texts with y = z is
    read on y after the latents of the z probe are removed (direction 1), and on z after those of the y probe
    (direction 2); the score is the share of the gap to a probe on balanced texts that closes. The direction whose
    probe reads worse to begin with is the score. Raises InputError where a cell of y x z is empty.
    """
    rng = np.random.default_rng(random_state)
    cells = 2 * y.astype(np.int64) + z
    if any(len(np.unique(cells[part])) < 4 for part in (train, ~train)):
        raise InputError(
            "SCR needs texts of all four cells of target and attribute, in training and in testing"
        )
    rows, test = (np.flatnonzero(part)[_balanced(cells[part], rng)] for part in (train, ~train))
    confounded = rows[y[rows] == z[rows]]
    probe_of = {
        name: linear_probe(X[rows], value[rows], random_state) for name, value in (("y", y), ("z", z))
    }
    spurious = linear_probe(X[confounded], y[confounded], random_state)
    found: list[Record] = [record("scr_warning", WARNING)]
    bases: list[float] = []
    scores: list[list[float]] = []
    for direction, (removed, read, value) in enumerate((("z", "y", y), ("y", "z", z)), 1):
        base, clean = (
            _accuracy(X[test], value[test], spurious),
            _accuracy(X[test], value[test], probe_of[read]),
        )
        effects = np.abs(
            latent_effects(latents[rows], (z if removed == "z" else y)[rows], probe_of[removed][0], W_dec)
        )
        bases.append(base)
        scores.append([])
        for n in ns:
            edited = without(X[test], latents[test], W_dec, top_latents(effects, n))
            gap = clean - base
            gained = _accuracy(edited, value[test], spurious) - base
            scores[-1].append(gained / gap if gap >= LEAST_DENOMINATOR else 0.0)
            found.append(record("scr", scores[-1][-1], n=n, direction=direction, base=base, clean=clean))
    chosen = scores[0] if bases[0] < bases[1] else scores[1]
    return [*found, *(record("scr", v, n=n, direction="lower base") for n, v in zip(ns, chosen, strict=True))]


def tpp(
    X: Floats,
    latents: Floats,
    W_dec: Floats,
    classes: NDArray[np.int64],
    train: Bools,
    *,
    ns: Sequence[int] = SCR_NS,
    random_state: int = 0,
) -> list[Record]:
    """Return SAEBench's targeted probe perturbation: how much more the removal of a class's latents costs that
    class's one-vs-rest probe than the probes of the other classes. Arguments as for :func:`scr`; ``classes`` [n] are
    codes."""
    rng = np.random.default_rng(random_state)
    codes = np.unique(classes)
    if len(codes) < 3:
        raise InputError(f"TPP needs at least three classes, got {len(codes)}")
    sets = {}
    for c in codes:
        for name, part in (("train", train), ("test", ~train)):
            rows = np.flatnonzero(part)
            sets[name, c] = rows[_balanced((classes[rows] == c).astype(np.int64), rng)]
    probes = {
        c: linear_probe(X[sets["train", c]], classes[sets["train", c]] == c, random_state) for c in codes
    }
    clean = {c: _accuracy(X[sets["test", c]], classes[sets["test", c]] == c, probes[c]) for c in codes}
    drops = np.zeros((len(ns), len(codes), len(codes)))
    for i, c in enumerate(codes):
        rows = sets["train", c]
        y = classes[rows] == c
        difference = np.maximum(latents[rows][y].mean(axis=0) - latents[rows][~y].mean(axis=0), 0)
        effects = difference * (W_dec @ probes[c][0])
        for a, n in enumerate(ns):
            ids = top_latents(effects, n)
            for j, other in enumerate(codes):
                test = sets["test", other]
                edited = without(X[test], latents[test], W_dec, ids)
                drops[a, i, j] = clean[other] - _accuracy(edited, classes[test] == other, probes[other])
    own = np.eye(len(codes), dtype=bool)
    found: list[Record] = [record("tpp_warning", WARNING)]
    for a, n in enumerate(ns):
        intended, unintended = float(drops[a][own].mean()), float(drops[a][~own].mean())
        for name, value in (
            ("tpp", intended - unintended),
            ("tpp_intended", intended),
            ("tpp_unintended", unintended),
        ):
            found.append(record(name, value, n=n))
    return found


def sparse_probing(
    latents: Floats,
    y: Bools,
    train: Bools,
    *,
    X: Floats | None = None,
    ks: Sequence[int] = (1, 2, 5, 10),
    random_state: int = 0,
) -> list[Record]:
    """Return accuracy, recall and F1 of logistic probes on the k latents of largest mean difference (SAEBench; Gurnee
    et al. 2023, arXiv 2305.01610), with ``X`` [n, d] also of a probe on all of a text's mean row (k = "dense").

    ``latents`` [n, d_sae] are means over each text's tokens, ``y`` [n] the label. Both values are drawn equally
    often.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, recall_score

    rng = np.random.default_rng(random_state)
    rows, test = (np.flatnonzero(part)[_balanced(y[part].astype(np.int64), rng)] for part in (train, ~train))
    if len(np.unique(y[rows])) < 2 or len(np.unique(y[test])) < 2:
        raise InputError("sparse probing needs texts of both values, in training and in testing")
    difference = np.abs(latents[rows][y[rows]].mean(axis=0) - latents[rows][~y[rows]].mean(axis=0))
    order = np.argsort(-difference, kind="stable")
    found: list[Record] = []
    columns: list[tuple[Any, Floats]] = [(k, latents[:, order[:k]]) for k in ks]
    for k, table in [*columns, *([] if X is None else [("dense", X)])]:
        with quiet():
            probe = LogisticRegression(max_iter=1000).fit(table[rows], y[rows])
        predicted = probe.predict(table[test])
        for name, value in (
            ("accuracy", (predicted == y[test]).mean()),
            ("recall", recall_score(y[test], predicted)),
            ("f1", f1_score(y[test], predicted)),
        ):
            found.append(record(f"sparse_probe_{name}", float(value), k=k, best_latent=int(order[0])))
    return found
