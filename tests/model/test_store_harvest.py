"""A harvest into a store gives the same bytes whole, interrupted, damaged or shared between processes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from small_models import sentences, small_model

from debias_ssae.cli import main
from debias_ssae.core import io
from debias_ssae.core.errors import InputError
from debias_ssae.model import harvest
from debias_ssae.model.store.harvest import harvest_to_store, summary
from debias_ssae.text.tables import stream_texts

MODEL = small_model("bert")
TEXTS = sentences(50)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


def run(directory, texts=TEXTS, model=MODEL, **options):
    return harvest_to_store(
        model, iter(texts), directory, ["embeddings", "blocks.1"], texts_per_shard=8, **options
    )


def test_store_holds_the_rows_of_harvest(tmp_path):
    store = run(tmp_path / "s")
    assert len(store.records) == 7
    for hookpoint in store.hookpoints:
        expected = harvest(MODEL, TEXTS, hookpoint)
        torch.testing.assert_close(torch.cat(list(store.rows(hookpoint))), expected.x, atol=1e-5, rtol=1e-4)
    ids = torch.cat([store.shard(i)["text_ids"] for i in range(7)])
    assert (ids == expected.text_ids).all()
    assert store.settings["model"] == "small-bert"
    assert store.settings["dtype"] == "float32"


@pytest.mark.parametrize("stop_after", [1, 20, 49])
def test_interrupted_then_rerun_gives_the_same_bytes(tmp_path, stop_after):
    def interrupted():
        yield from TEXTS[:stop_after]
        raise KeyboardInterrupt

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", interrupted())
    assert not (tmp_path / "s" / "manifest.json").exists()
    # what a process that is killed while it writes leaves behind
    (tmp_path / "s").mkdir(exist_ok=True)
    with io.writing(tmp_path / "s" / "shard-00002.safetensors") as temporary:
        left = temporary.name.replace(f".{os.getpid()}.", f".{2**22 + 1}.")  # no process has this number
        temporary.with_name(left).write_bytes(b"half")
        temporary.write_bytes(b"")
    (tmp_path / "s" / "shard-00002.safetensors").unlink()
    run(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_only_the_damaged_shard_is_redone(tmp_path, caplog):
    run(tmp_path / "s")
    before = contents(tmp_path / "s")
    victim = tmp_path / "s" / "shard-00003.safetensors"
    victim.write_bytes(before[victim.name][:-1] + b"!")
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("shard-*.safetensors")}
    run(tmp_path / "s")
    assert contents(tmp_path / "s") == before
    redone = {
        p.name for p in (tmp_path / "s").glob("shard-*.safetensors") if p.stat().st_mtime_ns != stamps[p.name]
    }
    assert redone == {victim.name}
    assert "shard-00003" in caplog.text


def test_ranks_share_the_work(tmp_path):
    run(tmp_path / "one")
    assert run(tmp_path / "two", rank=0, world_size=2) is None  # rank 0 alone has no second shard
    assert not (tmp_path / "two" / "shard-00001.safetensors").exists()
    assert run(tmp_path / "two", rank=1, world_size=2) is not None
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_dirty_texts_are_counted(tmp_path):
    dirty = ["", None, float("nan"), "🙂 \x00 he", "he " * 30_000, "\ud800 she", "she works", " \t"]
    store = run(tmp_path / "s", dirty)
    totals = store.manifest["totals"]
    counted = {k: totals[k] for k in ("n_texts", "n_missing", "n_empty", "n_cut", "n_repaired")}
    assert counted == {"n_texts": 8, "n_missing": 2, "n_empty": 2, "n_cut": 1, "n_repaired": 1}
    line = summary(totals)
    assert "2 texts missing, 2 without tokens, 1 cut" in line


def test_other_texts_or_settings_are_refused(tmp_path):
    run(tmp_path / "s")
    with pytest.raises(InputError, match="other texts"):
        run(tmp_path / "s", reversed(TEXTS))
    with pytest.raises(InputError, match="differs in token_budget"):
        run(tmp_path / "s", model=MODEL.with_limits(token_budget=64))
    with pytest.raises(InputError, match="holds no texts"):
        run(tmp_path / "empty", [])
    with pytest.raises(InputError, match="texts_per_shard=0"):
        harvest_to_store(MODEL, TEXTS, tmp_path / "t", texts_per_shard=0)


def test_corpora_stream_from_every_kind_of_file(tmp_path):
    texts = ["he works", "ü 漢字 🙂", "she, works"]
    frame = pd.DataFrame({"text": texts, "n": [1, 2, 3]})
    frame.to_parquet(tmp_path / "c.parquet")
    frame.to_csv(tmp_path / "c.csv", index=False)
    frame.to_csv(tmp_path / "c.csv.gz", index=False)
    frame.to_csv(tmp_path / "c.tsv", index=False, sep="\t")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    (tmp_path / "c.txt").write_bytes("\r\n".join(texts).encode() + b"\n")
    with gzip.open(tmp_path / "c.txt.gz", "wb") as file:
        file.write("\n".join(texts).encode())
    for name in ("c.parquet", "c.csv", "c.csv.gz", "c.tsv", "c.jsonl", "c.txt", "c.txt.gz"):
        assert list(stream_texts(tmp_path / name)) == texts, name
    pd.DataFrame({"text": ["a", None]}).to_parquet(tmp_path / "missing.parquet")
    assert list(stream_texts(tmp_path / "missing.parquet")) == ["a", None]


def test_corpora_that_cannot_be_read(tmp_path):
    (tmp_path / "c.bin").write_text("x")
    (tmp_path / "c.parquet").write_text("not parquet")
    pd.DataFrame({"a": ["x"]}).to_csv(tmp_path / "c.csv", index=False)
    for name, message in {
        "c.bin": "unknown kind of file",
        "none.txt": "There is no file",
        "none.parquet": "There is no file",
        "c.parquet": r"Cannot read .* as parquet",
        "c.csv": "no column 'text'; it has a",
    }.items():
        with pytest.raises(InputError, match=message):
            list(stream_texts(tmp_path / name))
    with pytest.raises(InputError, match="nobody/nothing is no file or folder here"):
        list(stream_texts("nobody/nothing"))


def test_command_line_harvest_and_info(tmp_path):
    corpus, out = tmp_path / "c.txt", tmp_path / "store"
    corpus.write_text("\n".join(["She works as a nurse.", "", "He is a surgeon."] * 3))
    arguments = ["activations", "harvest", "--corpus", str(corpus), "--out", str(out)]
    done = CliRunner().invoke(
        main, [*arguments, "--hookpoint", "embeddings", "--hookpoint", "blocks.0", "--limit", "5"]
    )
    assert done.exit_code == 0, done.output
    assert "5 texts" in done.output
    assert "2 without tokens" in done.output
    shown = CliRunner().invoke(main, ["activations", "info", str(out), "--verify"])
    assert shown.exit_code == 0
    for piece in ("model: minilm", "hookpoints: embeddings, blocks.0", "all checksums right", "5 texts"):
        assert piece in shown.output
    arguments[-1] = str(tmp_path / "new")
    again = CliRunner().invoke(main, [*arguments, "--hookpoint", "blocks.9"])
    assert again.exit_code == 2
    arguments[3] = str(tmp_path / "none.txt")
    assert CliRunner().invoke(main, arguments).exit_code == 2
    assert not (tmp_path / "new").exists()
    assert again.output.strip().splitlines()[-1].startswith("Error: ")
    nothing = CliRunner().invoke(main, ["activations", "info", str(tmp_path)])
    assert nothing.exit_code == 2
    assert "no finished activation store" in nothing.output


def _command(corpus: Path, out: Path, *launcher: str) -> list[str]:
    options = ["--corpus", str(corpus), "--out", str(out), "--texts-per-shard", "16", "--device", "cpu"]
    return [sys.executable, "-m", *launcher, "debias_ssae", "activations", "harvest", *options]


@pytest.mark.slow
def test_kill_minus_9_and_two_processes_give_the_same_bytes(tmp_path):
    corpus = tmp_path / "c.txt"
    rng = np.random.default_rng(0)
    words = np.asarray(["nurse", "surgeon", "she", "he", "works", "city", "clinic", "degree", "the", "and"])
    corpus.write_text("\n".join(" ".join(rng.choice(words, rng.integers(3, 60))) for _ in range(600)))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        _command(corpus, tmp_path / "whole"), check=True, env=env, capture_output=True, timeout=900
    )

    process = subprocess.Popen(_command(corpus, tmp_path / "s"), env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (tmp_path / "s" / "shard-00001.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "s" / "manifest.json").exists()
    subprocess.run(_command(corpus, tmp_path / "s"), check=True, env=env, capture_output=True, timeout=900)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")

    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    subprocess.run(
        _command(corpus, tmp_path / "two", *launch), check=True, env=env, capture_output=True, timeout=900
    )
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")
