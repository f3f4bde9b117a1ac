"""Commands killed at random moments, then run again: the same result as uninterrupted, and no litter."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from small_debiaser import CONFIG, make_texts, small_encoder

from debias_ssae import SSAEDebiaser
from debias_ssae.core.config import dump_config
from debias_ssae.core.io import read_json

__all__ = ["small_encoder"]

# imports once, forks for each command: most of a command's time would be imports
FORKER = """
import ctypes, os, resource, signal, sys
import debias_ssae.cli.activations, debias_ssae.cli.estimators, debias_ssae.cli.retrieve, debias_ssae.cli.sae
import debias_ssae.benchmark.page, debias_ssae.cli.benchmark, debias_ssae.cli.discover, debias_ssae.review.page
import debias_ssae.debiaser, debias_ssae.model.store.harvest, debias_ssae.sae.training, sentence_transformers, datasets
from debias_ssae.cli import main

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        limit, *words = line.split()
        if limit == "common":  # a user who is not root: permissions count
            ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
        elif limit != "-":  # no file may be longer: what a full disk says
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
        try:
            main(words)
        except SystemExit as end:
            os._exit(end.code or 0)
        finally:
            os._exit(99)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forker:
    def __init__(self, errors: Path) -> None:
        self.errors = errors
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER, str(errors)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def start(self, command: str, limit: int | str | None = None) -> int:
        self.process.stdin.write(f"{'-' if limit is None else limit} {command}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forker(tmp_path_factory):
    made = Forker(tmp_path_factory.mktemp("forker") / "errors")
    yield made
    made.process.stdin.close()
    made.process.wait()
    made.process.stdout.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    texts = make_texts(600)
    (folder / "corpus.txt").write_text("\n".join(texts))
    rows = "\n".join(
        f"{text},{'f' if 'she' in text.split() else 'm'},{'ab'[i % 2]}" for i, text in enumerate(texts[:120])
    )
    (folder / "table.csv").write_text(f"text,g,y\n{rows}\n")
    (folder / "small.yaml").write_text(dump_config(CONFIG))
    return folder


COMMANDS = {
    "harvest": "activations harvest --encoder {encoder} --corpus {inputs}/corpus.txt --out {out}/made --dtype float32"
    " --texts-per-shard 40 --quiet",
    "sae": "sae train --encoder {encoder} --corpus {inputs}/corpus.txt --out {out}/made --rows 4000 --steps 150"
    " --d-sae 32 --k 4 --batch-size 128 --set checkpoint_steps=40 --resume --quiet",
    "fit": "fit --data {inputs}/table.csv --sensitive g --corpus {inputs}/corpus.txt --encoder {encoder}"
    " --out {out}/made --config {inputs}/small.yaml --cache {out}/cache --overwrite --quiet",
    "transform": "transform {inputs}/model --data {inputs}/corpus.txt --out {out}/made --rows-per-shard 40 --format npy"
    " --device cpu --quiet",
    "index": "retrieve index --corpus {inputs}/corpus.txt --out {out}/made --embedder {encoder} --quiet",
    "discover": "discover --data {inputs}/table.csv --target g --encoder {encoder} --config {inputs}/small.yaml"
    " --cache {out}/cache --out {out}/made --quiet",
    "benchmark": "benchmark table --data {inputs}/table.csv --target y --sensitive g --encoder {encoder}"
    " --out {out}/made --methods erm,leace,mean_diff --concept none --seeds 2 --jobs 1 --n-test 3 --n-attribute 4"
    " --max-head 12 --quiet",
}


KEPT = (".safetensors", ".npy", ".parquet", ".yaml")


def contents(folder: Path) -> dict[str, object]:
    """All that was made; the descriptions beside it hold times of the clock."""
    made: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix in KEPT and name.parts[0] not in ("checkpoints", "cache"):
            made[str(name)] = path.read_bytes()
        elif path.name == "results.json":
            summary = read_json(path)["summary"]
            made["summary"] = [{k: v for k, v in row.items() if "seconds" not in k} for row in summary]
    return made


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".partial", ".old")]


