"""Reading tables and corpora; every fault is one InputError line."""

import csv
import gzip
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import file_digest
from debias_ssae.text import load_corpus, load_table, write_table
from debias_ssae.text.tables import stream_texts

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
        ("t.csv.gz", gzip.compress(b"text\n" + b"abc\n" * 999, mtime=0)[:40]),
        ("t.txt", b"\xff\xfe\xfa"),
        ("t.txt.gz", b"plain"),
        ("t.csv", b""),
        ("t.csv.gz", gzip.compress(b"", mtime=0)),
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


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,job\na,x,\nb,y,\n", {"text": ["a", "b"], "job": ["x", "y"]}),
        ("text,job,\na,x,\nb,y\n", {"text": ["a", "b"], "job": ["x", "y"]}),
        ('text,job\n"a, b",x\n"c\nd",y\n', {"text": ["a, b", "c\nd"], "job": ["x", "y"]}),
        ("\ufefftext,n\r\na,007\r\nb,1\r\n", {"text": ["a", "b"], "n": ["007", "1"]}),
        ("text,n\na,7\nb,-3\n", {"text": ["a", "b"], "n": [7, -3]}),
        ("text,n\na,7\nb,\n", {"text": ["a", "b"], "n": [7, None]}),
        ("text,n\na,0.10\nb,1e-3\n", {"text": ["a", "b"], "n": [0.1, 0.001]}),
        ("text,n\na,+1\nb,1\n", {"text": ["a", "b"], "n": ["+1", "1"]}),
        ("text,n\na,1_000\nb,1\n", {"text": ["a", "b"], "n": ["1_000", "1"]}),
        ("text,n\n1,99999999999999999999\n2,1\n", {"text": ["1", "2"], "n": ["99999999999999999999", "1"]}),
        ("text,n\nNA,x\nnan,y\n", {"text": ["NA", "nan"], "n": ["x", "y"]}),
        (",text\n0,a\n1,b\n", {"Unnamed: 0": [0, 1], "text": ["a", "b"]}),
    ],
)
def test_cells_are_what_the_file_says(tmp_path: Path, content: str, expected: dict[str, list[Any]]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8", newline="")
    assert load_table(path, text="text").to_dict("list") == expected
    assert load_corpus(path) == expected["text"]
    assert list(stream_texts(tmp_path)) == expected["text"]
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "t.csv").write_bytes(content.removeprefix("\ufeff").encode("utf-16"))
    assert load_table(tmp_path / "u", text="text").to_dict("list") == expected


@pytest.mark.parametrize("header", ["text" + "," * 500_000, "text," + ",".join(f"c{i}" for i in range(5000))])
def test_a_wide_header_costs_no_more_than_its_length(tmp_path: Path, header: str) -> None:
    path, begin = tmp_path / "t.csv", time.process_time()
    path.write_text(f"{header}\na{',1' * 5000 if header[-1] != ',' else ''}\n")
    assert load_table(path, text="text")["text"].tolist() == ["a"]
    assert time.process_time() - begin < 10


def test_files_of_a_folder_may_differ_in_what_nobody_asked_for(tmp_path: Path) -> None:
    for i, second in enumerate(('{"text":"y","label":"pos"}', '{"text":"y","source":"web"}')):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "a.jsonl").write_text('{"text":"2020-01-01","label":1}\n')
        (tmp_path / str(i) / "b.jsonl").write_text(f"{second}\n")
        assert list(stream_texts(tmp_path / str(i))) == ["2020-01-01", "y"]


