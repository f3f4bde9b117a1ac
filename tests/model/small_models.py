"""Small random models of the families that must be hookable, and a word-level tokenizer, for tests."""

from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from debias_ssae.model import LanguageModel, wrap_model

WORDS = [
    "the",
    "a",
    "nurse",
    "surgeon",
    "she",
    "he",
    "works",
    "in",
    "her",
    "his",
    "city",
    "clinic",
    "and",
    "of",
    "with",
    "was",
    "born",
    "2",
    "Dr",
    ".",
    ",",
    "!",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
D_MODEL = 32
N_BLOCKS = 3

_SIZES = {"hidden_size": D_MODEL, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 4, "vocab_size": 64}
_COMMON = {**_SIZES, "intermediate_size": 48, "max_position_embeddings": 40}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8}
_T5 = {"d_model": D_MODEL, "num_layers": N_BLOCKS, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": 64}
_GPT2 = {"n_embd": D_MODEL, "n_layer": N_BLOCKS, "n_head": 4, "vocab_size": 64, "n_positions": 40}

FAMILIES: dict[str, Any] = {
    "bert": (tf.BertModel, tf.BertConfig, _COMMON),
    "roberta": (tf.RobertaModel, tf.RobertaConfig, {**_COMMON, "pad_token_id": 0}),
    "mpnet": (tf.MPNetModel, tf.MPNetConfig, {**_COMMON, "pad_token_id": 0}),
    "gpt_neox": (tf.GPTNeoXModel, tf.GPTNeoXConfig, _COMMON),
    "gpt2": (tf.GPT2Model, tf.GPT2Config, _GPT2),
    "llama": (tf.LlamaModel, tf.LlamaConfig, _GROUPED),
    "gemma": (tf.GemmaModel, tf.GemmaConfig, _GROUPED),
    "gemma2": (tf.Gemma2Model, tf.Gemma2Config, {**_GROUPED, "sliding_window": 16}),
    "opt": (tf.OPTModel, tf.OPTConfig, {**_SIZES, "ffn_dim": 48, "word_embed_proj_dim": D_MODEL}),
    "qwen2": (tf.Qwen2Model, tf.Qwen2Config, {k: v for k, v in _GROUPED.items() if k != "head_dim"}),
    "t5": (tf.T5Model, tf.T5Config, _T5),
}
ENCODERS = ("bert", "roberta", "mpnet")


def small_tokenizer(*, adds_special: bool = True) -> Any:
    """Words of ``WORDS``; [CLS] and [SEP] around a text, or nothing (as GPT-2 does)."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds_special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]" if adds_special else None,
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def small_model(family: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A random model with three blocks of width 32; the same weights each time."""
    model_class, config_class, sizes = FAMILIES[family]
    torch.manual_seed(0)
    module = model_class(config_class(**sizes))
    for parameter in module.parameters():  # biases and norms too, so that nothing is trivially zero
        torch.nn.init.normal_(parameter, std=0.2)
    module.requires_grad_(False)
    tokenizer = small_tokenizer(adds_special=family in ENCODERS)
    return wrap_model(module, tokenizer, name=f"small-{family}", dtype=dtype)


def sentences(n: int, seed: int = 0, longest: int = 14) -> list[str]:
    """Texts of 1 to ``longest`` words; about one in ten has a word the tokenizer does not know."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(n):
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        picks = torch.randint(0, len(WORDS) + 1, (length,), generator=generator).tolist()
        texts.append(" ".join([*WORDS, "unseen"][i] for i in picks))
    return texts
