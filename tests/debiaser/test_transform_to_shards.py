"""Shards of representations: those of transform, in flat memory, whatever was interrupted, shared or damaged."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_debiaser import make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import transform_to_shards

TEXTS = make_texts(50, seed=3)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def run(debiaser: SSAEDebiaser, directory: Path, texts=None, **options):
    return transform_to_shards(
        debiaser, iter(TEXTS if texts is None else texts), directory, **{"rows_per_shard": 8, **options}
    )


@pytest.mark.parametrize("form", ["parquet", "csv", "npy"])
def test_the_rows_are_those_of_transform(fitted: SSAEDebiaser, tmp_path: Path, form: str) -> None:
    totals = run(fitted, tmp_path / "X", form=form)
    files = sorted((tmp_path / "X" / "data").iterdir())
    assert totals["n_texts"] == 50
    assert len(files) == 7
    if form == "npy":
        found = np.concatenate([np.load(file) for file in files])
    elif form == "csv":
        found = pd.concat([pd.read_csv(file) for file in files]).to_numpy()
    else:
        found = pd.read_parquet(tmp_path / "X" / "data")
        assert list(found) == list(fitted.get_feature_names_out())
    assert np.abs(np.asarray(found) - fitted.transform(TEXTS)).max() < 1e-5


@pytest.mark.parametrize("stop_after", [1, 20, 49])
def test_interrupted_then_run_again_it_is_as_if_never_interrupted(
    fitted: SSAEDebiaser, tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted():
        yield from TEXTS[:stop_after]
        raise KeyboardInterrupt

    run(fitted, tmp_path / "whole")
    monkeypatch.setattr("debias_ssae.text.tables._PIECE_ROWS", 8)
    with pytest.raises(KeyboardInterrupt):
        run(fitted, tmp_path / "X", interrupted())
    kept = len(list(tmp_path.glob("X/data/*")))
    seen, transform = [], SSAEDebiaser.transform
    monkeypatch.setattr(SSAEDebiaser, "transform", lambda self, X: seen.append(X) or transform(self, X))
    run(fitted, tmp_path / "X")
    assert len(seen) == 7 - kept
    run(fitted, tmp_path / "X")
    assert len(seen) == 7 - kept, "nothing is made twice"
    assert contents(tmp_path / "X") == contents(tmp_path / "whole")
    victim = tmp_path / "X" / "data" / "shard-00003.parquet"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    run(fitted, tmp_path / "X")
    assert seen[7 - kept :] == [TEXTS[24:32]], "only the damaged shard is made again"
    assert contents(tmp_path / "X") == contents(tmp_path / "whole")


def test_processes_share_the_shards(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    run(fitted, tmp_path / "one")
    for order in ((0, 1, 2), (2, 0, 1)):
        goal = tmp_path / f"three-{order[0]}"
        done = [run(fitted, goal, rank=rank, world_size=3) for rank in order]
        assert done[:2] == [None, None]
        assert done[2] is not None
        assert contents(goal) == contents(tmp_path / "one")
    with pytest.raises(InputError, match="rank=3, world_size=3"):
        run(fitted, tmp_path / "four", rank=3, world_size=3)


def test_another_input_is_refused(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    whole = TEXTS[:40]
    run(fitted, tmp_path / "X", whole)
    before = contents(tmp_path / "X")
    others = {
        "other texts": {"texts": whole[::-1]},
        "now there are more texts": {"texts": TEXTS},
        "more shards than the 4": {"texts": whole[:32]},
        "differs in rows_per_shard": {"texts": whole, "rows_per_shard": 9},
        "differs in form": {"texts": whole, "form": "csv"},
        "holds no texts": {"texts": []},
        "form is 'xml'": {"form": "xml"},
        "npy file holds no columns": {"form": "npy", "ids": ["n"]},
    }
    for message, options in others.items():
        with pytest.raises(InputError, match=message):
            run(fitted, tmp_path / "X", **options)
    half = fitted.with_latents({"embeddings": fitted.intervention_.selection.ids[:2]}, X=TEXTS)
    with pytest.raises(InputError, match="differs in encoder"):
        run(half, tmp_path / "X", whole)
    assert contents(tmp_path / "X") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        run(fitted, tmp_path / "mine")


def test_memory_does_not_grow_with_the_texts(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    def peak(n_texts: int) -> int:
        texts = (f"{text} {i}" for i in range(n_texts // 50) for text in TEXTS)
        tracemalloc.start()
        totals = run(fitted, tmp_path / str(n_texts), texts, rows_per_shard=250, form="npy")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert totals["n_texts"] == n_texts
        return most

    peak(250)  # what is imported and cached on the way
    assert peak(5000) < 1.3 * peak(1000) + 500_000


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for i, some in enumerate((TEXTS[:21], TEXTS[21:])):
        table = pd.DataFrame({"number": range(len(some)), "bio": some, "rest": "x"})
        table.to_csv(tmp_path / "parts" / f"part-{i}.csv", index=False)
    return tmp_path / "parts"


def test_command(fitted: SSAEDebiaser, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted.save(tmp_path / "model")

    def invoke(data: Path, out: str):
        arguments = ["transform", str(tmp_path / "model"), "--data", str(data), "--text", "bio"]
        arguments += ["--id", "number"]
        arguments += ["--out", str(tmp_path / out), "--rows-per-shard", "8", "--quiet"]
        return CliRunner().invoke(main, arguments)

    done = invoke(parts, "X")
    assert done.exit_code == 0, done.output
    assert "50 texts" in done.output
    found = pd.read_parquet(tmp_path / "X" / "data")
    assert found["number"].tolist() == [*map(str, range(21)), *map(str, range(29))], "as a csv file has them"
    assert np.abs(found.drop(columns="number").to_numpy() - fitted.transform(TEXTS)).max() < 1e-5
    assert invoke(parts, "whole.parquet").exit_code == 0
    whole = pd.read_parquet(tmp_path / "whole.parquet").drop(columns="number")
    assert np.abs(whole - found.drop(columns="number")).to_numpy().max() < 1e-5
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("1", "other processes"), ("0", "50 texts")):
        monkeypatch.setenv("RANK", rank)
        assert said in invoke(parts, "two").output
    assert contents(tmp_path / "two") == contents(tmp_path / "X")
    monkeypatch.setenv("RANK", "2")
    assert "rank=2, world_size=2" in invoke(parts, "two").output
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    table = pd.read_csv(parts / "part-1.csv")
    table.loc[20, "bio"] = None
    table.to_csv(parts / "part-1.csv", index=False)
    refused = invoke(parts, "Y")
    assert refused.exit_code == 2
    assert "part-1.csv, line 22 holds no text in column 'bio'" in refused.output


@pytest.mark.slow
def test_torchrun_gives_the_bytes_of_one_process(fitted: SSAEDebiaser, parts: Path, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    options = ["transform", str(tmp_path / "model"), "--data", str(parts), "--text", "bio", "--quiet"]
    options += ["--rows-per-shard", "4", "--device", "cpu"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for out, launcher in (("one", ["-m"]), ("two", launch)):
        command = [sys.executable, *launcher, "debias_ssae", *options, "--out", str(tmp_path / out)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_columns_to_copy_are_named_once_and_are_no_dimensions(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    name = str(fitted.get_feature_names_out()[0])
    pd.DataFrame({"text": TEXTS, "n": range(50), name: 0}).to_parquet(tmp_path / "t.parquet")
    transform_to_shards(fitted, tmp_path / "t.parquet", tmp_path / "X", ids=["n", "n"])
    found = pd.read_parquet(tmp_path / "X" / "data")
    assert list(found) == ["n", *fitted.get_feature_names_out()]
    assert found["n"].tolist() == list(range(50))
    with pytest.raises(InputError, match="has the name of a dimension"):
        transform_to_shards(fitted, tmp_path / "t.parquet", tmp_path / "Y", ids=[name])