@pytest.mark.parametrize("values", [[1, "1"], [[1], [2]], [{"a": 1}, "b"], [True, "x"], [None, [1]]])
def test_labels_are_of_one_kind(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": "a", "g": v}) + "\n" for v in [*values, "z"]))
    with pytest.raises(InputError, match="column 'g' holds values that are no labels of one kind"):
        load_table(path, text="text", sensitive="g")


def test_times_beyond_python_and_columns_of_several_kinds_are_named(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": ["a"], "t": pa.array([10**15], pa.timestamp("s"))}), tmp_path / "t.parquet"
    )
    assert load_corpus(tmp_path / "t.parquet") == ["a"]
    with pytest.raises(InputError, match="column 't' holds times that Python has no value for"):
        load_table(tmp_path / "t.parquet", text="text")
    with pytest.raises(InputError, match=r"o.parquet cannot hold a column of values of several kinds"):
        write_table(pd.DataFrame({"id": [1, "a"]}, dtype=object), tmp_path / "o.parquet")
    write_table(pd.DataFrame({"id": [2**64 - 1]}, dtype=object), tmp_path / "o.parquet")
    assert pd.read_parquet(tmp_path / "o.parquet")["id"].tolist() == [2**64 - 1]


def test_numbers_for_texts_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("text,y\n1,a\n2.5,b\n")
    assert load_table(tmp_path / "t.csv", text="text")["text"].tolist() == ["1", "2.5"]
    assert "column 'text' holds numbers alone" in caplog.text
    caplog.clear()
    load_table(tmp_path / "t.csv", text="y")
    assert not caplog.text


def test_the_line_that_tells_excel_of_the_separator_is_no_header(tmp_path: Path) -> None:
    for name, content in (("t.csv", "sep=,\ntext,y\na,1\n"), ("t.tsv", '"sep=\t"\ntext\ty\na\t1\n')):
        (tmp_path / name).write_text(content)
        assert load_table(tmp_path / name, text="text").to_dict("list") == {"text": ["a"], "y": [1]}


def test_columns_named_so_stay_strings(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n17,a\n1.50,b\nNA,c\n")
    assert load_table(tmp_path / "t.csv", text="text", as_written=["id"])["id"].tolist() == [
        "17",
        "1.50",
        "NA",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"text,y\na,1\nb\n", "line 3: 1 values, expected the 2"),
        ("t.csv", b"text,y\na,1\nb,2,3\n", "line 3: 3 values, expected the 2"),
        ("t.csv", b'text,y\n"a\nb",1\nc\n', "line 4: 1 values"),
        ("t.csv", b"text,text\na,b\n", "two columns called 'text'"),
        ("t.csv", b"text;y\na;1\n", "its values seem to be separated by ';'"),
        ("t.csv", b"text;y\na, b;1\n", "separated by ';': save it with commas"),
        ("t.tsv", b"text,y\na\t1\n", "separated by ',': save it as .csv"),
        ("t.csv", b"sep=;\ntext;y\n", "separated by ';'"),
        ("t.csv", b"sep=,\ntext,y\na,1\nb\n", "line 4: 1 values"),
        ("t.csv", b" text,y\na,1\n", "it has ' text', y; ' text' differs by spaces around it: rename it"),
        ("t.csv", b"text,y\ra,1\r", r"line 1: a carriage return \(CR\) outside of quotes; save .*LF"),
        ("t.tsv", b'text\ty\n"a" b\t1\n', "line 2: .*each quote inside twice"),
        ("t.csv", b'text,y\n"a,1\n', "unexpected end of data"),
        ("t.csv", b"text\n" + "é".encode("latin-1"), "is not UTF-8"),
        ("t.csv", b"text\na\0b\n", "NUL bytes"),
        ("t.csv", b"text\n" + b"x" * (2**24 + 1), "longer than"),
        ("t.jsonl", b'{"text": "a"}\n{"text": NaN}\n', "line 2 as JSON: NaN"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "b", "text": "c"}\n', "line 2 .*given twice"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', "line 2: \\[1\\], expected an object"),
        ("t.jsonl", b'{"text": "a"}\n{"text": 12}\n', "line 2 holds 12 \\(int\\)"),
        ("t.jsonl", b'{"text": "\\ud800"}\n', "surrogates"),
        ("t.json", b'[{"text": "a"}, 3]', "row 1: 3, expected an object"),
        ("t.json", b"[" * 10_000, "levels deep"),
        ("t.json", b'{"text": {"0": "a"}}', "holds {'0': 'a'} \\(dict\\)"),
    ],
)
def test_what_is_not_sure_is_refused_with_its_place(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        load_corpus(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        load_table(path, text="text")


def test_json_arrays_and_rows_of_unequal_names(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n{"text": "a", "y": 1},\n{"text": "b"}\n]')
    (tmp_path / "b.json").write_text('{"text": "c", "y": "pos", "z": "2020-01-01"}\n')
    assert list(stream_texts(tmp_path)) == ["a", "b", "c"]  # a column that nobody asked for stops nothing
    table = load_table(tmp_path, text="text")
    assert table["text"].tolist() == ["a", "b", "c"]
    assert table["y"].tolist() == [1, None, "pos"]
    assert table["z"].tolist()[2] == "2020-01-01"


def test_whole_numbers_of_parquet_stay_whole_beside_missing_ones(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "g": pd.array([1, None], dtype="Int64")}, index=[5, 5])
    frame.to_parquet(tmp_path / "t.parquet")
    table = load_table(tmp_path / "t.parquet", text="text", sensitive="g")
    assert table.to_dict("list") == {"text": ["a", "b"], "g": [1, None]}


def test_csv_for_spreadsheets(tmp_path: Path) -> None:
    cells = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "＝1", "-5", "+1.5e3", "a=b", "'=1", None]
    table = pd.DataFrame({"=id": cells, "n": np.arange(12) - 6.5})
    write_table(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["'=id", "n"]
    assert [row[0] for row in rows[1:]] == [
        "'=1+1", "'+x", "'-x", "'@x", "'\tx", "'\rx", "'＝1", "-5", "+1.5e3", "a=b", "'=1", "",
    ]  # fmt: skip
    assert [float(row[1]) for row in rows[1:]] == table["n"].tolist()
    write_table(table, tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["=id"].tolist()[:2] == cells[:2]
