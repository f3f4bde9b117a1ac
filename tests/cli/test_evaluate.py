"""evaluate, predict and doctor; typos are found without torch, and errors speak of options."""

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import skops.io
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from small_debiaser import concept, fitted, small_encoder, texts

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main
from debias_ssae.cli.checks import in_options
from debias_ssae.cli.evaluate import _fingerprint

__all__ = ["concept", "fitted", "small_encoder", "texts"]


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, fitted: SSAEDebiaser, texts: list[str]) -> Path:
    rng = np.random.default_rng(0)
    gender = np.where([" she " in f" {t} " for t in texts], "f", "m")
    y = np.where(rng.random(len(texts)) < 0.9, gender == "f", gender == "m").astype(int)
    table = pd.DataFrame({"text": [f"{t} {i}" for i, t in enumerate(texts)], "y": y, "gender": gender})
    table["id"] = np.arange(len(table))
    table[::2].to_csv(tmp_path / "train.csv", index=False)
    table[1::2].to_csv(tmp_path / "test.csv", index=False)
    fitted.save(tmp_path / "model")
    return tmp_path


def evaluate(folder: Path, *more: object) -> tuple[int, str]:
    tables = ("--train", folder / "train.csv", "--data", folder / "test.csv")
    return invoke("evaluate", *tables, "--target", "y", "--sensitive", "gender", "--quiet", *more)


def test_models_are_evaluated_side_by_side_and_a_saved_head_predicts_the_same(folder: Path) -> None:
    out, head = folder / "audit.json", folder / "head.skops"
    code, output = evaluate(folder, "plain", folder / "model", "--out", out, "--save-head", head)
    assert code == 0, output
    assert output.splitlines()[0].split() == ["accuracy", "worst", "group", "(gender)"]
    assert "compared with plain" in output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["models"] == ["plain", "model"]
    assert "sha256_of_the_data" in found["provenance"]
    given = ("--head", head, "--data", folder / "test.csv", "--id", "id", "--quiet")
    code, output = invoke("predict", folder / "model", *given, "--out", folder / "p.csv")
    assert code == 0, output
    predicted, test = pd.read_csv(folder / "p.csv"), pd.read_csv(folder / "test.csv")
    assert predicted["id"].tolist() == test["id"].tolist()
    accuracy = next(
        r["value"] for r in found["measures"] if (r["model"], r["metric"]) == ("model", "accuracy")
    )
    assert (predicted["prediction"].to_numpy() == test["y"].to_numpy()).mean() == pytest.approx(accuracy)
    assert np.allclose(predicted[["p(0)", "p(1)"]].sum(axis=1), 1)
    code, output = invoke("predict", "plain", *given, "--out", folder / "q.csv")
    assert code == 2
    assert "belongs to another model" in output
    assert not (folder / "q.csv").exists()


def test_a_file_that_is_no_head_is_not_run(folder: Path) -> None:
    with ZipFile(folder / "evil.skops", "w") as file:
        schema = {
            "__class__": "system",
            "__module__": "os",
            "__loader__": "ObjectNode",
            "content": None,
            "__id__": 1,
        }
        file.writestr("schema.json", json.dumps({**schema, "protocol": 2, "_skops_version": "0.16.0"}))
    (folder / "broken.skops").write_text("no zip", encoding="utf-8")
    narrow = LogisticRegression().fit(np.eye(4), [0, 1, 0, 1])
    undefined = LogisticRegression().fit(np.eye(32), [0, 1] * 16)
    undefined.coef_ = np.full((1, 32), np.nan)
    for name, held in {
        "other": "text",
        "unfitted": LogisticRegression(),
        "narrow": narrow,
        "nan": undefined,
    }.items():
        content = {"head": held, "of": _fingerprint(str(folder / "model")), "encoder": "minilm"}
        (folder / f"{name}.skops").write_bytes(skops.io.dumps(content))
    for name in ("evil", "broken", "absent", "other", "unfitted", "narrow", "nan"):
        given = ("--head", folder / f"{name}.skops", "--data", folder / "test.csv", "--out", folder / "p.csv")
        code, output = invoke("predict", folder / "model", *given, "--quiet")
        assert code == 2
        assert len(output.strip().splitlines()) == 1
        assert "--head" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("modle",), "did you mean"),
        (("model", "model"), "evaluated once"),
        (("plain", "--sensitive", "gendr"), "--sensitive: "),
        (("plain", "--text", "txt"), "no column 'txt'"),
        (("plain", "--out", "x.pdf"), "unknown kind of file"),
        (("plain", "--save-head", "x.pkl"), "ends in .skops"),
        (("plain", "--train", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_typos_are_one_line_without_torch(folder: Path, change: tuple[str, ...], message: str) -> None:
    arguments = [
        "evaluate",
        "--train",
        "train.csv",
        "--data",
        "test.csv",
        "--target",
        "y",
        "--sensitive",
        "gender",
    ]
    code = (
        "import sys\nfrom debias_ssae.cli import main\n"
        f"try:\n    main({[*arguments, *change]!r})\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    assert found.stdout.strip() == "2 False False"
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_fit_sees_a_wrong_hookpoint_or_encoder_without_torch(folder: Path) -> None:
    given = [
        "fit",
        "--data",
        str(folder / "train.csv"),
        "--sensitive",
        "gender",
        "--out",
        str(folder / "new"),
    ]
    for change, message in (
        (["--hookpoint", "blocks.one"], "--hookpoint 'blocks.one'"),
        (["--layer", "last"], "--layer 'last'"),
        (["--encoder", "./nowhere"], "--encoder ./nowhere"),
    ):
        code = (
            "import sys\nfrom debias_ssae.cli import main\n"
            f"try:\n    main({[*given, *change]!r})\n"
            "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "2 False"
        assert message in found.stderr


def test_errors_speak_of_options_and_leave_what_is_quoted() -> None:
    said = in_options("y_true has 3 missing; no column 'y_true' in /a/y_true.csv; pos_label=7, random_state")
    assert said == "--target has 3 missing; no column 'y_true' in /a/y_true.csv; --pos-label=7, --seed"


def test_texts_in_both_tables_are_said(folder: Path) -> None:
    code, output = evaluate(folder, folder / "model", "--data", folder / "train.csv")
    assert code == 0, output
    assert "are also in --train" in output


def test_doctor_says_what_is_there_and_how_to_get_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke("doctor")
    assert code == 0
    for said in ("debias-ssae ", "torch ", "Device: ", "Threads: ", "Extras"):
        assert said in output
    import debias_ssae.cli.doctor as doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "jinja2" else real(name))
    assert "missing jinja2: pip install 'debias-ssae[report]'" in invoke("doctor")[1]
