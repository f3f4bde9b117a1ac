"""``sae eval`` from end to end on a small random causal model: sections, files, resuming, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as tf
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers

from debias_ssae.benchmark.sae_evaluation import SECTIONS, Subject, evaluate_sae, loss_records
from debias_ssae.cli import main
from debias_ssae.core.config import EvaluationConfig, SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model.causal import load_causal
from debias_ssae.sae import SparseAutoencoder, save_sae

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENDS = ("at", "en", "ing", "ol", "ush", "ark")
WORDS = [letter + end for letter in LETTERS for end in ENDS]
SMALL = EvaluationConfig(
    n_tokens=6_000,
    n_positions=40,
    n_words=150,
    n_examples=2,
    n_ablated=2,
    n_explained=8,
    n_judged=2,
    max_length=32,
)


def record(records: list[dict[str, Any]], measure: str, **where: Any) -> Any:
    (found,) = [
        r for r in records if r["measure"] == measure and all(r.get(k) == v for k, v in where.items())
    ]
    return found["value"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two blocks, an SAE and a smaller one of its embeddings, and texts with labels."""
    path = tmp_path_factory.mktemp("sae-eval")
    names = ["[UNK]", "he", "she", *LETTERS.upper(), *WORDS, "has", "the", "first", "letter", ":"]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(path / "lm")
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=len(names), intermediate_size=48,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    tf.LlamaForCausalLM(config).save_pretrained(path / "lm")
    for name, width, seed in (("sae", 64, 0), ("reference", 64, 1)):
        cfg = SAEConfig(d_in=32, d_sae=width, k=8, architecture="topk")
        save_sae(SparseAutoencoder(cfg, random_state=seed), path / name)
    rng = np.random.default_rng(0)
    person, job = rng.integers(0, 2, 400), rng.integers(0, 3, 400)
    texts = [
        " ".join([("he", "she")[p], WORDS[j], *rng.choice(WORDS[20:], 12)])
        for p, j in zip(person, job, strict=True)
    ]
    table = {"text": texts, "job": [f"job {j > 0}" for j in job], "gender": person, "kind": job}
    pd.DataFrame(table).to_parquet(path / "data.parquet")
    (path / "general.txt").write_text(
        "\n".join(" ".join(rng.choice(WORDS, 10)) for _ in range(300)), encoding="utf-8"
    )
    return path


def command(folder: Path, out: str, *more: str) -> list[str]:
    sets = [item for k, v in SMALL.model_dump().items() if v is not None for item in ("--set", f"{k}={v}")]
    return [
        "sae", "eval", str(folder / "sae"), "--encoder", str(folder / "lm"), "--hookpoint", "blocks.0",
        "--data", str(folder / "data.parquet"), "--general", str(folder / "general.txt"),
        "--reference", str(folder / "reference"), "--out", str(folder / out), *sets, *more,
    ]  # fmt: skip


def test_the_command_measures_everything_once(folder: Path) -> None:
    labels = [item for c in ("job", "gender", "kind") for item in ("--label", c)]
    run = CliRunner().invoke(
        main, command(folder, "out", *labels, "--concept", "gender"), catch_exceptions=False
    )
    assert run.exit_code == 0, run.output
    written = json.loads((folder / "out" / "evaluation.json").read_text())
    records = written["records"]
    assert {r["section"] for r in records} == set(SECTIONS)
    assert all({"measure", "value"} <= set(r) for r in records)
    for part in ("domain", "general"):
        clean = record(records, "cross_entropy", part=part, splice="clean")
        zero = record(records, "cross_entropy", part=part, splice="zero")
        assert record(records, "loss_recovered_zero", part=part, splice="zero") == pytest.approx(0)
        assert clean != zero
        assert record(records, "bits_per_token", part=part, of=None) > 0
    assert {r["part"] for r in records if r["measure"] == "coverage"} == {"domain", "general"}
    assert 0 < record(records, "pw_mcc") < 1
    assert {r["concept"] for r in records if r["section"] == "absorption" and r["task"] == "gender"} >= {
        "mean"
    }
    assert any(r.get("task") == "first letter" and r["measure"] == "absorption_rate" for r in records)
    assert record(records, "sparse_probe_accuracy", column="gender", k="dense") > 0.9
    assert {r["direction"] for r in records if r["measure"] == "scr"} == {1, 2, "lower base"}
    assert any(r["measure"] == "tpp" and r["column"] == "kind" for r in records)
    page = (folder / "out" / "evaluation.html").read_text()
    assert "SCR and TPP were found unfit" in page
    assert page.count("<svg") >= 4
    again = CliRunner().invoke(main, command(folder, "out", *labels, "--concept", "gender"))
    assert again.output.count(": kept") == len(SECTIONS)
    assert json.loads((folder / "out" / "evaluation.json").read_text()) == written


