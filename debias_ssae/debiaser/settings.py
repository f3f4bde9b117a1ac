"""What the constructor's parameters of ``SSAEDebiaser`` stand for: encoder, corpus, SAE, concept, settings, seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from debias_ssae.core.config import DebiasConfig, make_config
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.formats import load_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.text import load_corpus
from debias_ssae.text.checks import check_texts
from debias_ssae.text.concept import Concept


def config_of(debiaser: Any) -> DebiasConfig:
    """The settings; without ``config=`` the defaults."""
    return debiaser.config if debiaser.config is not None else DebiasConfig()


def config_for(debiaser: Any, encoder: ActivationEncoder) -> DebiasConfig:
    """The settings with the encoder's own limits: training has to see of a text what transform sees."""
    config = config_of(debiaser)
    activations = {**config.activations.model_dump(), **encoder.limits}
    return make_config(DebiasConfig, {**config.model_dump(), "activations": activations}, "the encoder")


def seed_of(debiaser: Any) -> int | None:
    """A number from ``random_state``; a RandomState gives the next one."""
    state = debiaser.random_state
    if state is None or isinstance(state, int | np.integer):
        return None if state is None else int(state)
    return int(check_random_state(state).randint(2**31 - 1))


def make_encoder(debiaser: Any) -> ActivationEncoder:
    """The encoder to work with; of an ActivationEncoder a copy, which later changes of that one do not reach."""
    if isinstance(debiaser.encoder, ActivationEncoder):
        return debiaser.encoder.copy()
    settings = config_of(debiaser).activations
    return ActivationEncoder(
        str(debiaser.encoder),
        layer=debiaser.layer,
        pooling=debiaser.pooling,
        cache_dir=debiaser.cache_dir,
        device=debiaser.device,
        dtype=settings.dtype,
        max_length=settings.max_length,
        token_budget=settings.token_budget,
        verbose=debiaser.verbose,
    )


def read_corpus(corpus: Any) -> list[str] | None:
    """The texts to retrieve from, read where a path names them."""
    if corpus is None:
        return None
    return load_corpus(corpus) if isinstance(corpus, str | Path) else check_texts(corpus)


def read_sae(sae: Any, hookpoint: str) -> SparseAutoencoder | None:
    """The general SAE of ``hookpoint``, read where a path names it."""
    sae = sae.get(hookpoint) if isinstance(sae, Mapping) else sae
    if not isinstance(sae, str | Path | SparseAutoencoder | None):
        raise InputError(f"sae is {type(sae).__name__}; expected a path or a SparseAutoencoder")
    return load_sae(sae) if isinstance(sae, str | Path) else sae


def read_concept(concept: Any) -> Concept | None:
    """The concept, read where a name or a path is given."""
    return Concept.load(concept) if isinstance(concept, str | Path) else concept
