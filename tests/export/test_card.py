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
    debiaser = SSAEDebiaser(encoder, output_eraser="leace", config=CONFIG, random_state=0)
    debiaser.fit(texts, sensitive_features=z)
    debiaser.set_params(corpus="/home/somebody/pool.parquet")
    debiaser.intervention_.record["review"] = {"date": "2026-01-02"}
    card = model_card(debiaser, "name")
    for said in (
        "| values | men, women\\|1 |",
        "| found by | class conditional contrast |",
        "leace, rank",
        "| corpus | `pool.parquet` |",
        "| reviewed by a person | yes, 2026-01-02 |",
    ):
        assert said in card, said
    assert "base_model" not in card
    assert "somebody" not in card


def test_public_names(tmp_path: Path) -> None:
    assert _public_name("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert _public_name("org/model") == "org/model"
    assert _public_name(str(tmp_path)) == tmp_path.name
