"""``latents``: a page and a file, then another model; bad input is one line and code 2."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
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
    code, output = show(folder, "--target", "job", "--sensitive", "sex", "--n", 4)
    assert code == 0, output
    assert "6 of them removed" in output
    page = (folder / "latents.html").read_text()
    assert page.count('<article class="card latent"') == 10
    assert "Cos target" in page
    file = folder / "latents.yaml"
    values = yaml.safe_load(file.read_text())
    lines = values["parts"][0]["latents"]
    assert [line["remove"] for line in lines] == [True] * 6 + [False] * 4
    lines[0]["remove"], lines[7]["remove"] = False, True
    file.write_text(yaml.safe_dump(values))
    code, output = invoke(
        *(folder / "model", "--review", file, "--data", folder / "train.csv", "--text", "bio"),
        *("--out", folder / "again"),
    )
    assert code == 0, output
    assert "1 latents are kept, 1 more removed; 6 in all" in output
    again = SSAEDebiaser.load(folder / "again")
    assert set(again.intervention_.selection.ids) == {*fitted.intervention_.selection.ids[1:], lines[7]["id"]}
    new = ["she was born in the city"]
    assert not np.allclose(again.transform(new), fitted.transform(new))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "x.html"), "--data is missing"),
        (("--data", "train.csv", "--text", "bio", "--out", "x.pdf"), "ends in .html"),
        (("--data", "train.csv", "--text", "biography", "--out", "x.html"), "no column 'biography'"),
        (("--review", "nowhere.yaml", "--out", "again"), "Cannot read the review"),
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
