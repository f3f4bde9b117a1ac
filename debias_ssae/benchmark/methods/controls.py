"""What the others are measured against: nothing done, nothing known, everything known, anything removed."""

from collections.abc import Iterator

import numpy as np
from sklearn.dummy import DummyClassifier

from debias_ssae.benchmark.heads import Head, Training
from debias_ssae.benchmark.methods.groups import trained_on_a
from debias_ssae.benchmark.methods.registry import method
from debias_ssae.benchmark.methods.seed import Seed
from debias_ssae.benchmark.methods.variant import Variant
from debias_ssae.erase import LatentEraser
from debias_ssae.selection import matched_random_latents


@method("erm", "none")
def erm(seed: Seed, regime: str) -> Iterator[Variant]:
    """The model as it is."""
    yield Variant("erm", regime, seed.plain)


@method("majority", "none")
def majority(seed: Seed, regime: str) -> Iterator[Variant]:
    """Always the head's most frequent class."""
    model = DummyClassifier().fit(seed.plain.head, seed.head_y)
    yield Variant("majority", regime, seed.plain, heads=(Head(model, None, "own", "constant"),))


@method("oracle", "labelled")
def oracle(seed: Seed, regime: str) -> Iterator[Variant]:
    """Trained on A with its classes: few texts, so no ceiling."""
    yield trained_on_a(seed, "oracle", regime)


@method("oracle_large", "labelled_all")
def oracle_large(seed: Seed, regime: str) -> Iterator[Variant]:
    """Trained on all texts but the test's, every cell (class x attribute) weighing the same."""
    corpus, split, rows = seed.corpus, seed.split, seed.plain
    every = np.concatenate([split.head, split.attribute, split.rest])
    plain, _ = corpus.passes.run(corpus.passes.plain(), corpus.texts)
    y = corpus.y[every]
    names = [f"{c}\0{g}" for c, g in zip(y, corpus.z[every], strict=True)]
    _, cell, sizes = np.unique(names, return_inverse=True, return_counts=True)
    weight = len(cell) / (len(sizes) * sizes[cell])
    chooses = np.zeros(len(every), dtype=bool)
    chooses[len(split.head) : len(split.head) + len(split.attribute)] = seed.choosing
    yield Variant("oracle_large", regime, rows, Training(plain[every], y, weight, chooses))


@method("random_latents", "labelled", "concept")
def random_latents(seed: Seed, regime: str) -> Iterator[Variant]:
    """As many latents as ssae removes, others, matched in firing rate and mean activation."""
    config = seed.corpus.config
    if regime == "labelled" and "concept" in seed.regimes and seed.corpus.concept is not None:
        return  # one control is enough
    trained = seed.sae()
    found = seed.found(trained, regime, config.debias.selection.n_latents)
    for draw in range(config.n_draws):
        state = 1000 * seed.number + draw
        latents = matched_random_latents(
            found.latents, found.scores.firing_rate, found.scores.mass, random_state=state
        )
        yield seed.erased("random_latents", regime, trained, latents, draw=draw)


@method("reconstruct_only", "none")
def reconstruct_only(seed: Seed, regime: str) -> Iterator[Variant]:
    """The rows that the SSAE reconstructs, no latent removed: what dropping the SAE's error alone does."""
    trained = seed.sae()
    everything = LatentEraser.from_sae(trained.sae, range(trained.sae.cfg.d_sae), mode="keep")
    encoding = seed.corpus.passes.edited({trained.hookpoint: everything})
    yield Variant(
        "reconstruct_only",
        regime,
        seed.rows(encoding, regime),
        hookpoint=trained.hookpoint,
        d_sae=trained.sae.cfg.d_sae,
        n_latents=0,
        seconds_fit=trained.seconds,
    )
