"""``discover``: a page, choices with their SAE, the next round from them; bad input is one line and code 2."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from small_debiaser import make_texts, small_encoder

from debias_ssae import Choices
from debias_ssae.cli import main
from debias_ssae.model.encoder import ActivationEncoder

__all__ = ["small_encoder"]
CONFIG = """
d_sae: 64
k: 8
general: {n_steps: 20, batch_size: 256}
special: {n_steps: 10, batch_size: 256}
discovery: {n_texts: 30, n_what_if: 30, n_tried: 8, n_cards: 6, steps: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = make_texts(160)
    job = np.where([" she " in f" {t} " for t in texts], "nurse", "surgeon")
    table = pd.DataFrame({"bio": texts, "job": job, "said": job, "sure": np.where(job == "nurse", -0.7, 1.2)})
    table.to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def invoke(folder: Path, *arguments: object) -> tuple[int, str]:
    given = ("discover", "--data", folder / "train.csv", "--text", "bio", *arguments)
    result = CliRunner().invoke(main, [str(a) for a in given])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def run(folder: Path, encoder: Path, *arguments: object) -> str:
    pytest.importorskip("jinja2", reason="the page comes from the extra report")
    options = ("--encoder", encoder, "--config", folder / "config.yaml", "--cache", folder / "cache")
    code, output = invoke(folder, *options, "--out", folder / "found", *arguments)
    assert code == 0, output
    return output


def test_page_choices_and_the_next_round(folder: Path, small_encoder: Path) -> None:
    output = run(folder, small_encoder, "--target", "job", "--class-words", "nurse=nurse clinic")
    lines = output.splitlines()
    listed = [line.split()[0] for line in lines if line[3:10].strip().endswith("%")]
    page = (folder / "found" / "shortcuts.html").read_text()
    shown = page.split('<details class="group"')[0]
    assert listed == re.findall(r'class="rank">(\d+)<', shown), "what the page folds is not listed"
    assert "[1/6] sparse autoencoder" in output
    found = folder / "found"
    assert lines[-5].startswith(("Look first at: ", "No card stands out", "Nothing stands out"))
    assert f"open {found / 'shortcuts.html'}" in lines[-4]
    given = f"--data {folder / 'train.csv'} --text bio --target job"
    model = f"--encoder {small_encoder}"
    assert (
        f"debias-ssae discover {given} {model} --class-words 'nurse=nurse clinic' --out {found}" in lines[-3]
    )
    assert lines[-3].endswith(f" --choices {found / 'choices.yaml'}")
    assert "when nothing suspicious leads any more" in lines[-2]
    assert f"debias-ssae fit --attribute {found / 'choices.yaml'} {given} {model} --cache " in lines[-1]
    assert page.count('<article class="card latent"') == 6
    file = folder / "found" / "choices.yaml"
    file.write_text(file.read_text().replace("tick: false", "tick: true", 1))
    ticked = Choices.load(file)
    again = run(folder, small_encoder, "--target", "job", "--choices", found, "--quiet")
    assert "[1/" not in again
    later = Choices.load(file)
    assert later.names == ticked.names
    assert not set(later.ids["embeddings"]) & {
        i for card in later.cards["embeddings"] if not card.tick for i in card.ids
    }


@pytest.mark.filterwarnings("default::debias_ssae.NothingRemovedWarning")
def test_a_model_of_no_tick_is_not_passed_on(folder: Path, small_encoder: Path) -> None:
    run(folder, small_encoder, "--target", "job", "--quiet")
    given = (
        "--attribute",
        folder / "found",
        "--data",
        folder / "train.csv",
        "--text",
        "bio",
        "--target",
        "job",
    )
    options = ("--encoder", small_encoder, "--out", folder / "model", "--quiet")
    result = CliRunner().invoke(main, ["fit", *map(str, (*given, *options))], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Warning: no card of the choices is ticked" in result.output
    assert result.output.splitlines()[-1].startswith("Nothing is removed")


def test_the_users_classifier(folder: Path, small_encoder: Path) -> None:
    skops = pytest.importorskip("skops.io", reason="heads come from the extra heads")
    table = pd.read_csv(folder / "train.csv")
    X = ActivationEncoder(str(small_encoder)).transform(table["bio"])
    skops.dump(LogisticRegression(max_iter=2000).fit(X, table["job"]), folder / "head.skops")
    assert "linear head agrees" not in run(
        folder, small_encoder, "--target", "job", "--model", folder / "head.skops"
    )


@pytest.mark.parametrize("arguments", [("--prediction", "said"), ("--prediction", "sure", "--target", "job")])
def test_predictions_are_distilled_and_the_fidelity_is_said(
    folder: Path, small_encoder: Path, arguments: tuple[str, ...]
) -> None:
    assert "The linear head agrees with the given classifier on" in run(folder, small_encoder, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--target is missing"),
        (("--target", "profession"), "no column 'profession'"),
        (("--prediction", "guess"), "no column 'guess'"),
        (("--prediction", "said", "--model", "head.skops"), "both name the classifier"),
        (("--target", "job", "--class-words", "nurse"), "expected CLASS=WORDS"),
        (("--target", "job", "--choices", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_refusals(arguments: Any, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    code, output = invoke(folder, "--out", "found", *arguments)
    assert code == 2
    assert message in output
    assert len([line for line in output.splitlines() if line.strip()]) == 1
    assert set(folder.iterdir()) == before
