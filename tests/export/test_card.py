"""The model card of a debiaser from labels; names that may be published."""

from pathlib import Path

import numpy as np
import pytest
from small_debiaser import CONFIG

from debias_ssae import SSAEDebiaser
from debias_ssae.export.card import _public_name, model_card
from debias_ssae.model.encoder import ActivationEncoder


def test_labels_corpus_leace_and_review(small_encoder: Path, texts: list[str]) -> None:
    pytest.importorskip("concept_erasure", reason="LEACE comes from the extra baselines")
    z = np.where([" she " in f" {t} " for t in texts], "women|1", "men")
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    debiaser = SSAEDebiaser(encoder, residual="leace", config=CONFIG, random_state=0)
    debiaser.fit(texts, sensitive_features=z)
    debiaser.set_params(corpus="/home/somebody/pool.parquet")
    debiaser.record_["review"] = {"date": "2026-01-02"}
    card = model_card(debiaser, "name")
    for said in (
        "| values | men, women\\|1 |",
        "| found by | class conditional contrast |",
        "LEACE, rank",
        "| corpus | `pool.parquet` |",
        "| reviewed by a person | yes, 2026-01-02 |",
    ):
        assert said in card, said
    assert "base_model" not in card
    assert "somebody" not in card


def test_a_card_of_kept_latents_says_what_is_lost(
    small_encoder: Path, texts: list[str], fitted: SSAEDebiaser
) -> None:
    y, z = np.arange(len(texts)) % 2, np.arange(len(texts)) % 3 > 0
    keeping = SSAEDebiaser(
        str(small_encoder), edit="keep", hookpoint="final", config=CONFIG, alpha=0.9, random_state=0
    )
    keeping.fit(texts, y, sensitive_features=z).set_params(alpha=0.1)
    kept, removed = model_card(keeping, "name"), model_card(fitted, "name")
    for said in ("serve one target", "is kept of the activations", "latents kept, all else removed"):
        assert said in kept
        assert said not in removed
    for said in ("are taken out of the activations", "no longer write into the model"):
        assert said in removed
        assert said not in kept
    assert "| share of the edit that is made | 0.9 |" in kept, "as it was fitted"


def test_public_names(tmp_path: Path) -> None:
    assert _public_name("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert _public_name("org/model") == "org/model"
    assert _public_name(str(tmp_path)) == tmp_path.name