def make_model(name: str, forker: Forker, inputs: Path, encoder: Path) -> None:
    """The model that transform reads."""
    if name == "transform" and not (inputs / "model").exists():
        forker.start(COMMANDS["fit"].format(encoder=encoder, inputs=inputs, out=inputs))
        assert forker.end() == 0
        (inputs / "made").rename(inputs / "model")


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_and_run_again_it_is_as_if_never_killed(
    tmp_path, forker, inputs, small_encoder, name, amount, counted
):
    n_kills = amount(name in ("harvest", "transform"), 20)
    if not n_kills:
        pytest.skip("make faults runs it")
    make_model(name, forker, inputs, small_encoder)

    def command(folder: str) -> str:
        return COMMANDS[name].format(encoder=small_encoder, inputs=inputs, out=tmp_path / folder)

    def run(folder: str) -> float:
        begin = time.monotonic()
        forker.start(command(folder))
        assert forker.end() == 0
        return time.monotonic() - begin

    (tmp_path / "whole").mkdir()
    seconds = run("whole")
    right, rng = contents(tmp_path / "whole" / "made"), random.Random(len(name))
    for i in range(n_kills):
        folder = f"killed-{i}"
        (tmp_path / folder).mkdir()
        pid = forker.start(command(folder))
        time.sleep(rng.random() * seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        forker.end()
        run(folder)
        assert contents(tmp_path / folder / "made") == right != {}
        assert litter(tmp_path / folder) == []
        shutil.rmtree(tmp_path / folder)
        counted["kills"] = counted.get("kills", 0) + 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tmp_path, forker, inputs, small_encoder, name, amount, counted
):
    if not amount(name == "harvest", 1):
        pytest.skip("make faults runs it")
    make_model(name, forker, inputs, small_encoder)
    for folder, limits in (("whole", [None]), ("full", [1000, 4000, 20_000, None])):
        (tmp_path / folder).mkdir()
        command = COMMANDS[name].format(encoder=small_encoder, inputs=inputs, out=tmp_path / folder)
        for limit in limits:
            forker.start(command, limit)
            code = forker.end()
            if code and limit is not None:
                assert code == 2
                assert re.search(
                    r"^Error: The disk is full: /.* Free some space", forker.errors.read_text(), re.M
                )
                counted["full disks"] = counted.get("full disks", 0) + 1
        assert code == 0
    assert contents(tmp_path / "full" / "made") == contents(tmp_path / "whole" / "made") != {}
    assert litter(tmp_path / "full") == []


def test_a_fit_over_an_old_model_leaves_the_old_one_or_the_new_one(
    tmp_path, forker, inputs, small_encoder, amount, counted
):
    command = COMMANDS["fit"].format(encoder=small_encoder, inputs=inputs, out=tmp_path)
    forker.start(command)
    assert forker.end() == 0
    texts = make_texts(5, seed=7)
    old = SSAEDebiaser.load(tmp_path / "made").transform(texts)
    forker.start(command + " --seed 1")  # fills the cache, so that the kills fall into the writing
    assert forker.end() == 0
    new, rng = SSAEDebiaser.load(tmp_path / "made").transform(texts), random.Random(3)
    assert not np.array_equal(old, new)
    for i in range(amount(1, 20)):
        begin = time.monotonic()
        pid = forker.start(command + f" --seed {i % 2}")
        time.sleep(rng.random() * 2)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        forker.end()
        assert time.monotonic() - begin < 60
        found = SSAEDebiaser.load(tmp_path / "made").transform(texts)
        assert np.array_equal(found, old) or np.array_equal(found, new)
        counted["kills"] = counted.get("kills", 0) + 1
    forker.start(command)
    assert forker.end() == 0
    assert litter(tmp_path) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_two_at_once_in_one_place_leave_one_whole(
    tmp_path, forker, inputs, small_encoder, name, amount, counted
):
    """The same command twice, at the same moment: what is there in the end is what one of them makes alone."""
    n_races = amount(name == "fit", 3)
    if not n_races:
        pytest.skip("make faults runs it")
    make_model(name, forker, inputs, small_encoder)

    def command(folder: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        return COMMANDS[name].format(encoder=small_encoder, inputs=inputs, out=tmp_path / folder)

    forker.start(command("whole"))
    assert forker.end() == 0
    other = Forker(tmp_path / "errors")
    try:
        for i in range(n_races):
            for one in (forker, other):
                one.start(command(f"raced-{i}"))
            ends = {one: one.end() for one in (forker, other)}
            assert 0 in ends.values()
            for one, code in ends.items():  # one of them may be told that the other is at it
                assert code in (0, 2)
                assert code == 0 or re.search("^Error: .+$", one.errors.read_text(), re.M)
            assert contents(tmp_path / f"raced-{i}" / "made") == contents(tmp_path / "whole" / "made") != {}
            assert litter(tmp_path / f"raced-{i}") == []
            counted["races"] = counted.get("races", 0) + 1
    finally:
        other.process.stdin.close()
        other.process.wait()
        other.process.stdout.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_places_without_permission_are_named_and_nothing_is_written(
    tmp_path, forker, inputs, small_encoder, name, amount, counted
):
    if not amount(name in ("harvest", "sae"), 1):
        pytest.skip("make faults runs it")
    make_model(name, forker, inputs, small_encoder)
    tmp_path.chmod(0o500)
    try:
        forker.start(COMMANDS[name].format(encoder=small_encoder, inputs=inputs, out=tmp_path), "common")
        assert forker.end() == 2
        assert re.search(
            r"^Error: .*(permission|leave to write|not writable)", forker.errors.read_text(), re.M
        )
        assert list(tmp_path.iterdir()) == []
    finally:
        tmp_path.chmod(0o700)
    counted["places without permission"] = counted.get("places without permission", 0) + 1
