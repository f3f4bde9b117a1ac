"""Methods that work on the text or on its tokens, told nothing but words."""

from collections.abc import Callable, Iterator

import numpy as np

from debias_ssae.baselines import TokenMask
from debias_ssae.benchmark.heads import Training
from debias_ssae.benchmark.methods.registry import method
from debias_ssae.benchmark.methods.seed import Seed
from debias_ssae.benchmark.methods.variant import Variant
from debias_ssae.benchmark.passes import Encoding
from debias_ssae.core.errors import InputError
from debias_ssae.text.concept import Concept


@method("scrub", "concept", "short")
def scrub(seed: Seed, regime: str) -> Iterator[Variant]:
    """Replace the words by neutral ones."""
    yield _scrubbed(seed, "scrub", regime, seed.corpus.concept_of(regime))


@method("scrub_names", "concept")
def scrub_names(seed: Seed, regime: str) -> Iterator[Variant]:
    """Replace the words of the concept's optional sections (gender: first names) as well."""
    concept = seed.corpus.concept_of(regime)
    sections = dict.fromkeys(pair.section for pair in concept.optional)
    if not sections:
        raise InputError("these words have no optional section, such as first names")
    yield _scrubbed(seed, "scrub_names", regime, concept.with_optional(*sections))


def _scrubbed(seed: Seed, method: str, regime: str, concept: Concept) -> Variant:
    encoding = seed.corpus.passes.rewritten("scrub", concept, concept.scrub)
    return Variant(method, regime, seed.rows(encoding, regime, concept), n_parameters=len(concept.words))


@method("token_mask", "concept", "short")
def token_mask(seed: Seed, regime: str) -> Iterator[Variant]:
    """Replace the words' token embeddings by the vocabulary's mean."""
    concept = seed.corpus.concept_of(regime)
    mask = TokenMask(seed.corpus.encoder, concept)
    encoding = Encoding(f"token_mask:{concept.sha256}", mask.transform, shared=True)
    yield Variant("token_mask", regime, seed.rows(encoding, regime), n_parameters=len(concept.words))


@method("augmentation", "concept", "short")
def augmentation(seed: Seed, regime: str) -> Iterator[Variant]:
    """Add the swapped copies of the head's texts to what the head learns from (``augment_with_counterfactuals``)."""
    corpus, head = seed.corpus, seed.split.head
    concept = corpus.concept_of(regime)
    rows = seed.plain_rows(regime)
    encoding = corpus.passes.rewritten("swap", concept, _swapped(concept))
    swapped = corpus.passes.run(encoding, corpus.texts)[0][head]
    has_counterfactual = np.array([concept.counterfactual(text) is not None for text in seed.texts(head)])
    if not has_counterfactual.any():
        raise InputError(f"none of the head's texts holds a word of the concept {concept.name!r}")
    training = Training(
        np.concatenate([rows.head, swapped[has_counterfactual]]),
        np.concatenate([seed.head_y, seed.head_y[has_counterfactual]]),
    )
    yield Variant("augmentation", regime, rows, training, n_parameters=len(concept.words))


def _swapped(concept: Concept) -> Callable[[str], str]:
    return lambda text: concept.counterfactual(text) or text
