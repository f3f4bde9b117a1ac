"""Fit reads of a text what transform reads: both stop at max_length."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_debiaser import CONFIG, make_texts

from debias_ssae import Concept, SSAEDebiaser
from debias_ssae.debiaser.training import learn_ssae, train_general_sae
from debias_ssae.model.encoder import ActivationEncoder

LENGTH = 7
"""Five words and two special tokens."""


@pytest.mark.parametrize("regime", ["labelled", "concept"])
@pytest.mark.parametrize("bound", ["encoder", "config"])
def test_what_lies_beyond_the_limit_changes_nothing(
    bound: str, regime: str, small_encoder: Path, concept: Concept
) -> None:
    """Long texts with a limit are learnt from as their beginnings are."""
    short = [f"she works {text}" if i % 2 else f"he works {text}" for i, text in enumerate(make_texts(60))]
    short = [" ".join(text.split()[: LENGTH - 2]) for text in short]
    # equal texts run once, so that the tails are all the same: they must not make texts differ
    long = [f"{text} nurse she clinic" if len(text.split()) == LENGTH - 2 else text for text in short]
    config = CONFIG
    if bound == "config":
        config = CONFIG.updated(activations=CONFIG.activations.updated(max_length=LENGTH, dtype="float32"))

    def fitted(texts: list[str]) -> SSAEDebiaser:
        encoder: Any = str(small_encoder)
        if bound == "encoder":
            encoder = ActivationEncoder(encoder, dtype="float32", max_length=LENGTH)
        told: dict[str, Any] = {
            "labelled": {},
            "concept": {"attribute": concept},
        }[regime]
        z = np.arange(len(texts)) % 2 if regime == "labelled" else None
        made = SSAEDebiaser(encoder, config=config, random_state=0, **told)
        return made.fit(texts, sensitive_features=z)

    a, b = fitted(short), fitted(long)
    assert a.intervention_.sae.fingerprint() == b.intervention_.sae.fingerprint()
    assert np.allclose(
        a.intervention_.selection.scores.mass, b.intervention_.selection.scores.mass, atol=1e-6
    )
    if regime == "labelled":
        assert a.intervention_.selection.ids.tolist() == b.intervention_.selection.ids.tolist()
    assert a.intervention_.selection.report["names"] == b.intervention_.selection.report["names"]


def test_the_limit_is_in_the_keys_of_cached_saes(small_encoder: Path, tmp_path: Path) -> None:
    """Another limit is another SAE."""
    model, texts = ActivationEncoder(str(small_encoder), dtype="float32").language_model, make_texts(30)
    names = set()
    for read in (model, model.with_limits(LENGTH), model):
        train_general_sae(read, texts, "embeddings", CONFIG, random_state=0, cache_dir=tmp_path)
        learn_ssae(read, texts, "embeddings", CONFIG, random_state=0, cache_dir=tmp_path)
        names |= {path.name for path in (tmp_path / "saes").iterdir()}
    assert len([name for name in names if name.startswith("general")]) == 2
    assert len([name for name in names if name.startswith("special")]) == 2
