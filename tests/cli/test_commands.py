"""fit, transform, benchmark, demo through the command line; bad input gives one line, code 2, and no file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from debias_ssae.cli import COMMANDS, main
from debias_ssae.core.config import DebiasConfig, RetrievalConfig, SelectionConfig, TrainConfig, dump_config
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.text import synthetic_biographies, synthetic_corpus

SMALL = DebiasConfig(
    d_sae=128,
    k=16,
    general=TrainConfig(n_steps=30, batch_size=256),
    special=TrainConfig(n_steps=10, batch_size=256, lr=5e-4, tilt="auto"),
    general_rows=5_000,
    retrieval=RetrievalConfig(n_texts=20, max_seeds=20),
    selection=SelectionConfig(most_latents=20, max_texts=60, min_cell=3),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bios = synthetic_biographies(60, correlation=0.3, n_professions=2, random_state=0)
    bios.to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"text": synthetic_corpus(60, random_state=0)}).to_parquet(tmp_path / "pool.parquet")
    (tmp_path / "small.yaml").write_text(dump_config(SMALL))
    return tmp_path


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def fit(folder: Path, *more: object) -> tuple[int, str]:
    given = ("--target", "profession", "--sensitive", "gender", "--config", folder / "small.yaml", "--quiet")
    return invoke("fit", "--data", folder / "train.csv", "--out", folder / "model", *given, *more)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    code, output = invoke(command, "--help")
    assert code == 0
    assert "Usage" in output


def test_unknown_command() -> None:
    assert invoke("no-such-command")[0] == 2
    code, output = invoke("disover")
    assert code == 2
    assert "Did you mean 'discover'?" in output


@pytest.mark.slow
def test_fit_then_transform(minilm, folder: Path) -> None:  # type: ignore[no-untyped-def]
    code, output = fit(folder, "--corpus", folder / "pool.parquet")
    assert code == 0, output
    assert "of 128 latents at embeddings" in output
    assert "A linear probe reads the attribute" in output
    table = pd.read_csv(folder / "train.csv")[["text"]].assign(number=range(100, 160))
    table.to_json(folder / "new.jsonl", orient="records", lines=True)
    for name in ("X.parquet", "X.csv"):
        code, output = invoke(
            "transform", folder / "model", "--data", folder / "new.jsonl", "--out", folder / name, "--quiet"
        )
        assert code == 0, output
    X = pd.read_parquet(folder / "X.parquet")
    assert X.shape == (60, 384)
    assert np.allclose(X, pd.read_csv(folder / "X.csv"), atol=1e-5)
    named = (
        "transform",
        folder / "model",
        "--data",
        folder / "new.jsonl",
        "--out",
        folder / "I.parquet",
        "--quiet",
    )
    assert invoke(*named, "--id", "number")[0] == 0
    with_id = pd.read_parquet(folder / "I.parquet")
    assert with_id["number"].tolist() == list(range(100, 160))
    assert np.array_equal(with_id.drop(columns="number"), X)
    assert "no column 'name'" in invoke(*named, "--id", "name")[1]
    twice = pd.concat([table.assign(number=range(60)), table.assign(number=range(60, 120))])
    twice.to_parquet(folder / "new.parquet")
    repeated = [folder / "new.parquet" if part == folder / "new.jsonl" else part for part in named]
    assert invoke(*repeated, "--id", "number")[0] == 0
    with_id = pd.read_parquet(folder / "I.parquet")
    assert with_id["number"].tolist() == list(range(120))
    assert np.array_equal(with_id.drop(columns="number")[:60], X)


def test_unknown_concept(folder: Path) -> None:
    code, output = invoke(
        "fit", "--data", folder / "train.csv", "--attribute", "klingon", "--out", folder / "m", "--quiet"
    )
    assert code == 2
    assert "klingon" in output


def test_fit_from_a_concept(minilm, folder: Path) -> None:  # type: ignore[no-untyped-def]
    code, output = invoke(
        *("fit", "--data", folder / "train.csv", "--attribute", "gender", "--config", folder / "small.yaml"),
        *("--out", folder / "model", "--quiet"),
    )
    assert code == 0, output
    assert "counterfactual" in output
    kept = json.loads((folder / "model" / "manifest.json").read_text())
    assert kept["about"]["parameters"]["attribute"]["Concept"]["name"] == "gender"
    again = ("fit", "--data", folder / "train.csv", "--attribute", "gender", "--out", folder / "model")
    assert "--overwrite" in invoke(*again)[1]


@pytest.mark.slow
def test_benchmark_on_a_users_table(minilm, folder: Path) -> None:  # type: ignore[no-untyped-def]
    table = synthetic_biographies(130, correlation=0.3, n_professions=2, random_state=0)
    table.columns = ["bio", "job", "sex"]
    table.to_csv(folder / "mine.csv.gz", index=False)
    config = {
        "debias": SMALL.model_dump(mode="json"),
        "n_test": 8,
        "n_attribute": 10,
        "methods": ["erm", "ssae"],
    }
    (folder / "protocol.yaml").write_text(yaml.safe_dump(config))
    code, output = invoke(
        *("benchmark", "table", "--data", folder / "mine.csv.gz", "--text", "bio", "--target", "job"),
        *("--sensitive", "sex", "--config", folder / "protocol.yaml", "--seeds", 1, "--regime", "labelled"),
        *("--out", folder / "results", "--quiet"),
    )
    assert code == 0, output
    assert "ssae" in output
    results = json.loads((folder / "results" / "results.json").read_text())
    assert len(results["data"]["sha256"]) == 64
    assert results["config"]["seeds"] == 1
    assert "<html" in (folder / "results" / "report.html").read_text()


def write(folder: Path, **columns: object) -> Path:
    pd.DataFrame(columns).to_csv(folder / "bad.csv", index=False)
    return folder / "bad.csv"


BAD = {
    "missing column": (lambda f: ("--data", f / "train.csv", "--text", "biography"), "no column 'biography'"),
    "empty table": (lambda f: ("--data", write(f, text=[], profession=[], gender=[])), "no rows"),
    "NaN target": (
        lambda f: ("--data", write(f, text=["a", "b"], profession=["x", None], gender=["m", "f"])),
        "targets are missing",
    ),
    "one group only": (
        lambda f: ("--data", write(f, text=["a", "b"], profession=["x", "y"], gender=["m", "m"])),
        "only the value 'm'",
    ),
    "unknown model": (lambda f: ("--data", f / "train.csv", "--encoder", "no/such"), "no/such"),
    "unreadable file": (lambda f: ("--data", f / "nowhere.csv"), "nowhere.csv"),
    "unknown setting": (
        lambda f: ("--data", f / "train.csv", "--config", write_config(f, d_size=3)),
        "d_size",
    ),
    "wrong n_latents": (lambda f: ("--data", f / "train.csv", "--n-latents", "many"), "whole number"),
    "unwritable out": (
        lambda f: ("--data", f / "train.csv", "--out", f / "train.csv" / "model"),
        "train.csv",
    ),
}


def write_config(folder: Path, **values: object) -> Path:
    (folder / "bad.yaml").write_text(yaml.safe_dump(values))
    return folder / "bad.yaml"


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name: str, minilm, folder: Path) -> None:  # type: ignore[no-untyped-def]
    arguments, message = BAD[name]
    given = arguments(folder)
    before = set(folder.rglob("*"))
    code, output = fit(folder, *given)
    lines = [line for line in output.splitlines() if line.strip()]
    assert code == 2, output
    assert len(lines) == 1, output
    assert lines[0].startswith("Error: ")
    assert message in lines[0]
    assert set(folder.rglob("*")) == before


def test_fit_never_trains_for_a_folder_that_holds_something_else(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "thesis.tex").write_text("years of work")
    code, output = fit(folder, "--encoder", "would be loaded before training")
    assert code == 2
    assert "no debiaser" in output
    assert (folder / "model" / "thesis.tex").exists()


def test_a_debiaser_of_a_matrix_transforms_no_table(folder: Path) -> None:
    X = np.random.default_rng(0).normal(size=(80, 8))
    z = np.repeat(["a", "b"], 40)
    SSAEDebiaser(config=SMALL.updated(d_sae=16, k=4), random_state=0).fit(X, sensitive_features=z).save(
        folder / "model"
    )
    code, output = invoke(
        "transform", folder / "model", "--data", folder / "train.csv", "--out", folder / "X.csv"
    )
    assert code == 2
    assert "fitted on a matrix" in output


def test_transform_never_overwrites_its_own_table(folder: Path) -> None:
    before = (folder / "train.csv").read_bytes()
    code, output = invoke(
        "transform", "anywhere", "--data", folder / "train.csv", "--out", folder / "train.csv"
    )
    assert code == 2
    assert "give another name" in output
    assert (folder / "train.csv").read_bytes() == before


def test_labels_and_a_concept_are_not_mixed_silently(folder: Path) -> None:
    code, output = fit(folder, "--attribute", "gender")
    assert code == 2
    assert "only one of them would be used" in output


def test_fit_needs_to_know_what_to_remove(folder: Path) -> None:
    code, output = invoke("fit", "--data", folder / "train.csv", "--out", folder / "model")
    assert code == 2
    assert "--attribute" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("transform", "nowhere", "--data", "train.csv", "--out", "X.txt"), "ends in .parquet or .csv"),
        (("transform", "nowhere", "--data", "train.csv", "--out", "X.csv"), "There is no model nowhere"),
        (("benchmark", "table", "--out", "r"), "needs --data"),
        (("benchmark", "--out", "r", "--professions", "nurse"), "at least two"),
        (("benchmark", "--data", "train.csv", "--out", "r", "--seeds", "0"), "seeds"),
        (("benchmark", "--data", "train.csv", "--out", "r", "--n-test", "900", "--quiet"), "fewer than"),
        (("benchmark", "--data", "train.csv", "--out", "r", "--methods", "erm,magic", "--quiet"), "magic"),
    ],
)
def test_other_commands_refuse_in_one_line(
    arguments: tuple[str, ...], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, output = invoke(*arguments)
    assert code == 2, output
    assert message in output
    assert len([line for line in output.splitlines() if line.strip()]) == 1
    assert not (folder / "X.csv").exists()


def test_no_network_names_data(folder: Path) -> None:
    code, output = invoke("benchmark", "bias-in-bios", "--out", folder / "r", "--quiet")
    assert code == 2
    assert "--data" in output
    assert not (folder / "r").exists()


@pytest.mark.slow
def test_demo(minilm, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from debias_ssae.core import config as room

    tiny = room.DEMO.updated(debias=SMALL.model_dump(), n_test=5, n_attribute=5, max_head=15)
    monkeypatch.setattr(room, "DEMO", tiny)
    monkeypatch.setattr("debias_ssae.cli.demo.N_CORPUS", 100)
    code, output = invoke("demo", "--out", folder / "demo", "--quiet")
    assert code == 0, output
    for name in ("ssae", "worst group", "report.html", "results.json"):
        assert name in output
    assert (folder / "demo" / "report.html").exists()


def test_a_demo_whose_debiaser_did_not_run_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"skipped": [{"method": "ssae_default", "regime": "concept", "reason": "The disk is full"}]}
    monkeypatch.setattr("debias_ssae.benchmark.run_benchmark", lambda *_, **__: told)
    monkeypatch.setattr("debias_ssae.cli.demo.show", lambda *_: None)
    code, output = invoke("demo", "--out", folder / "demo", "--quiet")
    assert code == 2
    assert "the debiaser itself did not run: The disk is full" in output
