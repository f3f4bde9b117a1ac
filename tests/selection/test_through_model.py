"""Attribution through the model: exact where the rest of the model is linear, and equal to finite differences."""

import numpy as np
import pytest
import torch

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel, embed, harvest, integrated_gradients
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection import integrated_gradients_attribution, pooled_latents
from tests.model.small_models import D_MODEL, small_model

TEXTS = ["she works in the city .", "he was born in a clinic", "the nurse and the surgeon", "Dr of 2 !"]
rng = np.random.default_rng(0)
direction = rng.normal(size=D_MODEL).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model("bert")


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    return SparseAutoencoder(SAEConfig(d_in=D_MODEL, d_sae=64, k=8, architecture="topk"), random_state=0)


def test_at_the_output_the_effect_is_what_the_latent_writes(
    model: LanguageModel, sae: SparseAutoencoder
) -> None:
    scores = integrated_gradients_attribution(model, sae, TEXTS, direction, hookpoint="final", steps=3)
    latents, firing_rate = pooled_latents(sae, harvest(model, TEXTS, "final"))
    written = latents * (sae.W_dec.detach().numpy() @ direction)
    assert np.abs(written).max() > 0.01
    assert np.allclose(scores.effect[0], written.mean(axis=0), atol=1e-5)
    assert np.allclose(scores.score, np.abs(written.mean(axis=0)), atol=1e-5)
    assert np.allclose(scores.firing_rate, firing_rate)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_one_step_is_the_derivative(model: LanguageModel, pooling: str) -> None:
    options = {"layer": "final", "pooling": pooling}
    rows, gradients = integrated_gradients(
        model, TEXTS, torch.from_numpy(direction), "blocks.0", steps=1, **options
    )
    move = torch.from_numpy(rng.normal(size=D_MODEL).astype(np.float32))
    readings = [
        embed(model, TEXTS, edits={"blocks.0": lambda x, e=e: x + e * move}, **options) @ direction
        for e in (-5e-3, 5e-3)
    ]
    numeric = (readings[1] - readings[0]) / 1e-2
    exact = torch.zeros(len(TEXTS)).index_add_(0, rows.text_ids, gradients @ move)
    assert np.abs(numeric).max() > 1e-3
    assert np.allclose(numeric, exact, rtol=2e-2, atol=0.05 * np.abs(numeric).max())


def test_many_steps_add_up_to_the_whole_change(model: LanguageModel) -> None:
    baseline = harvest(model, TEXTS, "blocks.0").x.mean(0)
    goal = torch.from_numpy(direction)
    rows, gradients = integrated_gradients(model, TEXTS, goal, "blocks.0", baseline=baseline, steps=64)
    change = torch.zeros(len(TEXTS)).index_add_(0, rows.text_ids, (gradients * (rows.x - baseline)).sum(1))
    ends = [
        embed(model, TEXTS, edits={"blocks.0": edit}) @ direction
        for edit in (lambda x: x, lambda x: baseline.expand_as(x))
    ]
    assert np.allclose(change, ends[0] - ends[1], atol=0.05 * np.abs(ends[0] - ends[1]).max() + 1e-3)


def test_flipped_texts_count_negatively(model: LanguageModel, sae: SparseAutoencoder) -> None:
    y = np.array(["a", "b", "a", "b"])
    plain = integrated_gradients_attribution(model, sae, TEXTS, direction, y=y, steps=2)
    flipped = integrated_gradients_attribution(model, sae, TEXTS, direction, y=y, flip=y == "a", steps=2)
    assert np.allclose(flipped.effect[0], -plain.effect[0], atol=1e-6)
    assert np.allclose(flipped.effect[1], plain.effect[1], atol=1e-6)
    assert plain.classes == ("a", "b")
    assert 0 <= plain.p_value.min() <= plain.p_value.max() <= 1


def test_double_precision_gives_the_same(model: LanguageModel, sae: SparseAutoencoder) -> None:
    double = SparseAutoencoder(sae.cfg.updated(dtype="float64"), random_state=0)
    double.load_state_dict(sae.state_dict())
    a, b = (integrated_gradients_attribution(model, s, TEXTS, direction, steps=3) for s in (sae, double))
    assert np.allclose(a.score, b.score, atol=1e-4)


def test_bad_input(model: LanguageModel, sae: SparseAutoencoder) -> None:
    with pytest.raises(InputError, match="entries"):
        integrated_gradients_attribution(model, sae, TEXTS, direction[:3])
    with pytest.raises(InputError, match="steps"):
        integrated_gradients(model, TEXTS, torch.from_numpy(direction), "embeddings", steps=0)
    with pytest.raises(InputError, match="twice"):
        integrated_gradients(model, [TEXTS[0]] * 2, torch.from_numpy(direction), "embeddings")
