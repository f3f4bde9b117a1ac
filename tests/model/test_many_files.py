"""Corpora of many files, streamed in order."""

import pandas as pd
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.text.tables import stream_texts


@pytest.fixture
def folder(tmp_path):
    """Four parquet files of 3, 4, 5 and 6 texts."""
    (tmp_path / "corpus").mkdir()
    for i in range(4):
        table = pd.DataFrame({"n": range(3 + i), "text": [f"she works {i} {j}" for j in range(3 + i)]})
        table.to_parquet(tmp_path / "corpus" / f"part-{i}.parquet", index=False)
    return tmp_path / "corpus"


ALL = [f"she works {i} {j}" for i in range(4) for j in range(3 + i)]


def test_folders_and_patterns_stream_in_the_order_of_names(folder):
    assert list(stream_texts(folder)) == ALL
    assert list(stream_texts(f"{folder}/part-*.parquet", limit=5)) == ALL[:5]
    assert list(stream_texts(f"{folder}/part-[12].parquet")) == ALL[3:12]
    (folder.parent / "tables").mkdir()
    for i, name in enumerate(("a.csv", "b.csv")):
        (folder.parent / "tables" / name).write_text(f"text,n\nNA,1\nrow {i},2\n")
    assert list(stream_texts(folder.parent / "tables")) == ["NA", "row 0", "NA", "row 1"]


def test_folders_that_cannot_be_read(folder, tmp_path):
    (tmp_path / "none").mkdir()
    (folder / "more.csv").write_text("text\nx\n")
    for source, message in (
        (tmp_path / "none", "holds no .csv"),
        (f"{tmp_path}/none/*.parquet", "No file matches"),
        (folder, "files of one kind"),
    ):
        with pytest.raises(InputError, match=message):
            list(stream_texts(source))
    with pytest.raises(InputError, match=r"no column 'body'; it has n, text"):
        list(stream_texts(folder / "part-0.parquet", column="body"))
