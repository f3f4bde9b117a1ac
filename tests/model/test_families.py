"""Every family's hookpoints are found by structure and give what a plain run of the model gives."""

import numpy as np
import pytest
import torch
from small_models import D_MODEL, FAMILIES, N_BLOCKS, sentences, small_model, small_tokenizer
from torch import nn
from transformers import IBertConfig, IBertModel, LongformerConfig, LongformerModel, MptConfig, MptModel

from debias_ssae.core.errors import InputError
from debias_ssae.model import embed, harvest, harvest_many, wrap_model
from debias_ssae.model.language_model import find_blocks
from debias_ssae.model.readout import first_of

TEXTS = sentences(12)


def _plain(model, text, **kwargs):
    """One text, alone, through the untouched Hugging Face model."""
    out = model.tokenizer(
        text, return_tensors="pt", return_special_tokens_mask=True, return_token_type_ids=False
    )
    special = out.pop("special_tokens_mask")[0].bool()
    with torch.no_grad():
        return model.module(**out, **kwargs), ~special


@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_the_plain_run_of_each_text(family):
    model = small_model(family)
    found = harvest_many(
        model.with_limits(token_budget=40), TEXTS, ["embeddings", "blocks.0", "blocks.1", "final"]
    )
    for i, text in enumerate(TEXTS):
        plain, real = _plain(model, text, output_hidden_states=True)
        wanted = {f"blocks.{b}": plain.hidden_states[b + 1] for b in range(2)}
        wanted |= {"embeddings": plain.hidden_states[0], "final": plain.last_hidden_state}
        for hookpoint, states in wanted.items():
            rows = found[hookpoint].x[found[hookpoint].text_ids == i]
            torch.testing.assert_close(rows, states[0][real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_last_block_is_the_stream_before_the_final_norm(family):
    model = small_model(family)
    assert model.d_model == D_MODEL
    assert model.n_blocks == N_BLOCKS
    assert model.hookpoints[0] == "embeddings"
    assert model.hookpoints[-1] == "final"
    assert len(model.hookpoints) == 2 + 3 * N_BLOCKS
    last, final = (harvest(model, TEXTS, h).x for h in (f"blocks.{N_BLOCKS - 1}", "final"))
    base = getattr(model.module, "decoder", model.module)
    norms = [m for name, m in base.named_children() if "norm" in name.lower() or name == "ln_f"]
    expected = norms[0](last) if norms else last
    torch.testing.assert_close(final, expected.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_parts_write_to_the_stream(family, part):
    """With its attention and feed-forward outputs set to zero a block no longer depends on their weights."""
    model = small_model(family)
    name = f"blocks.1.{part}"
    assert harvest(model, TEXTS, name).x.shape[1] == D_MODEL
    zero = {name: torch.zeros_like}
    silenced = embed(model, TEXTS, layer="blocks.1", edits=zero)
    assert abs(silenced - embed(model, TEXTS, layer="blocks.1")).max() > 1e-3
    target = model.targets[name].module
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(1.0)
    changed = embed(model, TEXTS, layer="blocks.1", edits=zero)
    torch.testing.assert_close(torch.from_numpy(changed), torch.from_numpy(silenced), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt_neox", "llama"])
def test_residual_stream_is_the_sum_of_its_parts(family):
    model = small_model(family)
    names = ["blocks.0", "blocks.1.attn", "blocks.1.mlp", "blocks.1"]
    found = harvest_many(model, TEXTS, names)
    total = found["blocks.0"].x + found["blocks.1.attn"].x + found["blocks.1.mlp"].x
    if family == "bert":  # norm after each addition
        block = model.blocks[1]
        middle = block.attention.output.LayerNorm(found["blocks.0"].x + found["blocks.1.attn"].x)
        total = block.output.LayerNorm(middle + found["blocks.1.mlp"].x)
    torch.testing.assert_close(found["blocks.1"].x, total.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_stops_after_the_last_hookpoint(family):
    model = small_model(family)
    ran = []
    handles = [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(model.blocks)]
    harvest(model, TEXTS[:2], "blocks.1")
    assert set(ran) == {0, 1}
    ran.clear()
    harvest(model, TEXTS[:2], "embeddings")
    assert ran == []
    for handle in handles:
        handle.remove()


def test_a_head_is_left_out_and_bf16_stays_close():
    import transformers as tf

    full = small_model("gpt_neox")
    torch.manual_seed(0)
    with_head = tf.GPTNeoXForCausalLM(full.module.config)
    with_head.gpt_neox.load_state_dict(full.module.state_dict())
    wrapped = wrap_model(with_head, full.tokenizer)
    assert (embed(wrapped, TEXTS) == embed(full, TEXTS)).all()
    low = embed(small_model("gpt_neox", torch.bfloat16), TEXTS)
    cosine = torch.cosine_similarity(torch.from_numpy(low), torch.from_numpy(embed(full, TEXTS)))
    assert cosine.min() > 0.999
    assert not (low == embed(full, TEXTS)).all()


def test_a_model_that_does_not_run_in_bfloat16_runs_in_float32():
    model = small_model("bert")
    attention = model.blocks[0].attention.self

    def fail(module, args, output):
        # as DeBERTa: a float32 constant that bfloat16 cannot hold
        states = output[0]
        if torch.is_autocast_enabled("cpu"):
            states.to(torch.bfloat16).masked_fill(states == 0, torch.finfo(torch.float32).min)

    attention.register_forward_hook(fail)
    low = wrap_model(model.module, model.tokenizer, dtype=torch.bfloat16)
    assert low.dtype == torch.float32
    assert np.array_equal(embed(low, TEXTS), embed(model, TEXTS))


@pytest.mark.parametrize("n", [2, 3])  # two, as many as there are sublayers in one of its blocks
def test_encoder_of_an_encoder_decoder_model(n):
    import transformers as tf

    config = tf.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=n, num_heads=4, vocab_size=64)
    model = wrap_model(tf.T5Model(config), small_model("bert").tokenizer)
    assert model.n_blocks == n
    assert type(model.blocks[0]).__name__ == "T5Block"
    assert model.hookpoints[1:4] == ["blocks.0.attn", "blocks.0.mlp", "blocks.0"]
    target = model.targets["blocks.0.mlp"].module
    assert target is model.blocks[0].layer[1].DenseReluDense.wo


def test_a_module_without_blocks_is_refused():
    with pytest.raises(InputError, match="no list of attention blocks"):
        find_blocks(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="no list of attention blocks"):
        find_blocks(small_model("bert").module, 7)


SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd"), D_MODEL),
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
MORE = {"intermediate_size": 48, "vocab_size": 64, "pad_token_id": 0, "max_position_embeddings": 40}


@pytest.mark.parametrize(
    ("family", "more", "attn", "mlp"),
    [
        # a gate is registered behind o_proj
        ("afmoe", {"num_experts": 2, "num_experts_per_tok": 1, "num_dense_layers": 2}, "o_proj", "mlp"),
        ("minimax", {"num_local_experts": 2}, "out_proj", "mlp"),
        # experts write, one row a token and expert, and the part adds them up
        (
            "jetmoe",
            {"kv_channels": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
            "self_attention",
            "mlp",
        ),
        ("phi3", {}, "o_proj", "mlp"),
        ("qwen3", {}, "o_proj", "mlp"),
        # both parts add the stream to what they give
        ("bloom", {"n_head": 4, "n_layer": 2}, "dense", "dense_4h_to_h"),
    ],
)
def test_the_module_that_writes_is_found_by_running(family, more, attn, mlp):
    import transformers as tf

    torch.manual_seed(0)
    config = tf.AutoConfig.for_model(
        family,
        **{
            **SMALL,
            **MORE,
            **more,
            **({} if family == "bloom" else {"num_key_value_heads": 2, "head_dim": 8}),
        },
    )
    model = wrap_model(tf.AutoModel.from_config(config), small_tokenizer())
    names = {id(module): name.split(".")[-1] for name, module in model.module.named_modules()}
    found = [names[id(model.targets[f"blocks.1.{part}"].module)] for part in ("attn", "mlp")]
    assert found == [attn, mlp]
    parts = harvest_many(model, TEXTS, ["blocks.0", "blocks.1.attn", "blocks.1.mlp", "blocks.1"])
    total = sum(parts[name].x for name in ("blocks.0", "blocks.1.attn", "blocks.1.mlp"))
    if family not in ("afmoe", "minimax"):
        torch.testing.assert_close(parts["blocks.1"].x, total, atol=1e-4, rtol=1e-4)
        return
    # they scale or norm what is added; without it the model is the one whose attention says nothing
    bare = wrap_model(model.module, small_tokenizer(adds_special=False))
    edited = embed(bare, TEXTS, edits={"blocks.1.attn": torch.zeros_like})
    with bare.blocks[1].self_attn.register_forward_hook(lambda m, i, out: (out[0] * 0, *out[1:])):
        np.testing.assert_allclose(edited, embed(bare, TEXTS), atol=1e-5)
    assert np.abs(edited - embed(bare, TEXTS)).max() > 1e-3


def test_a_block_that_returns_a_list():
    import transformers as tf

    config = tf.OpenAIGPTConfig(vocab_size=64, n_embd=D_MODEL, n_layer=2, n_head=4, n_positions=40)
    model = wrap_model(tf.OpenAIGPTModel(config), small_tokenizer())
    for hookpoint in model.hookpoints:
        assert harvest(model, TEXTS, hookpoint).x.shape[1] == D_MODEL
    assert not np.allclose(embed(model, TEXTS, edits={"blocks.0": torch.neg}), embed(model, TEXTS))


@pytest.mark.parametrize("is_causal", [True, False])
def test_whether_padding_needs_a_mask_is_seen_not_believed(is_causal):
    """A decoder made an encoder by its config keeps the modules' flags of a decoder."""
    import transformers as tf

    torch.manual_seed(0)
    sizes = {**SMALL, **MORE, "num_key_value_heads": 2}
    model = wrap_model(tf.LlamaModel(tf.LlamaConfig(**sizes, is_causal=is_causal)), small_tokenizer())
    assert model.is_causal is is_causal
    together = embed(model.with_limits(token_budget=10_000), TEXTS)
    alone = np.concatenate([embed(model, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)


class _Leaky(torch.nn.Module):
    """Says that it is a transformer, and lets each text see the others' padding."""

    def __init__(self) -> None:
        super().__init__()
        import transformers as tf

        torch.manual_seed(0)
        self.inner = tf.BertModel(tf.BertConfig(**SMALL, **MORE))
        self.config = self.inner.config

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, input_ids, attention_mask=None, scale=1.0):
        out = self.inner(input_ids=input_ids)
        out["last_hidden_state"] = out["last_hidden_state"] * scale
        return out


def test_models_that_are_not_what_they_claim_are_refused():
    leaky = _Leaky()
    with pytest.raises(InputError, match="depend on the texts beside them"):
        wrap_model(leaky, small_tokenizer())
    leaky.inner.encoder.layer[0].output.dense.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        wrap_model(leaky.inner, small_tokenizer())
    with pytest.raises(InputError, match="no transformers model"):
        wrap_model(nn.Linear(2, 2), small_tokenizer())
    small = small_model("bert")
    small.module.set_input_embeddings(nn.Embedding(8, D_MODEL))
    wrapped = wrap_model(small.module, small.tokenizer)
    with pytest.raises(InputError, match="the model knows 8 tokens"):
        embed(wrapped, ["she works in the city"])


def test_a_model_that_pads_behind_the_batch_is_read_and_edited_all_the_same():
    """Longformer pads to its window inside, and takes that off after the last block."""
    config = LongformerConfig(
        vocab_size=64,
        hidden_size=D_MODEL,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        attention_window=8,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    model = wrap_model(LongformerModel(config, add_pooling_layer=False).eval(), small_tokenizer())
    texts = sentences(5)
    rows = harvest_many(model.with_limits(token_budget=40), texts, ["blocks.0", "final"])
    assert {len(found.x) for found in rows.values()} == {len(harvest(model, texts, "embeddings").x)}
    plain, edited = (embed(model, texts, edits=edits) for edits in ({}, {"blocks.0": torch.neg}))
    assert not np.allclose(plain, edited)
    np.testing.assert_allclose(embed(model, texts, edits={"blocks.0": lambda x: x}), plain, atol=1e-5)


def test_states_with_tokens_first_are_refused():
    import transformers as tf

    config = tf.XLNetConfig(vocab_size=64, d_model=D_MODEL, n_layer=2, n_head=4, d_inner=64)
    with pytest.raises(InputError, match="not texts x tokens x width"):
        harvest(wrap_model(tf.XLNetModel(config), small_tokenizer()), TEXTS, "blocks.0")


def test_an_output_of_another_width_is_refused():
    model = small_model("opt")
    model.module.decoder.project_out = torch.nn.Linear(D_MODEL, D_MODEL // 2)
    with pytest.raises(InputError, match="another hookpoint"):
        embed(model, ["he works"])


def test_a_module_that_returns_no_states_is_said():
    with pytest.raises(InputError, match=r"returns .'context_layer'.*cannot be hooked"):
        first_of({"context_layer": torch.zeros(1)})


def test_positions_that_a_family_states_in_its_own_way():
    """MPT calls them max_seq_len; I-BERT's table of positions is no nn.Embedding."""
    config = MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=64, max_seq_len=24)
    assert wrap_model(MptModel(config), small_tokenizer()).max_length == 24
    config = IBertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=64,
        max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    assert wrap_model(IBertModel(config), small_tokenizer()).max_length == 38
