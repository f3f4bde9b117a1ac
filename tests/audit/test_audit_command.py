"""debias-ssae audit: files, exit codes, one line for bad input."""

import json
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from debias_ssae.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 300
    y, gender = rng.integers(0, 2, n), rng.choice(["f", "m"], n)
    erm = np.where((gender == "f") & (y == 1) & (rng.random(n) < 0.6), 0, y)
    table = pd.DataFrame(
        {
            "y": y,
            "gender": gender,
            "age": rng.choice(["old", "young", None], n),
            "erm": erm,
            "ssae": y,
            "score": np.clip(erm * 0.8 + 0.1, 0, 1),
            "w": rng.random(n),
            "region": rng.choice(["n", "s"], n),
            "counterfactual": np.where(rng.random(n) < 0.5, erm, np.nan),
            "text": "she is Anna",
            "swapped": "he is Anna",
        }
    )
    path = tmp_path / "p.csv"
    table.to_csv(path, index=False)
    return path


def _run(
    data: Path, *options: str, base: tuple[str, ...] = ("--target", "y", "--prediction", "erm")
) -> Result:
    sensitive = () if "--sensitive" in options else ("--sensitive", "gender")
    return CliRunner().invoke(main, ["audit", "--data", str(data), *base, *sensitive, *options])


def test_all_outputs_are_written_and_agree(data: Path) -> None:
    outs = {kind: data.with_suffix(f".{kind}") for kind in ("html", "json", "md", "xml")}
    given = [part for out in outs.values() for part in ("--out", str(out))]
    result = _run(data, "--prediction", "ssae", "--sensitive", "gender", "--sensitive", "age", *given)
    assert result.exit_code == 0, result.output
    found = json.loads(outs["json"].read_text(encoding="utf-8"))
    assert found["sections"] == ["gender", "age", "gender x age"]
    assert found["models"] == ["erm", "ssae"]
    assert len(found["provenance"]["sha256_of_the_data"]) == 64
    assert found["provenance"]["sha256_of_the_data"] in outs["html"].read_text(encoding="utf-8")
    assert "1 / f" in result.output
    assert outs["md"].read_text(encoding="utf-8").startswith("# Fairness audit")
    assert ET.fromstring(outs["xml"].read_text(encoding="utf-8")).tag == "testsuite"


def test_the_same_command_writes_the_same_json(data: Path) -> None:
    out = data.with_suffix(".json")
    texts = []
    for _ in range(2):
        assert _run(data, "--prediction", "ssae", "--out", str(out), "--seed", "3").exit_code == 0
        texts.append(out.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_gates_end_with_one_and_still_write(data: Path) -> None:
    out = data.with_suffix(".xml")
    gate = ("--fail-under", "worst_group_accuracy=0.8", "--fail-over", "tpr_gap_rms=0.9")
    result = _run(data, "--out", str(out), *gate)
    assert result.exit_code == 1
    assert "FAILED worst_group_accuracy [gender, erm]" in result.output
    assert "PASSED tpr_gap_rms [gender, erm]" in result.output
    assert ET.fromstring(out.read_text(encoding="utf-8")).attrib["failures"] == "1"
    assert _run(data, "--out", str(out), *gate, base=("--target", "y", "--prediction", "ssae")).exit_code == 0


def test_scores_weights_controls_and_positive_label(data: Path) -> None:
    out = data.with_suffix(".json")
    options = (
        "--score",
        "score",
        "--weight",
        "w",
        "--control",
        "region",
        "--pos-label",
        "0",
        "--n-bootstrap",
        "20",
    )
    assert _run(data, "--out", str(out), *options).exit_code == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["sections"] == ["gender", "gender | region = n", "gender | region = s"]
    assert found["settings"]["pos_label"] == "0"
    assert "calibration_error" in {row["metric"] for row in found["by_group"]}


def test_texts_are_saved_only_when_asked_for(data: Path) -> None:
    out = data.with_suffix(".html")
    options = (
        "--counterfactual-prediction",
        "counterfactual",
        "--text",
        "text",
        "--counterfactual-text",
        "swapped",
        "--out",
        str(out),
    )
    assert _run(data, *options).exit_code == 0
    assert "Anna" not in out.read_text(encoding="utf-8")
    page = out.read_text(encoding="utf-8")
    assert "Counterfactual flips" in page
    assert _run(data, *options, "--with-texts").exit_code == 0


def test_example_texts_can_be_masked(data: Path) -> None:
    table = pd.read_csv(data)
    table["counterfactual"] = 1 - table["erm"]
    table.to_csv(data, index=False)
    out = data.with_suffix(".html")
    options = (
        "--counterfactual-prediction",
        "counterfactual",
        "--text",
        "text",
        "--counterfactual-text",
        "swapped",
        "--out",
        str(out),
    )
    assert _run(data, *options, "--with-texts").exit_code == 0
    assert "she is Anna" in out.read_text(encoding="utf-8")
    assert _run(data, *options, "--with-texts", "--mask-names").exit_code == 0
    assert "she is […]" in out.read_text(encoding="utf-8")


def test_every_attribute_is_probed_by_itself(data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))
    outs = [data.with_suffix(".json"), data.with_suffix(".html")]
    given = [part for out in outs for part in ("--out", str(out))]
    both = ("--sensitive", "gender", "--sensitive", "age")
    result = _run(data, *both, "--representations", str(tmp_path / "x.npy"), *given)
    assert result.exit_code == 0, result.output
    found = json.loads(outs[0].read_text(encoding="utf-8"))["leakage"]
    assert {name: one["values"] for name, one in found.items()} == {
        "gender": ["f", "m"],
        "age": ["old", "young"],
    }
    assert found["age"]["n_missing"] == pd.read_csv(data)["age"].isna().sum() > 0
    page = outs[1].read_text(encoding="utf-8")
    assert "still tell of gender" in page
    assert "still tell of age" in page


