"""A fine-tuned classifier keeps its own head, which reads debiased states; its directory needs transformers only."""

import ast
import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from click.testing import CliRunner
from small_debiaser import CONFIG, make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.export import debiased_classifier, export_classifier, load_exported, modeling_debiased
from debias_ssae.model.encoder import ActivationEncoder

NEW = [*make_texts(12, seed=7), "", "nurse " * 60, "unseen words only"]
SIZES = {"vocab_size": 32, "num_labels": 3, "pad_token_id": 0}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
KINDS: dict[str, Any] = {
    # what the head makes of the vectors that it reads
    "bert": (tf.BertConfig(**BERT, **SIZES), "cls", lambda m, x: m.classifier(m.bert.pooler.dense(x).tanh())),
    "roberta": (
        tf.RobertaConfig(**BERT, **SIZES, max_position_embeddings=42),
        "cls",
        lambda m, x: m.classifier(x[:, None]),
    ),
    "distilbert": (
        tf.DistilBertConfig(**DISTILBERT, **SIZES),
        "cls",
        lambda m, x: m.classifier(m.pre_classifier(x).relu()),
    ),
    "gpt2": (tf.GPT2Config(**GPT2, **SIZES), "last", lambda m, x: m.score(x)),
}


def classifier(kind: str, small_encoder: Path, goal: Path) -> Path:
    """A random classifier on disk, with the small tokenizer."""
    torch.manual_seed(0)
    module = tf.AutoModelForSequenceClassification.from_config(KINDS[kind][0])
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module.config.id2label = {0: "nurse", 1: "surgeon", 2: "other"}
    module.save_pretrained(goal)
    tokenizer = tf.AutoTokenizer.from_pretrained(small_encoder)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(goal)
    return goal


def logits(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return model(**given).logits.numpy()


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_reads_what_transform_gives(
    kind: str, small_encoder: Path, texts: list[str], concept: Any, tmp_path: Path
) -> None:
    path = classifier(kind, small_encoder, tmp_path / "plain")
    _, mode, head = KINDS[kind]
    encoder = ActivationEncoder(str(path), dtype="float32")
    assert encoder.readout.modes == (mode,)
    hookpoints = ["embeddings", "blocks.0"] if kind == "bert" else "embeddings"
    debiaser = SSAEDebiaser(
        encoder, attribute=concept, hookpoint=hookpoints, n_latents=4, config=CONFIG,
        output_eraser="counterfactual" if kind in ("bert", "gpt2") else None, random_state=0,
    ).fit(texts)  # fmt: skip
    export_classifier(debiaser, tmp_path / "out")
    plain = tf.AutoModelForSequenceClassification.from_pretrained(path)
    with torch.no_grad():
        wanted = head(plain, torch.from_numpy(debiaser.transform(NEW))).numpy()
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "out")
    loaded = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(loaded).__module__.startswith("transformers_modules")
    for model in (debiased_classifier(debiaser), loaded, load_exported(tmp_path / "out")):
        assert largest(logits(model, tokenizer, NEW), wanted) < 1e-4
    alone = np.concatenate([logits(loaded, tokenizer, [text]) for text in NEW])
    assert largest(alone, wanted) < 1e-4, "padding changes nothing"
    assert largest(logits(plain, tokenizer, NEW), wanted) > 1e-2, "the control: the plain classifier differs"


@pytest.fixture(scope="module")
def both(
    small_encoder: Path, texts: list[str], concept: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SSAEDebiaser, Path]:
    folder = tmp_path_factory.mktemp("classifiers")
    path = classifier("bert", small_encoder, folder / "plain")
    module = tf.AutoModelForSequenceClassification.from_pretrained(path)
    encoder = ActivationEncoder.from_model(module, tf.AutoTokenizer.from_pretrained(path), dtype="float32")
    debiaser = SSAEDebiaser(encoder, attribute=concept, n_latents=4, config=CONFIG, random_state=0).fit(texts)
    assert debiaser.output_kind_ is None, "its head was made on the shortcut's direction"
    assert debiaser.shift_ is not None
    debiaser.save(folder / "model")
    arguments = ["export", str(folder / "model"), "--to", "transformers", str(folder / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return path, debiaser, folder / "out"


def test_the_directory_needs_transformers_only_and_says_so_when_code_may_not_run(
    both: tuple[Path, SSAEDebiaser, Path],
) -> None:
    path, _, out = both
    code = (out / "modeling_debiased.py").read_text()
    assert code == Path(modeling_debiased.__file__).read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert imported <= {"torch", "transformers", "contextvars", "typing"}
    for options in ({}, {"trust_remote_code": False}):
        with pytest.raises(ValueError, match="trust_remote_code"):  # never the plain model, silently
            tf.AutoModelForSequenceClassification.from_pretrained(out, **options)
    tf.AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    again = tf.AutoModelForSequenceClassification.from_pretrained(path)
    assert type(again) is tf.BertForSequenceClassification
    card = (out / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card
    assert "library_name: transformers" in card


def test_what_people_do_to_a_classifier(
    both: tuple[Path, SSAEDebiaser, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = both[2]
    tokenizer = tf.AutoTokenizer.from_pretrained(out)
    model = tf.AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    wanted = logits(model, tokenizer, NEW)
    model.save_pretrained(tmp_path / "again")
    again = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert largest(logits(again, tokenizer, NEW), wanted) == 0
    low = tf.AutoModelForSequenceClassification.from_pretrained(
        out, trust_remote_code=True, dtype=torch.bfloat16
    )
    assert low.dtype == torch.bfloat16
    assert largest(logits(low.float(), tokenizer, NEW), wanted) < 0.1 * np.abs(wanted).max()
    with caplog.at_level(logging.ERROR):
        pipe = tf.pipeline("text-classification", model=model, tokenizer=tokenizer)
        labels = [found["label"] for found in pipe(NEW[:5])]
    assert labels == [model.config.id2label[i] for i in wanted[:5].argmax(1)]
    tokens = tokenizer(NEW[:5], padding=True, return_tensors="pt")
    loss = model(**tokens, labels=torch.zeros(5, dtype=torch.long)).loss
    assert loss.isfinite()


def test_nothing_removed_is_the_plain_classifier(
    both: tuple[Path, SSAEDebiaser, Path], texts: list[str], concept: Any
) -> None:
    path = both[0]
    encoder = ActivationEncoder(str(path), dtype="float32")
    debiaser = SSAEDebiaser(
        encoder, attribute=concept, alpha=0.0, output_eraser=None, config=CONFIG, random_state=0
    ).fit(texts)
    tokenizer = tf.AutoTokenizer.from_pretrained(path)
    plain = tf.AutoModelForSequenceClassification.from_pretrained(path)
    assert np.array_equal(
        logits(debiased_classifier(debiaser), tokenizer, NEW), logits(plain, tokenizer, NEW)
    )


def test_what_is_refused(both: tuple[Path, SSAEDebiaser, Path], fitted: SSAEDebiaser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no head of its own"):
        export_classifier(fitted, tmp_path / "out")
    other = copy.copy(both[1])
    other.encoder_ = both[1].text_encoder_.copy().set_params(pooling="mean")
    with pytest.raises(InputError, match="pools 'mean', which is not what the head"):
        debiased_classifier(other)
    weights = both[2] / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"!")
    with pytest.raises(InputError, match="checksum differs"):
        load_exported(both[2])
    weights.write_bytes(whole)
