"""The model card of a debiaser from labels; names that may be published."""

from pathlib import Path

import numpy as np
import pytest
from small_debiaser import CONFIG

from debias_ssae import Choices, SSAEDebiaser
from debias_ssae.core.config import SAEConfig
from debias_ssae.export.card import _public_name, model_card
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.choices import Choice


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
    assert "the chosen latents no longer write" in card
    debiaser.set_params(corpus=None)
    without = model_card(debiaser.with_latents({"embeddings": []}, texts, sensitive_features=z), "name")
    assert "No latent is removed inside the model" in without
    assert "the chosen latents no longer write" not in without
    assert "base_model" not in card
    assert "somebody" not in card


def test_public_names(tmp_path: Path) -> None:
    assert _public_name("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert _public_name("org/model") == "org/model"
    assert _public_name(str(tmp_path)) == tmp_path.name


@pytest.mark.parametrize("by_judge", [False, True])
def test_ticked_cards_are_named(
    small_encoder: Path, texts: list[str], tmp_path: Path, by_judge: bool
) -> None:
    sae = SparseAutoencoder(SAEConfig(d_in=32, d_sae=64, k=8), random_state=0)
    cards = (
        Choice(tick=True, name="he · she", ids=(3, 5)),
        Choice(tick=False, name="the", ids=(7,)),
        Choice(tick=True, name="Mr|s", ids=(9,)),
    )
    choices = Choices({"embeddings": cards}, {"embeddings": sae}, by_judge)
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    fitted = SSAEDebiaser(encoder, attribute=choices, config=CONFIG, random_state=0).fit(texts)
    assert "he · she (2 latents); Mr|s." in fitted.summary()
    fitted.save(tmp_path / "saved")
    card = model_card(SSAEDebiaser.load(tmp_path / "saved"), "name")
    who = "a judge" if by_judge else "a person"
    for said in (
        f"with what {who} ticked (“he · she”, “Mr\\|s”) removed",
        "| found by | discover, 2 of 3 cards ticked |",
        f"| reviewed by a person | {'no' if by_judge else 'yes'} |",
        "chosen on the texts that discover read",
    ):
        assert said in card, said
    for unsaid in ("with the values", "| nothing |", "| corpus |", "described above"):
        assert unsaid not in card, unsaid
