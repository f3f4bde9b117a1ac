"""Corpora of many files: streamed in order, and split over processes so that each reads its own."""

import os
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest
from click.testing import CliRunner
from small_models import small_model

from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.model.store import ActivationStore
from debias_ssae.model.store.harvest import harvest_to_store
from debias_ssae.text.tables import is_one_file, stream_texts

MODEL = small_model("bert")


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


def test_what_is_one_file(folder):
    assert is_one_file(folder / "part-0.parquet")
    assert is_one_file("nowhere.txt")
    for many in (folder, f"{folder}/*.parquet", "owner/name", "https://host/part.parquet"):
        assert not is_one_file(many)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_shares_are_disjoint_and_whole(folder, world_size):
    shares = [list(stream_texts(folder, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert Counter(text for share in shares for text in share) == Counter(ALL)
    some = [
        len(list(stream_texts(folder, rank=r, world_size=world_size, limit=7))) for r in range(world_size)
    ]
    assert sum(some) == 7
    one = folder / "part-3.parquet"
    shares = [list(stream_texts(one, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(text for share in shares for text in share) == ALL[12:]


def test_a_process_reads_its_own_files_only(folder):
    share = set(stream_texts(folder, rank=0, world_size=2))
    own = {int(text.split()[2]) for text in share}
    assert len(own) == 2
    for i in set(range(4)) - own:
        (folder / f"part-{i}.parquet").write_bytes(b"no parquet")
    assert set(stream_texts(folder, rank=0, world_size=2)) == share
    with pytest.raises(InputError, match=r"Cannot read .* as parquet"):
        list(stream_texts(folder, rank=1, world_size=2))


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


def test_shares_given_by_hand_need_a_group(tmp_path):
    with pytest.raises(InputError, match="needs torchrun"):
        harvest_to_store(MODEL, ["a"], tmp_path / "s", rank=0, world_size=2, own_share=True)


@pytest.mark.slow
def test_two_processes_share_many_files(folder, tmp_path):
    command = ["activations", "harvest", "--corpus", str(folder), "--texts-per-shard", "2", "--quiet"]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "debias_ssae"]
    for _ in range(2):  # the second run finds all done
        subprocess.run(
            [sys.executable, *launch, *command, "--device", "cpu", "--out", str(tmp_path / "two")],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            timeout=600,
        )
    one, two = ActivationStore(tmp_path / "one"), ActivationStore(tmp_path / "two", verify=True)
    assert (one.n_texts, one.n_rows) == (two.n_texts, two.n_rows) == (18, one.n_rows)
    assert two.settings["processes"] == 2
    assert [record["n_texts"] for record in two.records].count(0) > 0  # one process had fewer texts
    texts = [Counter(), Counter()]
    for store, seen in zip((one, two), texts, strict=True):
        for number in range(len(store.records)):
            shard = store.shard(number)
            for i in shard["text_ids"].unique().tolist():
                seen[tuple(shard["token_ids"][shard["text_ids"] == i].tolist())] += 1
    assert texts[0] == texts[1]
