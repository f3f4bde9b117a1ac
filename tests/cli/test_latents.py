"""``latents``: a page and a file, then another model; bad input is one line and code 2."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_debiaser import concept, fitted, small_encoder, texts

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main

__all__ = ["concept", "fitted", "small_encoder", "texts"]


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["latents", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(fitted: SSAEDebiaser, texts: list[str], tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    table = pd.DataFrame(
        {"bio": texts, "job": ["nurse" in t for t in texts], "sex": ["she" in t for t in texts]}
    )
    table.to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def show(folder: Path, *more: object) -> tuple[int, str]:
    given = ("--data", folder / "train.csv", "--text", "bio", "--out", folder / "latents.html")
    return invoke(folder / "model", *given, *more)


def test_page_file_and_new_model(fitted: SSAEDebiaser, folder: Path) -> None:
    code, output = show(folder, "--target", "job", "--n", 4)
    assert code == 0, output
    assert "6 of them removed" in output
    page = (folder / "latents.html").read_text()
    assert page.count('<article class="card latent"') == 10
    assert page.count(" checked") == 6
    file = folder / "latents.yaml"
    text = file.read_text()
    assert (text.count("tick: true"), text.count("tick: false")) == (6, 4)
    file.write_text(text.replace("tick: true", "tick: FALSE", 1).replace("tick: false", "tick: true", 1))
    ids = fitted.intervention_.selection.ids
    code, output = invoke(
        *(folder / "model", "--choices", file, "--data", folder / "train.csv", "--text", "bio"),
        *("--out", folder / "again"),
    )
    assert code == 0, output
    assert "1 latents stay in, 1 more go; 6 are removed in all" in output
    again = SSAEDebiaser.load(folder / "again")
    assert len(set(again.intervention_.selection.ids) & set(ids)) == 5
    new = ["she was born in the city"]
    assert not np.allclose(again.transform(new), fitted.transform(new))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "x.html"), "--data is missing"),
        (("--data", "train.csv", "--text", "bio", "--out", "x.pdf"), "ends in .html"),
        (("--data", "train.csv", "--text", "biography", "--out", "x.html"), "no column 'biography'"),
        (("--choices", "nowhere.yaml", "--out", "again"), "nowhere.yaml"),
    ],
)
def test_refusals(arguments: Any, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    code, output = invoke("model", *arguments)
    assert code == 2
    assert message in output
    assert len([line for line in output.splitlines() if line.strip()]) == 1
    assert set(folder.iterdir()) == before
