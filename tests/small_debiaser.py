"""A fitted debiaser of a small random model that lies on disk, so that no weights have to be there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from debias_ssae import Concept, DebiasConfig, SSAEDebiaser, TrainConfig
from debias_ssae.core.config import SelectionConfig
from debias_ssae.model.encoder import ActivationEncoder

WORDS = ["she", "he", "her", "his", "woman", "man", "nurse", "surgeon", "works", "in", "the", "city"]
WORDS += ["clinic", "and", "was", "born", "a", "of", "hospital", "old"]
TRAIN = TrainConfig(n_steps=20, batch_size=256)
CONFIG = DebiasConfig(
    d_sae=64,
    k=8,
    general=TRAIN,
    special=TRAIN,
    selection=SelectionConfig(most_latents=6, min_cell=5),
)


def make_texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 14))) for _ in range(n)]


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names: Any = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    module = BertModel(BertConfig(**sizes, vocab_size=32, max_position_embeddings=40))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return make_texts(200)


@pytest.fixture(scope="session")
def concept() -> Concept:
    pairs = (("he", "she"), ("his", "her"), ("man", "woman"))
    return Concept(pairs=pairs, name="gender|of <words>", values=("male", "female"))


@pytest.fixture(scope="session")
def fitted(small_encoder: Path, texts: list[str], concept: Concept) -> SSAEDebiaser:
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    options = {"output_eraser": None, "config": CONFIG, "random_state": 0}
    return SSAEDebiaser(encoder, attribute=concept, **options).fit(texts)  # type: ignore[arg-type]
