"""The baselines of SHIFT (Marks et al. 2024, arXiv 2403.19647): bottleneck words, neuron and latent skyline."""

import time
from collections.abc import Iterator

from debias_ssae.baselines import HOSPITAL_WORDS, ConceptBottleneck, ablate_neurons
from debias_ssae.benchmark.methods.registry import method
from debias_ssae.benchmark.methods.seed import Seed
from debias_ssae.benchmark.methods.variant import Variant
from debias_ssae.core.errors import InputError


@method("concept_bottleneck", "none")
def concept_bottleneck(seed: Seed, regime: str) -> Iterator[Variant]:
    """Heads on the similarity to a few words about the task."""
    corpus, rows = seed.corpus, seed.plain
    words = corpus.config.bottleneck_words
    if not words and set(corpus.classes) == {"nurse", "surgeon"}:
        words = HOSPITAL_WORDS
    if not words:
        raise InputError("no words about this task are given; set bottleneck_words")
    start = time.perf_counter()
    bottleneck = ConceptBottleneck(corpus.encoder, words).fit(rows.head)
    seconds = time.perf_counter() - start
    size = bottleneck.word_vectors_.size + bottleneck.center_.size
    edited = rows.map(bottleneck.transform)
    yield Variant("concept_bottleneck", regime, edited, n_parameters=size, seconds_fit=seconds)


@method("neuron_skyline", "labelled")
def neuron_skyline(seed: Seed, regime: str) -> Iterator[Variant]:
    """Neurons chosen with A's attribute, as large a share of them as ssae removes of its latents, set to their mean."""
    corpus, labelled = seed.corpus, seed.attribute_set(regime)
    debias, model = corpus.config.debias, corpus.encoder.language_model
    d_sae = debias.sae_config(model.d_model, corpus.config.hookpoint).d_sae
    n = max(1, round(model.d_model * debias.selection.n_latents / d_sae))
    options = {"hookpoint": corpus.config.hookpoint, "n_neurons": n, **debias.activations.limits}
    start = time.perf_counter()
    edit = ablate_neurons(model, labelled.texts, labelled.z, **options)
    seconds = time.perf_counter() - start
    yield Variant(
        "neuron_skyline",
        regime,
        seed.rows(corpus.passes.edited({corpus.config.hookpoint: edit}), regime),
        hookpoint=corpus.config.hookpoint,
        n_latents=n,
        n_parameters=2 * n,
        seconds_fit=seconds,
    )


@method("latent_skyline", "labelled")
def latent_skyline(seed: Seed, regime: str) -> Iterator[Variant]:
    """Latents of the general SAE chosen with A's attribute alone, without its classes."""
    trained = seed.general_sae()
    start = time.perf_counter()
    n = seed.corpus.config.debias.selection.n_latents
    found = seed.found(trained, regime, n, with_y=False)
    seconds = trained.seconds + time.perf_counter() - start
    yield seed.erased("latent_skyline", regime, trained, found.latents, seconds_fit=seconds)
