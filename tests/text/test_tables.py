"""Reading tables and corpora; every fault is one InputError line."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import file_digest
from debias_ssae.text import load_corpus, load_table

TABLE = pd.DataFrame({"text": ["one", "two\nlines", "drei, „vier“"], "y": [1, 0, 1], "g": ["m", None, "f"]})


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.name.endswith(".parquet"):
        table.to_parquet(path)
    elif ".jsonl" in path.name:
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False)
    return path


ENDINGS = ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet", "CSV"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_table(tmp_path: Path, ending: str) -> None:
    path = write(TABLE, tmp_path / f"t.{ending}")
    table = load_table(path, text="text", target="y", sensitive="g")
    assert table["text"].tolist() == TABLE["text"].tolist()
    assert table["y"].tolist() == [1, 0, 1]
    assert table["g"].isna().tolist() == [False, True, False]
    assert load_corpus(path) == TABLE["text"].tolist()
    assert load_corpus(str(path)) == TABLE["text"].tolist()


def test_numbers_as_text_in_jsonl_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "007"}\n{"text": "2020-01-01"}\n')
    assert load_corpus(path) == ["007", "2020-01-01"]


@pytest.mark.parametrize(
    ("columns", "arguments", "words"),
    [
        ({"text": ["a"]}, {"target": "y"}, "has no column 'y' for the target; it has text"),
        ({"words": ["a"], "y": [1]}, {}, "has no column 'text' for the text; it has words, y"),
        ({"text": ["a"], "y": [1]}, {"sensitive": "g"}, "has no column 'g' for the sensitive"),
        ({"text": [], "y": []}, {}, "holds no rows"),
        (
            {"text": ["a", "b"], "y": [1, None]},
            {"target": "y"},
            "1 of 2 targets are missing, the first in row 1",
        ),
        ({"text": ["a", None]}, {}, "1 rows are no text; row 1 holds nan"),
        ({"text": ["a", "  "], "y": [1, 2]}, {}, "1 texts are empty, the first in row 1"),
        ({"text": ["a"], "g": [None]}, {"sensitive": "g"}, "every value of the attribute is missing"),
        ({"text": ["a"], "y": [1]}, {"target": "text"}, "must differ"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_faulty_tables(
    tmp_path: Path, ending: str, columns: dict[str, Any], arguments: dict[str, str], words: str
) -> None:
    path = write(pd.DataFrame(columns), tmp_path / f"t.{ending}")
    with pytest.raises(InputError) as caught:
        load_table(path, text="text", **arguments)
    message = str(caught.value).replace("holds None", "holds nan")
    assert words in message
    assert "\n" not in message


def test_unreadable_files(tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    with pytest.raises(InputError, match="There is no file"):
        load_table(missing, text="text")
    with pytest.raises(InputError, match="There is no file"):
        load_corpus(tmp_path / "none.txt")
    with pytest.raises(InputError, match="Cannot read"):
        file_digest(missing)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        load_table(tmp_path / "folder.csv", text="text")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="known endings"):
        load_table(tmp_path / "t.xlsx", text="text")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.parquet", b"no parquet"),
        ("t.jsonl", b"{oh"),
        ("t.csv", b'text\n"a\n'),
        ("t.csv", b"text\n\xff\xfe\n"),
        ("t.csv.gz", b"plain"),
        ("t.csv.gz", gzip.compress(b"text\n" + b"abc\n" * 999)[:40]),
        ("t.txt", b"\xff\xfe\xfa"),
        ("t.txt.gz", b"plain"),
        ("t.csv", b""),
        ("t.csv.gz", gzip.compress(b"")),
        ("t.txt", b"\n \n"),
        ("t.jsonl", b""),
    ],
)
def test_broken_files_give_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_corpus(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_corpora(tmp_path: Path) -> None:
    lines = tmp_path / "c.txt"
    lines.write_text("first\n\n  second \n", encoding="utf-8")
    assert load_corpus(lines) == ["first", "  second "]
    packed = tmp_path / "c.txt.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    assert load_corpus(packed) == ["first", "  second "]
    table = write(pd.DataFrame({"body": ["a", None, " "], "other": [1, 2, 3]}), tmp_path / "c.parquet")
    assert load_corpus(table, column="body") == ["a"]
    with pytest.raises(InputError, match="has no column 'text'; it has body, other"):
        load_corpus(table)
    with pytest.raises(InputError, match="holds no texts"):
        load_corpus(write(pd.DataFrame({"text": [None]}), tmp_path / "e.parquet"))


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 1_000_000)
    assert file_digest(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


@pytest.mark.realdata
def test_real_slice_and_corpus(data_dir: Path) -> None:
    table = load_table(
        data_dir / "bias_in_bios_surgeon_nurse" / "data.parquet",
        text="text",
        target="profession",
        sensitive="gender",
    )
    counts = table.groupby(["profession", "gender"]).size()
    assert len(table) == 6387
    assert counts["surgeon", "M"] == 3084
    assert counts["nurse", "M"] == 249
    assert len(load_corpus(data_dir / "general_corpus" / "data.parquet")) > 70_000


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_value_called_none_is_a_value_in_every_format(tmp_path: Path, ending: str) -> None:
    given = pd.DataFrame(
        {"text": ["a", "null"] * 2, "g": ["None", "Sikh", None, "N/A"], "n": [1.0, None, 3.0, 4.0]}
    )
    table = load_table(write(given, tmp_path / f"t.{ending}"), text="text", sensitive="g")
    assert table["g"].dropna().tolist() == ["None", "Sikh", "N/A"]
    assert table["text"].tolist() == ["a", "null"] * 2
    assert table["n"].isna().tolist() == [False, True, False, False]
