"""Causal models with their head: cross-entropy as transformers has it, splices, gradients of answers."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from small_models import FAMILIES, sentences, small_tokenizer

from debias_ssae.core.errors import InputError
from debias_ssae.model.causal import answer_gradients, load_causal, next_tokens, vocabulary_words, wrap_causal

HEADED = {
    "gpt_neox": tf.GPTNeoXForCausalLM,
    "gpt2": tf.GPT2LMHeadModel,
    "llama": tf.LlamaForCausalLM,
    "gemma2": tf.Gemma2ForCausalLM,
}


def headed(family: str, **more: Any) -> Any:
    torch.manual_seed(0)
    module = HEADED[family](FAMILIES[family][1](**{**FAMILIES[family][2], **more}))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.requires_grad_(False).eval()


def causal(family: str = "llama", **more: Any) -> Any:
    return wrap_causal(headed(family, **more), small_tokenizer(adds_special=False), name=f"small-{family}")


@pytest.mark.parametrize("family", HEADED)
def test_cross_entropy_is_that_of_transformers(family: str) -> None:
    module, tokenizer = headed(family), small_tokenizer(adds_special=False)
    texts = [text for text in sentences(12) if len(text.split()) > 1]
    wrapped = wrap_causal(module, tokenizer)
    wrapped = replace(wrapped, body=wrapped.body.with_limits(token_budget=40))
    found = next_tokens(wrapped, texts, "blocks.1", {})
    for i, text in enumerate(texts):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        theirs = float(module(input_ids=ids, labels=ids).loss)
        assert found.loss["clean"][found.text_ids == i].mean() == pytest.approx(theirs, rel=1e-4)


def test_the_identity_changes_nothing_and_zeros_do() -> None:
    splices = {"identity": lambda x: x, "zero": torch.zeros_like}
    found = next_tokens(causal(), sentences(20), "blocks.0", splices)
    assert np.allclose(found.loss["identity"], found.loss["clean"], atol=1e-5)
    assert np.abs(found.kl["identity"]).max() < 1e-5
    assert found.kl["zero"].min() > -1e-6
    assert found.kl["zero"].mean() > 0.01


def test_scored_positions_are_a_sample_of_all() -> None:
    model, texts = causal(), sentences(30)
    whole = next_tokens(model, texts, "blocks.0", {})
    part = next_tokens(model, texts, "blocks.0", {}, max_positions=25, random_state=3)
    assert len(part.token_ids) == 25 < len(whole.token_ids)
    pairs = set(zip(whole.text_ids.tolist(), np.round(whole.loss["clean"], 4).tolist(), strict=True))
    mine = zip(part.text_ids.tolist(), np.round(part.loss["clean"], 4).tolist(), strict=True)
    assert sum(pair in pairs for pair in mine) >= 24  # one may round to the other side


def test_a_scaled_and_capped_head_is_followed_and_an_unknown_one_refused() -> None:
    capped = headed("gemma2", final_logit_softcapping=3.0)
    assert wrap_causal(capped, small_tokenizer(adds_special=False)).softcap == 3.0
    capped.config.final_logit_softcapping = None
    capped.lm_head.register_forward_hook(lambda *parts: parts[-1] * 1.5)
    with pytest.raises(InputError, match="cannot be followed"):
        wrap_causal(capped, small_tokenizer(adds_special=False))


def test_models_that_are_not_causal_are_refused() -> None:
    sizes = FAMILIES["bert"][2]
    bert = tf.BertForMaskedLM(tf.BertConfig(**sizes)).eval()
    with pytest.raises(InputError, match="attend to later"):
        wrap_causal(bert, small_tokenizer())
    with pytest.raises(InputError, match="no language-modelling head"):
        wrap_causal(tf.LlamaModel(tf.LlamaConfig(**FAMILIES["llama"][2])), small_tokenizer())


def test_files_without_a_head_are_refused(tmp_path: Path) -> None:
    tf.GPTNeoXModel(tf.GPTNeoXConfig(**FAMILIES["gpt_neox"][2])).save_pretrained(tmp_path)
    small_tokenizer(adds_special=False).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="lack weights of a causal language model"):
        load_causal(str(tmp_path))


def test_gradients_of_answers_are_those_of_finite_differences() -> None:
    model = causal()
    prompts, choices = ["the nurse works in", "a surgeon was born"], [5, 6, 7]
    at, answers = [5, 3], np.array([0, 2])
    d, hook = model.body.d_model, "blocks.1"
    states, gradients = answer_gradients(
        model, prompts, at, hook, answers, choices, baseline=torch.zeros(d), steps=1
    )
    direction = torch.randn(d, generator=torch.Generator().manual_seed(1))

    def preference(i: int, shift: float) -> float:
        from debias_ssae.model import harvest

        def edit(rows: torch.Tensor) -> torch.Tensor:
            moved = rows.clone()
            moved[1] += shift * direction
            return moved

        last = harvest(model.body, [prompts[i]], "final", edits={hook: edit}).x[-1:]
        logits = model.logits(last, torch.tensor(choices))[0]
        others = np.delete(logits.numpy(), answers[i])
        return float(logits[answers[i]]) - float(others.mean())

    for i in range(2):
        slope = (preference(i, 5e-3) - preference(i, -5e-3)) / 1e-2
        assert float(gradients[i] @ direction) == pytest.approx(slope, rel=0.02, abs=1e-3)
    assert states.shape == (2, d)
    assert float(states.abs().sum()) > 0


def test_more_steps_average_along_the_path() -> None:
    model = causal()
    options: Any = (["the nurse works in"], [5], "blocks.1", np.array([1]), [5, 6, 7])
    states, one = answer_gradients(model, *options, baseline=torch.zeros(model.body.d_model), steps=1)
    _, at_itself = answer_gradients(model, *options, baseline=states[0], steps=4)
    assert torch.allclose(one, at_itself, atol=1e-5)  # a path of no length


def test_words_of_the_vocabulary() -> None:
    words = vocabulary_words(small_tokenizer())
    assert "nurse" in words
    assert "Dr" in words
    assert "2" not in words
    assert "." not in words


def test_the_real_model_reads_english() -> None:
    folder = os.environ.get("DEBIAS_SSAE_MODELS")
    if not folder or not (Path(folder) / "gemma-3-270m").is_dir():
        pytest.skip("DEBIAS_SSAE_MODELS does not name a folder with gemma-3-270m")
    model = load_causal(str(Path(folder) / "gemma-3-270m"))
    text = "The Eiffel Tower is a wrought-iron lattice tower on the Champ de Mars in Paris, France."
    found = next_tokens(model, [text], "blocks.8", {"zero": torch.zeros_like})
    assert found.loss["clean"].mean() < 4 < found.loss["zero"].mean()
