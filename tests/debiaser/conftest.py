"""A small setting that keeps every stage real."""

from functools import partial

import pytest
from small_debiaser import concept, fitted, small_encoder, texts

from debias_ssae import DebiasConfig, SSAEDebiaser, TrainConfig
from debias_ssae.core.config import RetrievalConfig, SelectionConfig
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text import synthetic_biographies

__all__ = ["concept", "fitted", "small_encoder", "texts"]


@pytest.fixture(scope="session")
def small_config() -> DebiasConfig:
    return DebiasConfig(
        d_sae=256,
        k=16,
        general=TrainConfig(n_steps=60, batch_size=512),
        special=TrainConfig(n_steps=20, batch_size=512, lr=5e-4, tilt="auto"),
        general_rows=20_000,
        retrieval=RetrievalConfig(n_texts=50, max_seeds=50),
        selection=SelectionConfig(most_latents=30, max_texts=100, min_cell=5),
    )


@pytest.fixture(scope="session")
def encoder(minilm):  # type: ignore[no-untyped-def]
    made = ActivationEncoder(dtype="float32")
    made.__dict__["loaded"] = minilm
    return made


@pytest.fixture(scope="session")
def bios():  # type: ignore[no-untyped-def]
    return synthetic_biographies(160, correlation=0.5, n_professions=2, random_state=0)


@pytest.fixture(scope="session")
def make(encoder, small_config, tmp_path_factory):  # type: ignore[no-untyped-def]
    """SSAEDebiaser in this setting; SAEs and representations are made once a session."""
    cache, cached = tmp_path_factory.mktemp("cache"), encoder.copy()
    cached.cache_dir = cache
    return partial(SSAEDebiaser, encoder=cached, config=small_config, random_state=0, cache_dir=cache)


@pytest.fixture(scope="session")
def labelled(make, bios) -> SSAEDebiaser:  # type: ignore[no-untyped-def]
    return make().fit(bios.text, bios.profession, sensitive_features=bios.gender)


@pytest.fixture(scope="session")
def from_concept(make, bios) -> SSAEDebiaser:  # type: ignore[no-untyped-def]
    return make(attribute="gender").fit(bios.text)
