"""What the benchmark's command asks for: data sets, regimes, quick looks, single settings."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from debias_ssae import benchmark as module
from debias_ssae.cli import main
from debias_ssae.cli.benchmark import MAIN
from debias_ssae.core.config import QUICK, BenchmarkConfig, DebiasConfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[pd.DataFrame, BenchmarkConfig, dict[str, Any]]]:
    """Calls of the run, which does nothing but write a small results file."""
    calls: list[Any] = []
    rows = [
        {
            "method": "ssae_default",
            "regime": "concept",
            "head": head,
            "head_model": "logistic",
            "C_rule": "cv",
        }
        | {"representation": "mean(final)", "setting": "confounded", "worst_group_accuracy": 0.8}
        for head in ("retrained", "frozen")
    ]

    def run(table: pd.DataFrame, config: BenchmarkConfig, out: Path, **options: Any) -> dict[str, Any]:
        calls.append((table, config, options))
        results = {"summary": rows, "quick": config.quick, "data": options["data"], "runs": []}
        out.mkdir(exist_ok=True)
        (out / "results.json").write_text(json.dumps(results))
        return results

    monkeypatch.setattr(module, "run_benchmark", run)
    return calls


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["benchmark", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def bios(tmp_path: Path) -> Path:
    frame = pd.DataFrame(
        {
            "text": [f"{who} wrote text {i}" for i, who in enumerate(["She", "He"] * 3)],
            "text_wo_first_sentence": [f"rest {i}" for i in range(6)],
            "occupation": ["athlete", "politician", "writer"] * 2,
            "profession": ["nurse", "surgeon", "dj"] * 2,
            "label": ["positive", "negative"] * 3,
            "domain": ["dvd", "dvd", "books"] * 2,
            "gender": ["F", "M"] * 3,
        }
    )
    frame.to_parquet(tmp_path / "bios.parquet")
    return tmp_path / "bios.parquet"


def test_each_data_set_has_its_columns_and_protocol(asked: Any, bios: Path, tmp_path: Path) -> None:
    given = ("--data", bios, "--out", tmp_path / "r", "--quiet")
    assert invoke("wiki-bios", *given)[0] == 0
    assert invoke("reviews", *given)[0] == 0
    assert invoke("bias-in-bios", *given, "--professions", "nurse,surgeon")[0] == 0
    wiki, reviews, bib = asked
    assert wiki[0]["text"].tolist() == ["rest 0", "rest 1", "rest 3", "rest 4"]
    assert set(wiki[0]["target"]) == {"athlete", "politician"}
    assert (wiki[1].n_test, wiki[1].n_attribute, wiki[1].concept) == (60, 60, "gender")
    assert (reviews[1].concept, set(reviews[0]["sensitive"])) == (None, {"dvd", "books"})
    assert set(bib[0]["target"]) == {"nurse", "surgeon"}
    assert bib[2]["data"]["path"] == f"{bios.parent.name}/bios.parquet"


def test_methods_regimes_and_sizes(asked: Any, bios: Path, tmp_path: Path) -> None:
    given = ("--data", bios, "--out", tmp_path / "r", "--quiet")
    code, output = invoke(
        *(
            "bias-in-bios",
            *given,
            "--methods",
            "all",
            "--regime",
            "concept,labelled",
            "--regime",
            "concept_pronouns",
        ),
        *("--max-head", 7, "--jobs", 2),
    )
    assert code == 0, output
    _, config, options = asked[0]
    assert config.methods == tuple(module.METHODS)
    assert config.regimes == ("none", "concept", "labelled", "concept_pronouns")
    assert (config.max_head, options["jobs"], config.seeds) == (7, 2, 5)
    assert invoke("bias-in-bios", *given, "--methods", "main")[0] == 0
    assert asked[1][1].methods == tuple(MAIN.split(","))
    assert set(MAIN.split(",")) <= set(module.METHODS)
    code, output = invoke("bias-in-bios", *given, "--regime", "telepathy")
    assert code == 2
    assert "telepathy" in output


def test_a_quick_look_says_so(asked: Any, bios: Path, tmp_path: Path) -> None:
    code, output = invoke(
        "table", "--data", bios, "--out", tmp_path / "r", "--quick", "--seeds", 1, "--quiet"
    )
    assert code == 0
    assert "QUICK LOOK" in output
    config = asked[0][1]
    assert config.quick
    assert (config.seeds, config.n_test, config.debias.d_sae) == (1, QUICK["n_test"], 2048)
    assert "quick look" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_words_of_another_attribute_are_refused_unless_asked_for(
    asked: Any, bios: Path, tmp_path: Path
) -> None:
    given = ("table", "--data", bios, "--out", tmp_path / "r", "--quiet", "--sensitive", "label")
    frame = pd.read_parquet(bios)
    frame["label"] = ["a", "a", "b", "b", "c", "c"]
    frame.to_parquet(bios)
    code, output = invoke(*given)
    assert code == 2
    assert "the words of the default concept 'gender' do not go with the values of 'label'" in output
    assert not (tmp_path / "r").exists()
    assert invoke(*given, "--concept", "gender")[0] == 0
    assert invoke(*given, "--concept", "none")[0] == 0
    assert [config.concept for _, config, _ in asked] == ["gender", None]


def test_what_did_not_run_is_told(
    asked: Any, bios: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **__: Any) -> dict[str, Any]:
        rows = [
            {
                "method": name,
                "regime": "concept",
                "head": "retrained",
                "head_model": "logistic",
                "C_rule": "cv",
            }
            | {"representation": "mean(final)", "worst_group_accuracy": 0.8, "n_seeds": n}
            for name, n in (("ssae", 5), ("splince", 4))
        ]
        notes = [
            {"method": name, "regime": "labelled", "reason": "no corpus"} for name in ("gsae", "ssae_deep")
        ]
        results = {"summary": rows, "skipped": notes, "data": {}, "runs": []}
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "results.json").write_text(json.dumps(results))
        return results

    monkeypatch.setattr(module, "run_benchmark", run)
    code, output = invoke(
        "bias-in-bios", "--data", bios, "--out", tmp_path / "r", "--methods", "ssae, erm,ssae"
    )
    assert code == 0
    assert "not run: gsae (labelled), ssae_deep (labelled): no corpus" in output
    assert "splince (4 of 5 seeds)" in output
    assert max(len(line) for line in output.splitlines() if line[0] in "┏┃┡│└") <= 80


def test_methods_are_named_once(asked: Any, bios: Path, tmp_path: Path) -> None:
    given = ("bias-in-bios", "--data", bios, "--out", tmp_path / "r", "--quiet")
    assert invoke(*given, "--methods", "ssae, erm,ssae")[0] == 0
    assert asked[0][1].methods == ("ssae", "erm")


def test_the_command_can_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from debias_ssae.cli.benchmark import _command

    typed = [
        "x",
        "benchmark",
        "--data",
        "/home/me/bios/data.parquet",
        "--set",
        "debias.corpus_note=two words",
    ]
    monkeypatch.setattr("sys.argv", typed)
    assert _command() == "debias-ssae benchmark --data bios/data.parquet --set 'debias.corpus_note=two words'"


def test_labels_without_a_target(asked: Any, bios: Path, tmp_path: Path) -> None:
    pd.DataFrame({"Text": ["a", "b"], "gender": ["F", None]}).to_csv(tmp_path / "gap.csv", index=False)
    given = ("bias-in-bios", "--data", bios, "--out", tmp_path / "r", "--quiet")
    assert invoke(*given, "--attribute-data", tmp_path / "gap.csv")[0] == 0
    assert asked[0][2]["attribute_data"].to_dict("list") == {"text": ["a"], "sensitive": ["F"]}
    code, output = invoke(*given, "--attribute-data", tmp_path / "gap.csv", "--sensitive", "domain")
    assert code == 2
    assert "no column 'domain'" in output


def test_single_settings_win_over_the_rest(asked: Any, bios: Path, tmp_path: Path) -> None:
    given = ("bias-in-bios", "--data", bios, "--out", tmp_path / "r", "--quiet")
    changes = ("--set", "debias.d_sae=64", "--set", "debias.special.tilt=0", "--set", "n_latents=3")
    assert invoke(*given, *changes, "--seed", 7, "--device", "cpu")[0] == 0
    config = asked[0][1]
    assert (config.debias.d_sae, config.debias.special.tilt, config.n_latents) == (64, 0, 3)
    assert (config.seed, config.device) == (7, "cpu")
    assert config.debias.special.n_steps == DebiasConfig().special.n_steps, "the rest stays as it is"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reviews",), "benchmark reviews needs --data"),
        (("bias-in-bios", "--data", "bios.parquet", "--professions", "nurse,pilot"), "no rows of pilot"),
        (("table", "--data", "bios.parquet", "--set", "debias.d_sea=3"), "did you mean d_sae?"),
        (("table", "--data", "bios.parquet", "--set", "seeds"), "expected NAME=VALUE"),
        (("table", "--data", "bios.parquet", "--config", "bad.yaml"), "n_tests"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, bios: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bios.parent)
    Path("bad.yaml").write_text("n_tests: 3\n")
    code, output = invoke(*arguments, "--out", "r")
    assert code == 2
    assert message in output
    assert len(output.strip().splitlines()) == 1
    assert not Path("r").exists()


def test_a_file_of_the_protocol_wins_over_the_data_sets_sizes(asked: Any, bios: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("n_test: 9\nseeds: 2\n")
    given = ("--data", bios, "--out", tmp_path / "r", "--config", tmp_path / "p.yaml", "--quiet")
    assert invoke("wiki-bios", *given, "--n-attribute", 5)[0] == 0
    assert (asked[0][1].n_test, asked[0][1].n_attribute, asked[0][1].seeds) == (9, 5, 2)
    assert invoke("reviews", *given, "--quick")[0] == 0
    assert (asked[1][1].concept, asked[1][1].n_test) == (None, 9), (
        "what the file leaves open is the data set's"
    )
    assert (asked[1][1].n_attribute, asked[1][1].quick) == (QUICK["n_attribute"], True)


def test_rows_without_a_text_are_left_out_and_counted(
    asked: Any, bios: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = pd.read_parquet(bios)
    frame.loc[0, "text"] = "  "
    frame.to_parquet(bios)
    assert invoke("reviews", "--data", bios, "--out", tmp_path / "r", "--quiet")[0] == 0
    assert len(asked[0][0]) == len(frame) - 1
    assert "1 of 6 texts are empty" in caplog.text
