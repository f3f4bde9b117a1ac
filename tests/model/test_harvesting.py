"""Rows of real tokens, in order, each with its text; edits inside the pass; pooling."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import D_MODEL, sentences, small_model, small_tokenizer

from debias_ssae.core.errors import InputError
from debias_ssae.model import (
    embed,
    harvest,
    harvest_many,
    load_model,
    stream_rows,
    wrap_model,
)
from debias_ssae.model.forward import clean_texts, tokenize

BERT, NEOX = small_model("bert"), small_model("gpt_neox")
TEXTS = sentences(30)


@pytest.mark.parametrize("model", [BERT, NEOX], ids=["bert", "neox"])
def test_rows_are_in_text_and_position_order_with_spans(model):
    found = harvest(model.with_limits(token_budget=64), TEXTS, "blocks.0")
    assert found.n_texts == len(TEXTS)
    assert found.x.dtype == torch.float32
    assert (found.text_ids.diff() >= 0).all()
    for i, text in enumerate(TEXTS):
        spans = found.offsets[found.text_ids == i].tolist()
        assert [text[a:b] for a, b in spans] == text.replace(".", " .").split()
    assert found.token_ids.tolist() == [
        token for text in TEXTS for token in model.tokenizer(text, add_special_tokens=False)["input_ids"]
    ]


@given(st.lists(st.sampled_from([*TEXTS[:8], "", "unseen"]), max_size=12), st.integers(1, 80))
@settings(max_examples=25, deadline=None)
def test_order_duplicates_and_budget_do_not_change_a_text(texts, budget):
    model = BERT.with_limits(token_budget=budget)
    found, vectors = harvest(model, texts, "blocks.1"), embed(model, texts, layer="blocks.1")
    np.testing.assert_allclose(found.pool().numpy(), vectors, atol=1e-5)
    for i, text in enumerate(texts):
        alone = harvest(BERT, [text], "blocks.1")
        torch.testing.assert_close(found.x[found.text_ids == i], alone.x, atol=1e-5, rtol=1e-4)
        assert (found.token_ids[found.text_ids == i] == alone.token_ids).all()


def test_equal_texts_run_once():
    calls = []
    handle = BERT.blocks[0].register_forward_hook(lambda m, args, out: calls.append(args[0].shape[0]))
    try:
        harvest(BERT, ["he works"] * 5 + ["she works"])
        embed(BERT, ["he works"] * 5 + ["she works"], layer="blocks.0")
    finally:
        handle.remove()
    assert sum(calls) == 2  # the first call stops before block 0


def test_stream_gives_the_rows_of_harvest_and_reads_lazily(monkeypatch):
    monkeypatch.setattr("debias_ssae.model.harvesting.CHUNK_TEXTS", 8)
    read = []

    def source():
        for text in TEXTS:
            read.append(text)
            yield text

    stream = stream_rows(BERT, source(), "blocks.1")
    first = next(stream)
    assert len(read) == 8
    rows = torch.cat([first, *stream])
    torch.testing.assert_close(rows, harvest(BERT, TEXTS, "blocks.1").x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_no_edit_and_identity_edit_keep_every_bit(family, dtype):
    model = small_model(family, dtype)
    plain = embed(model, TEXTS)
    harvest(model, TEXTS[:3], "blocks.0")  # earlier calls leave nothing behind
    everywhere = {name: (lambda x: x) for name in model.hookpoints}
    for edits in (None, {}, everywhere):
        assert (embed(model, TEXTS, edits=edits) == plain).all()


def test_edits_see_real_rows_only_in_float32_and_reach_the_output():
    seen = []

    def shift(x):
        seen.append(x)
        return x + 1

    low = small_model("bert", torch.bfloat16)
    edited = harvest(low, TEXTS, "embeddings", edits={"embeddings": shift})
    plain = harvest(low, TEXTS, "embeddings")
    assert sum(len(x) for x in seen) == len(plain.x)
    assert all(x.dtype == torch.float32 for x in seen)
    torch.testing.assert_close(edited.x, plain.x + 1)
    assert abs(embed(low, TEXTS, edits={"embeddings": shift}) - embed(low, TEXTS)).max() > 1e-3
    product = embed(
        low, TEXTS, layer="embeddings", edits={"embeddings": lambda x: x @ torch.full((32, 32), 1.003)}
    )
    exact = harvest(low, TEXTS, "embeddings").x @ torch.full((32, 32), 1.003)
    np.testing.assert_allclose(product[0], exact[plain.text_ids == 0].mean(0).numpy(), rtol=1e-4)


def test_several_edits_in_one_pass_equal_a_hand_made_chain():
    project = torch.eye(D_MODEL)
    project[0, 0] = 0
    edits = {"embeddings": lambda x: x @ project, "blocks.1": lambda x: 2 * x, "final": lambda x: x + 3}
    both = embed(NEOX, TEXTS[:4], edits=edits)
    for i, text in enumerate(TEXTS[:4]):
        ids = torch.tensor([NEOX.tokenizer(text)["input_ids"]])
        first = NEOX.blocks[0].register_forward_pre_hook(lambda m, args: (args[0] @ project, *args[1:]))
        second = NEOX.blocks[1].register_forward_hook(lambda m, args, out: 2 * out)
        with torch.no_grad():
            states = NEOX.module(input_ids=ids).last_hidden_state[0] + 3
        first.remove()
        second.remove()
        np.testing.assert_allclose(both[i], states.mean(0).numpy(), atol=1e-4, rtol=1e-4)


def test_poolings():
    states = harvest(BERT, TEXTS, "final")
    out = {p: embed(BERT, TEXTS, pooling=p) for p in ("mean", "max", "last", "cls")}
    for i in (0, 7):
        rows = states.x[states.text_ids == i].numpy()
        np.testing.assert_allclose(out["mean"][i], rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(out["max"][i], rows.max(0), atol=1e-5)
        np.testing.assert_allclose(out["last"][i], rows[-1], atol=1e-5)
        with torch.no_grad():
            whole = BERT.module(**BERT.tokenizer(TEXTS[i], return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(out["cls"][i], whole[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("model", [BERT, NEOX], ids=["bert", "neox"])
def test_odd_texts_go_through(model):
    odd = [
        "",
        " ",
        "\x00",
        "🙂 🙃",
        "naïve Ünïcode 漢字 مرحبا",
        "\ud800 he",
        "he\u2028she",
        "x " * 50_000,
        "[SEP] he",
    ]
    found = harvest(model, odd, "blocks.0")
    vectors = embed(model, odd)
    assert found.n_texts == len(odd)
    assert np.isfinite(vectors).all()
    assert (vectors[:2] == 0).all()
    counts = torch.bincount(found.text_ids, minlength=len(odd))
    assert counts[7] <= model.max_length
    assert counts[8] == 1  # a special token spelled out in the text is no row
    assert counts[5] == 2
    assert embed(model, []).shape == (0, D_MODEL)
    assert harvest(model, []).x.shape == (0, D_MODEL)


def test_nothing_to_run_gives_zeros():
    assert (embed(NEOX, ["", ""]) == 0).all()
    assert len(harvest(NEOX, ["", ""]).x) == 0


def test_a_model_wrapped_again_uses_its_new_weights():
    text = ["she works in the city"]
    plain = embed(NEOX, text)
    module = copy.deepcopy(NEOX.module)
    again = wrap_model(module, NEOX.tokenizer)
    assert np.allclose(embed(again, text), plain, atol=1e-5)
    for parameter in module.parameters():
        parameter.data.mul_(0.5)  # nothing tells of a change through .data
    changed = wrap_model(module, NEOX.tokenizer)
    fresh = wrap_model(copy.deepcopy(module), NEOX.tokenizer)
    np.testing.assert_allclose(embed(changed, text), embed(fresh, text), atol=1e-5)
    assert abs(embed(changed, text) - plain).max() > 1e-3


def test_bad_input_is_named():
    for call in (lambda: harvest(BERT, ["a"], "blocks.9"), lambda: embed(BERT, ["a"], layer="blocks.9")):
        with pytest.raises(
            InputError, match=r"Unknown hookpoint 'blocks.9'.*embeddings, blocks.0.attn.*final"
        ):
            call()
    with pytest.raises(InputError, match="Unknown hookpoint 'nowhere'"):
        next(stream_rows(BERT, ["a"], "nowhere"))
    with pytest.raises(InputError, match="would do nothing"):
        embed(BERT, ["a"], layer="blocks.0", edits={"blocks.2": torch.clone})
    with pytest.raises(InputError, match="single string"):
        embed(BERT, "a text")
    with pytest.raises(InputError, match="row 1 holds None"):
        harvest(BERT, ["a", None])
    with pytest.raises(InputError, match="Unknown pooling 'sum'"):
        embed(BERT, ["a"], pooling="sum")
    with pytest.raises(InputError, match="changed the shape"):
        embed(BERT, ["he works"], edits={"blocks.0": lambda x: x[:1]})
    with pytest.raises(InputError, match="max_length=2"):
        BERT.with_limits(2)


def test_a_failing_edit_leaves_no_hook_behind():
    before = embed(BERT, TEXTS)

    def broken(x):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        embed(BERT, TEXTS, edits={"blocks.0": broken})
    assert (embed(BERT, TEXTS) == before).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in BERT.module.modules())


def test_several_hookpoints_run_one_pass():
    calls = []
    handle = NEOX.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    model = NEOX.with_limits(token_budget=10_000)
    found = harvest_many(model, TEXTS, ["blocks.2", "embeddings"])
    handle.remove()
    assert len(calls) == 1
    assert (found["embeddings"].x == harvest(model, TEXTS, "embeddings").x).all()


def test_slow_tokenizers_work_without_spans():
    class Slow:
        is_fast = False
        inner = small_tokenizer()
        all_special_ids, unk_token_id, pad_token_id = inner.all_special_ids, inner.unk_token_id, 0

        def __call__(self, texts, *, return_offsets_mapping, **kwargs):
            assert not return_offsets_mapping
            return self.inner(texts, **kwargs)

    tokens = tokenize(Slow(), ["he works", "she"], 8)
    assert tokens.lengths.tolist() == [4, 3]
    assert (tokens.spans == 0).all()


def test_fingerprint_follows_weights_precision_and_name():
    ids = {small_model("bert").fingerprint, small_model("bert", torch.bfloat16).fingerprint, NEOX.fingerprint}
    assert len(ids) == 3
    assert small_model("bert").fingerprint == BERT.fingerprint
    changed = small_model("bert")
    next(changed.module.parameters()).view(-1)[0] += 1
    assert changed.fingerprint != BERT.fingerprint


@pytest.mark.parametrize(("family", "longest"), [("bert", 40), ("roberta", 39), ("mpnet", 38), ("llama", 40)])
def test_the_longest_sequence_runs(family, longest):
    model = small_model(family)
    assert model.max_length == longest
    assert len(harvest(model, ["he " * 100], "blocks.0").x) == longest - (2 if family != "llama" else 0)


def test_broken_characters_become_question_marks():
    assert clean_texts(["a\ud800b", "ü"]) == ["a?b", "ü"]


def test_load_minilm_and_unknown_models(tmp_path):
    model = load_model("minilm", dtype="float32", device="cpu")
    assert (model.d_model, model.n_blocks, model.max_length) == (384, 6, 512)
    assert "minilm" in repr(model)
    vectors = embed(model, ["She is a nurse.", "She works as a nurse.", "Stocks fell on Monday."])
    similar = np.corrcoef(vectors)
    assert similar[0, 1] > 0.7 > 0.4 > similar[0, 2]
    with pytest.raises(InputError, match="Cannot load the model"):
        load_model(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="did you mean minilm"):
        load_model("minilmm")
    with pytest.raises(InputError, match="Unknown dtype"):
        load_model("minilm", dtype="int3")


@pytest.mark.parametrize("wrong", ["x", 2.5, [4], -1])
def test_lengths_and_budgets_are_whole_numbers(wrong):
    for option in ("max_length", "token_budget"):
        with pytest.raises(InputError, match=f"{option}=.*: give at least"):
            small_model("bert").with_limits(**{option: wrong})
