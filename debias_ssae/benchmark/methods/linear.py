"""Linear erasers: of the pooled vectors, and inside the model."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np

from debias_ssae.baselines import (
    INLP,
    LEACE,
    SPLINCE,
    AttributeErasure,
    BlockErasure,
    CorrelationRemoval,
    CounterfactualEraser,
    MeanDifference,
    scrub_blocks,
)
from debias_ssae.benchmark.methods.registry import Make, method
from debias_ssae.benchmark.methods.seed import AttributeSet, Seed
from debias_ssae.benchmark.methods.variant import Rows, Variant
from debias_ssae.benchmark.passes import Encoding
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import Edit

_MAX_TWINS = 1000
"""Texts with counterfactuals that the counterfactual subspace is fitted on, as in the baseline."""
LINEAR: dict[str, Callable[[], AttributeErasure]] = {
    "mean_diff": MeanDifference,
    "inlp": INLP,
    "leace": LEACE,
    "leace_conditional": partial(LEACE, conditional=True),
    "splince": SPLINCE,
}
"""Of what leaves the model, fitted on labels of the attribute."""


def _linear(name: str, make: Callable[[], AttributeErasure]) -> Make:
    def variants(seed: Seed, regime: str) -> Iterator[Variant]:
        rows = seed.plain_rows(regime)
        labelled = seed.attribute_set(regime)
        X = seed.attribute_rows(seed.corpus.passes.plain(), rows, regime)
        start = time.perf_counter()
        eraser = make().fit(X, labelled.y, sensitive_features=labelled.z)
        seconds = time.perf_counter() - start
        edited = rows.map(eraser.transform)
        yield Variant(name, regime, edited, n_parameters=n_parameters(eraser), seconds_fit=seconds)

    return method(name, "labelled", "labelled_gap")(variants)


for _name, _make in LINEAR.items():
    _linear(_name, _make)


@method("leace_in_model", "labelled")
def leace_in_model(seed: Seed, regime: str) -> Iterator[Variant]:
    """LEACE on token rows at the embeddings and after every block (concept scrubbing)."""
    labelled, corpus = seed.attribute_set(regime), seed.corpus
    start = time.perf_counter()
    edits = erased_blocks(seed, labelled)
    seconds = time.perf_counter() - start
    size = sum(edit.n_parameters for edit in edits.values())
    rows = seed.rows(corpus.passes.edited(edits), regime)
    yield Variant(
        "leace_in_model", regime, rows, hookpoint="every block", n_parameters=size, seconds_fit=seconds
    )


def erased_blocks(
    seed: Seed, labelled: AttributeSet, edits: Mapping[str, Edit] | None = None
) -> dict[str, BlockErasure]:
    """LEACE at the embeddings and after every block that the representation comes from, behind ``edits``."""
    corpus, model = seed.corpus, seed.corpus.encoder.language_model
    before = model.hookpoints[: model.hookpoints.index(corpus.encoder.layer) + 1]
    every = ["embeddings", *(f"blocks.{i}" for i in range(model.n_blocks))]
    hookpoints = [name for name in every if name in before and name not in (edits or {})]
    limits = corpus.config.debias.activations.limits
    return scrub_blocks(model, labelled.texts, labelled.z, hookpoints=hookpoints, edits=edits, **limits)


@method("correlation_removal", "labelled")
def correlation_removal(seed: Seed, regime: str) -> Iterator[Variant]:
    """Residuals of a regression on the attribute, which has to be known of every text."""
    rows, labelled, z = seed.plain, seed.attribute_set(regime), seed.corpus.z
    start = time.perf_counter()
    remover = CorrelationRemoval().fit(rows.attribute, sensitive_features=labelled.z)
    seconds = time.perf_counter() - start
    split = seed.split

    def removed(X: np.ndarray, at: np.ndarray) -> np.ndarray:
        return remover.transform(X, sensitive_features=z[at])

    # a counterfactual has no known attribute, so there are none
    edited = Rows(
        removed(rows.head, split.head),
        removed(rows.attribute, split.attribute),
        removed(rows.test, split.test),
        seconds=rows.seconds,
    )
    size = (len(remover.values_) - 1) * (rows.head.shape[1] + 1)
    yield Variant(
        "correlation_removal", regime, edited, needs_attribute=True, n_parameters=size, seconds_fit=seconds
    )


@method("counterfactual_subspace", "concept", "short")
def counterfactual_subspace(seed: Seed, regime: str) -> Iterator[Variant]:
    """Project out what the vectors change by when only the words change."""
    rows = seed.plain_rows(regime)
    start = time.perf_counter()
    eraser = fit_counterfactual(seed, regime, seed.corpus.passes.plain())
    seconds = time.perf_counter() - start
    size = eraser.components_.size + eraser.center_.size
    edited = rows.map(eraser.transform)
    yield Variant("counterfactual_subspace", regime, edited, n_parameters=size, seconds_fit=seconds)


@method("counterfactual_direction", "concept", "short")
def counterfactual_direction(seed: Seed, regime: str) -> Iterator[Variant]:
    """The first of those directions alone: what the debiaser takes out after its edit, without the edit."""
    rows = seed.plain_rows(regime)
    start = time.perf_counter()
    eraser = fit_counterfactual(seed, regime, seed.corpus.passes.plain(), n_components=1)
    seconds = time.perf_counter() - start
    size = eraser.components_.size + eraser.center_.size
    edited = rows.map(eraser.transform)
    yield Variant("counterfactual_direction", regime, edited, n_parameters=size, seconds_fit=seconds)


def fit_counterfactual(
    seed: Seed, regime: str, encoding: Encoding, n_components: int | Literal["auto"] = "auto"
) -> CounterfactualEraser:
    """The counterfactual eraser of the head's texts under ``encoding``; "auto" is chosen on those texts."""
    concept, passes = seed.corpus.concept_of(regime), seed.corpus.passes
    order = np.random.default_rng(seed.number).permutation(seed.split.head)
    counterfactuals = concept.counterfactual_pairs(seed.texts(order), limit=_MAX_TWINS)
    if len(counterfactuals) < 2:
        raise InputError(
            f"{len(counterfactuals)} of the head's texts hold a word of the concept {concept.name!r}; need two"
        )
    both, _ = passes.run(encoding, [p.text_a for p in counterfactuals] + [p.text_b for p in counterfactuals])
    a, b = np.split(both, 2)
    return CounterfactualEraser(n_components, random_state=seed.number).fit(a, counterfactuals=b)


def n_parameters(eraser: AttributeErasure) -> int:
    """Numbers that a fitted linear eraser keeps."""
    return int(eraser.left_.size + eraser.right_.size + eraser.center_.size)