def test_leakage_comes_from_a_file(data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))
    out = data.with_suffix(".json")
    assert _run(data, "--representations", str(tmp_path / "x.npy"), "--out", str(out)).exit_code == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {r["probe"] for r in found["leakage"]["results"]} == {"linear", "mlp", "boosted"}
    assert len(found["provenance"]["sha256_of_the_representations"]) == 64


def test_without_out_the_audit_is_printed_and_summary_is_a_sentence(data: Path) -> None:
    before = sorted(p.name for p in data.parent.iterdir())
    whole, short = _run(data), _run(data, "--summary")
    assert whole.exit_code == short.exit_code == 0
    assert "By gender\n" in whole.output
    assert "worst-group accuracy" in whole.output
    assert whole.output.startswith(short.output.strip())
    assert short.output.startswith("Fails: By gender, ")
    assert len(short.output.splitlines()) <= 4
    assert max(map(len, whole.output.splitlines())) <= 82
    assert sorted(p.name for p in data.parent.iterdir()) == before


def test_a_cell_may_be_allowed_to_be_empty(data: Path) -> None:
    table = pd.read_csv(data)
    table = table[(table["gender"] != "f") | (table["y"] == 1)]
    table.to_csv(data, index=False)
    gate = ("--summary", "--fail-under", "worst_group_accuracy=0.1")
    assert _run(data, *gate).exit_code == 1
    assert _run(data, *gate, "--allow-undefined", "0 / f").exit_code == 0
    assert _run(data, *gate, "--allow-undefined", "all").exit_code == 0
    assert "There is no cell '0 / g'" in _run(data, *gate, "--allow-undefined", "0 / g").output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prediction", "nope"), "no column 'nope'"),
        (("--fail-under", "accuracy"), "measure=number"),
        (("--fail-under", "joy=1"), "No measure 'joy'"),
        (("--score", "score", "--prediction", "ssae"), "--score is needed once for each"),
        (("--out", "x.pdf"), "unknown kind of file"),
        (("--out", "nowhere/x.html"), "no directory"),
        (("--representations", "nope.npy"), "Cannot read nope.npy"),
        (("--pos-label", "7"), "--pos-label='7' is no label"),
        (("--n-bootstrap", "1"), "--n-bootstrap must be"),
        (("--weight", "text"), "--weight must be numbers"),
        (("--sensitive", "text"), "one group only"),
        (("--sensitive", "y"), "--sensitive y is also --target"),
    ],
)
def test_bad_input_is_one_line_and_two_and_writes_nothing(
    data: Path, options: tuple[str, ...], message: str
) -> None:
    before = sorted(p.name for p in data.parent.iterdir())
    result = _run(data, "--out", str(data.with_suffix(".html")), *options)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert sorted(p.name for p in data.parent.iterdir()) == before


def test_an_unreadable_or_empty_table_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("y,erm,gender\n", encoding="utf-8")
    for path, message in ((tmp_path / "none.csv", "no file"), (tmp_path / "e.csv", "no rows")):
        result = _run(path, "--out", str(tmp_path / "a.html"))
        assert result.exit_code == 2
        assert message in result.output


def test_the_page_of_the_documentation_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    said, namespace, ran = "", {}, []
    for kind, block in re.findall(r"```(python|console|text)\n(.*?)```", page, re.DOTALL):
        ran.append(kind)
        if kind == "python":
            exec(compile(block, "docs/audit.md", "exec"), namespace)
            said = capsys.readouterr().out
        elif kind == "console":
            result = CliRunner().invoke(main, shlex.split(block)[1:])
            assert result.exit_code == 0, result.output
            said = result.output
        else:
            assert said.strip() == block.strip()
    assert ran.count("console") >= 3
    assert ran.count("python") >= 3
    assert (tmp_path / "audit.html").exists()
    for line in re.findall(r"^debias-ssae (\w+)(.*(?:\\\n.*)*)", page, re.MULTILINE):
        shown = CliRunner().invoke(main, [line[0], "--help"]).output
        assert all(option in shown for option in re.findall(r"--[a-z-]+", line[1]))
