"""Erasers inside a forward pass: the same bits where nothing is removed, several hookpoints at once, a matrix."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from debias_ssae import SSAEDebiaser
from debias_ssae.core.config import DebiasConfig, SAEConfig, SelectionConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.erase import LatentEraser
from debias_ssae.model import LanguageModel, embed, harvest, wrap_model
from debias_ssae.sae.model import SparseAutoencoder

TEXTS = ["she is a nurse", "he is a surgeon in the city", "her clinic", "was born in the city"]
FIRST, SECOND = "embeddings", "blocks.1"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = sorted({word for text in TEXTS for word in text.split()})
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    module = BertModel(BertConfig(**sizes, vocab_size=64, max_position_embeddings=40))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return wrap_model(module, tokenizer)


def eraser(seed: int, alpha: float = 1.0) -> LatentEraser:
    sae = SparseAutoencoder(SAEConfig(d_in=32, d_sae=64, k=8), random_state=seed)
    return LatentEraser.from_sae(sae, range(20), alpha=alpha)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_alpha_0_gives_the_same_bits(model: LanguageModel, pooling: Any) -> None:
    plain = embed(model, TEXTS, pooling=pooling)
    edited = embed(model, TEXTS, pooling=pooling, edits={FIRST: eraser(0, 0.0), SECOND: eraser(1, 0.0)})
    assert np.array_equal(plain, edited)


def test_two_hookpoints_in_one_pass(model: LanguageModel) -> None:
    """What enters the second eraser has passed the first; the second then acts as it does on a matrix."""
    one, two = eraser(0), eraser(1)
    both = {FIRST: one, SECOND: two}
    alone = harvest(model, TEXTS, FIRST, edits={FIRST: one}).x
    assert torch.allclose(alone, one(harvest(model, TEXTS, FIRST).x), atol=1e-6)
    entered = harvest(model, TEXTS, SECOND, edits={FIRST: one}).x
    assert torch.allclose(harvest(model, TEXTS, SECOND, edits=both).x, two(entered), atol=1e-5)
    ends = [embed(model, TEXTS, edits=e) for e in ({}, {FIRST: one}, {SECOND: two}, both)]
    for i, a in enumerate(ends):
        for b in ends[:i]:
            assert not np.allclose(a, b, atol=1e-4)


def test_the_order_in_which_edits_are_named_does_not_matter(model: LanguageModel) -> None:
    one, two = eraser(0), eraser(1)
    assert np.array_equal(
        embed(model, TEXTS, edits={FIRST: one, SECOND: two}),
        embed(model, TEXTS, edits={SECOND: two, FIRST: one}),
    )


def test_an_edit_behind_what_is_read_is_refused(model: LanguageModel) -> None:
    with pytest.raises(InputError, match="would do nothing"):
        embed(model, TEXTS, layer="blocks.0", edits={SECOND: eraser(0)})


@pytest.fixture(scope="module")
def on_matrix() -> Callable[[float], tuple[SSAEDebiaser, np.ndarray]]:
    rng = np.random.default_rng(0)
    y, z = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    X = rng.normal(size=(300, 8)).astype(np.float32)
    X[:, 0] += 3 * z
    train = TrainConfig(n_steps=30, batch_size=128)
    config = DebiasConfig(
        d_sae=32, k=4, general=train, special=train, recenter=False, selection=SelectionConfig(min_cell=5)
    )

    def fit(alpha: float) -> tuple[SSAEDebiaser, np.ndarray]:
        debiaser = SSAEDebiaser(output_eraser=None, config=config, n_latents=6, alpha=alpha, random_state=0)
        return debiaser.fit(X, y, sensitive_features=z), X

    return fit


def test_on_a_matrix(on_matrix: Callable[[float], tuple[SSAEDebiaser, np.ndarray]]) -> None:
    debiaser, X = on_matrix(1.0)
    sae, chosen = debiaser.intervention_.sae, debiaser.intervention_.selection.ids.tolist()
    with torch.no_grad():
        x = debiaser.encoder_.rows(X, "matrix").x  # in units of the columns' standard deviation
        change = sae.encode(x)[:, chosen] @ sae.W_dec[chosen]
    assert len(chosen) == 6
    assert np.allclose(debiaser.transform(X), X - change.numpy() * X.std(axis=0), atol=1e-5)
    assert not np.allclose(debiaser.transform(X), X, atol=1e-2)


def test_alpha_0_on_a_matrix(on_matrix: Callable[[float], tuple[SSAEDebiaser, np.ndarray]]) -> None:
    debiaser, X = on_matrix(0.0)
    assert len(debiaser.intervention_.selection.ids) == 6
    assert np.array_equal(debiaser.transform(X), X)
