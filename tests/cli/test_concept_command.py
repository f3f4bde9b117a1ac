"""``debias-ssae concept``: what it prints, and that texts stay inside unless asked for."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from debias_ssae.cli import main


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["concept", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def table(tmp_path: Path) -> str:
    texts = [
        "An imam spoke. Private one.",
        "The mosque is new.",
        "Jews prayed; halal food.",
        "A church",
        "Nothing.",
    ]
    path = tmp_path / "texts.csv"
    pd.DataFrame({"body": texts}).to_csv(path, index=False)
    return str(path)


def test_list_and_show() -> None:
    listed = run("list")
    assert "religion: 44 rows; christian, muslim, jewish, hindu, buddhist" in listed
    assert "gender: 142 rows; male, female; optional: names" in listed
    shown = run("show", "religion")
    assert "Limits. Five values only" in shown
    assert "[church, mosque, synagogue, temple, temple], neutral: place of worship" in shown


def test_check_counts_and_keeps_texts_to_itself(table: str) -> None:
    told = run("check", "religion", "--data", table, "--text", "body")
    for line in (
        "religion on 5 texts",
        "texts with a word of it: 4 (80.0%); with words of several values: 1 (20.0%)",
        "  muslim: 3 (60.0%)",
        "values never met: hindu, buddhist",
        "rows with gaps: 7 of 44",
        "       1  imam (muslim)",
    ):
        assert line in told
    assert "Private" not in told
    asked = run("check", "religion", "--data", table, "--text", "body", "--texts")
    assert "Private one." in asked
    assert "  scrubbed: A cleric spoke. Private one." in asked
    assert "No word of it occurs" in run("check", "disability", "--data", table, "--text", "body")
    assert "religion on 2 texts" in run("check", "religion", "--data", table, "--text", "body", "--n", "2")


def test_ambiguous_words_are_told(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a black dress\na black woman\nher black cat\n")
    assert "  black: 1 and 2" in run("check", "ethnicity", "--data", str(path))


def test_faults_end_in_one_line(table: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("pairs: [[he, she]]\nignore: isle of man\n")
    for arguments, words in (
        (["show", "species"], "Unknown concept 'species'"),
        (["show", str(bad)], f"{bad}: 'ignore' must be a list"),
        (["check", "gender", "--data", table], "has no column 'text'"),
    ):
        result = CliRunner().invoke(main, ["concept", *arguments])
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert words in result.output
        assert result.output.count("\n") == 1


def test_nothing_heavy_is_imported(table: str) -> None:
    code = f"""
import sys
from debias_ssae.cli import main
try:
    main(["concept", "check", "gender", "--data", {table!r}, "--text", "body"])
except SystemExit:
    pass
print(sorted({{"torch", "transformers", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