def test_a_changed_setting_is_measured_anew(folder: Path) -> None:
    only = ["--section", "reconstruction"]
    CliRunner().invoke(main, command(folder, "again", *only), catch_exceptions=False)
    run = CliRunner().invoke(main, command(folder, "again", *only, "--seed", "1"), catch_exceptions=False)
    assert "kept" not in run.output
    assert len(list((folder / "again" / "parts").glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--section", "magic"], "unknown sections magic: give some of reconstruction"),
        (["--label", "age"], "has no column 'age'"),
        (["--judge", "http://localhost:1"], "--judge-model"),
        (["--hookpoint", "blocks.7"], "Unknown hookpoint"),
        (["--set", "n_token=3"], "did you mean n_tokens"),
    ],
)
def test_wrong_options_are_told(folder: Path, more: list[str], said: str) -> None:
    run = CliRunner().invoke(main, command(folder, "wrong", *more))
    assert run.exit_code == 2
    assert said in run.output


def test_an_sae_of_another_width_is_refused(folder: Path) -> None:
    save_sae(SparseAutoencoder(SAEConfig(d_in=8, d_sae=16, k=2), random_state=0), folder / "narrow")
    wrong = [
        str(folder / "narrow") if part == str(folder / "sae") else part for part in command(folder, "wrong")
    ]
    run = CliRunner().invoke(main, wrong)
    assert "rows of width 8" in run.output


def test_a_judge_who_knows_scores_one_and_one_who_always_agrees_less(folder: Path, tmp_path: Path) -> None:
    causal = load_causal(str(folder / "lm"))
    texts = pd.read_parquet(folder / "data.parquet")["text"].tolist()
    x = causal.body.module.get_input_embeddings().weight[1].detach()  # of the token he
    sae = SparseAutoencoder(SAEConfig(d_in=32, d_sae=1, architecture="relu"), random_state=0)
    with torch.no_grad():
        sae.W_enc[0] = x / x.square().sum()
        sae.b_enc[:] = -0.7
    asked = []

    def knows(question: str) -> bool:
        asked.append(question)
        return "Excerpt: he" in question

    for judge, expected in ((knows, 1.0), (lambda question: True, 2 / 3)):
        subject = Subject(sae, causal.body, "embeddings", texts, judge=judge, config=SMALL)
        found = evaluate_sae(subject, tmp_path / str(expected), sections=["explanations"])
        assert record(found, "detection_f1", latent=0) == 1
        assert record(found, "judged_detection_f1") == pytest.approx(expected, abs=0.05)
    assert "active on: he" in asked[0]


def test_loss_recovered_is_one_for_the_identity_and_zero_for_the_ablation() -> None:
    clean, zero = np.array([1.0, 2.0]), np.array([4.0, 7.0])
    kl = {name: np.zeros(2) for name in ("sae", "zero")}
    found = loss_records({"clean": clean, "zero": zero, "sae": clean}, kl)
    assert record(found, "loss_recovered_zero", splice="sae") == 1
    assert record(found, "loss_recovered_zero", splice="zero") == 0
    assert record(found, "perplexity", splice="clean") == pytest.approx(np.exp(1.5))


def test_an_unknown_section_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown sections"):
        evaluate_sae(Subject(None, None, "", []), tmp_path, sections=["magic"])  # type: ignore[arg-type]
