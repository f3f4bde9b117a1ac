"""Killed processes, two processes at once, full disks, places that cannot be written."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import only_writer, read_manifest, replace_directory, write_bytes, write_json
from debias_ssae.retrieval import CorpusIndex
from debias_ssae.text import write_table

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

WRITER = """
import sys
from pathlib import Path
from debias_ssae.core.io import replace_directory, write_bytes, write_manifest

goal, start = Path(sys.argv[1]), int(sys.argv[2])

def fill(folder, n):
    for part in range(4):
        write_bytes(folder / f"part-{part}", n.to_bytes(4, "little") * 20_000)
    write_manifest(folder, "thing 1", {"n": n})

print("ready", flush=True)
for n in range(start, start + 10**6):
    replace_directory(goal / "model", lambda folder: fill(folder, n))
    write_bytes(goal / "file", n.to_bytes(4, "little") * 20_000)
    print(n, flush=True)
"""

INDEXER = """
import sys
import numpy as np
from debias_ssae.retrieval import index as module

def embed_texts(texts, *args, **kwargs):
    x = np.random.default_rng(len(texts[0])).random((len(texts), 8), np.float32) + 0.1
    return x / np.linalg.norm(x, axis=1, keepdims=True)

module.embed_texts, module.load_embedder, module.PART_TEXTS = embed_texts, str, 20
print("ready", flush=True)
texts = (f"text number {i} {sys.argv[2]}" for i in range(int(sys.argv[3])))
print(module.CorpusIndex(sys.argv[1], embedder="minilm").add(texts), flush=True)
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def whole(goal: Path) -> int | None:
    """The number that the directory and the file hold, each of one writing; None where there is none yet."""
    if not (goal / "model").exists():
        return None
    manifest = read_manifest(goal / "model", "thing 1")
    n = manifest.about["n"]
    for part in range(4):
        assert manifest.bytes(f"part-{part}") == n.to_bytes(4, "little") * 20_000
    if (goal / "file").exists():
        data = (goal / "file").read_bytes()
        assert data == data[:4] * 20_000
    return n


def test_kill_at_any_moment_leaves_something_whole_and_the_next_run_clears_up(tmp_path, amount, counted):
    rng, latest = random.Random(0), -1
    for _ in range(amount(3, 40)):
        with started(WRITER, tmp_path, latest + 1) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.random() * 0.4)
            process.kill()
            said = [int(line) for line in process.stdout]
        found = whole(tmp_path)
        # what was said to be finished is there
        assert found is not None or not said
        if found is not None:
            assert found >= max(said, default=latest)
            latest = found
        counted["kills"] = counted.get("kills", 0) + 1
    replace_directory(tmp_path / "model", lambda folder: write_bytes(folder / "f", b""))
    write_bytes(tmp_path / "file", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


def test_an_index_that_is_killed_goes_on_as_if_nothing_had_happened(tmp_path, amount, counted):
    rng, n = random.Random(1), 400
    for _ in range(amount(2, 20)):
        with started(INDEXER, tmp_path / "i", "a", n) as process:
            process.stdout.readline()
            time.sleep(rng.random() * 0.5)
            process.kill()
        counted["kills"] = counted.get("kills", 0) + 1
    with started(INDEXER, tmp_path / "i", "a", n) as process:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    index = CorpusIndex(tmp_path / "i")
    assert index.texts() == [f"text number {i} a" for i in range(n)]
    assert len(index) == n
    assert not [path for path in (tmp_path / "i").iterdir() if path.suffix in (".tmp", ".partial", ".old")]


def test_two_indexers_at_once_lose_nothing(tmp_path):
    both = [started(INDEXER, tmp_path / "i", name, 2000) for name in ("a", "b")]
    ends = [(process.communicate(timeout=120), process.returncode) for process in both]
    held = {text.split()[-1] for text in CorpusIndex(tmp_path / "i").texts()}
    succeeded = {name for name, (_, code) in zip("ab", ends, strict=True) if code == 0}
    assert succeeded
    assert held == succeeded
    for (_, err), code in ends:
        if code != 0:
            assert "Another process is writing" in err.strip().splitlines()[-1]


def test_two_writers_of_one_directory_at_once_leave_one_whole(tmp_path, amount, counted):
    for _ in range(amount(1, 10)):
        with started(WRITER, tmp_path, 0) as one, started(WRITER, tmp_path, 10**8) as other:
            for process in (one, other):
                process.stdout.readline()
            begun = time.monotonic()
            # on a busy machine the first directory takes its time
            while time.monotonic() - begun < (0.7 if (tmp_path / "model").exists() else 60):
                with suppress(InputError):  # replaced while it is read: an error, never a mixture
                    whole(tmp_path)
            for process in (one, other):
                process.kill()
                assert "Error" not in process.communicate()[1]
        assert whole(tmp_path) is not None
        counted["races"] = counted.get("races", 0) + 1


@pytest.fixture
def full_disk():
    """Files of this process cannot grow beyond 20,000 bytes: what a full disk says, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def fill_directory(goal: Path) -> None:
    replace_directory(goal, lambda folder: write_bytes(folder / "f", bytes(50_000)))


@pytest.mark.parametrize(
    "write",
    [
        lambda goal: write_bytes(goal, bytes(50_000)),
        lambda goal: write_json(goal, ["x" * 60] * 1000),
        lambda goal: write_table(frame(), goal.with_suffix(".csv")),
        lambda goal: write_table(frame(), goal.with_suffix(".parquet")),
        fill_directory,
    ],
)
def test_a_full_disk_is_named_with_the_cure_and_leaves_nothing(tmp_path, full_disk, write):
    with pytest.raises(InputError, match=r"disk is full: .*goal.*Free some space"):
        write(tmp_path / "goal")
    assert list(tmp_path.iterdir()) == []


def frame():
    import pandas as pd

    return pd.DataFrame(np.random.default_rng(0).random((3000, 4)), columns=list("abcd"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for write in (write_bytes, lambda goal, data: replace_directory(goal, lambda folder: None)):
            with pytest.raises(InputError, match="no permission; change the rights"):
                write(tmp_path / "goal", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_read_only_places_are_named(tmp_path):
    for place in ("/proc/goal", "/sys/goal"):
        if Path(place).parent.is_dir():
            with pytest.raises(InputError, match="Cannot write /"):
                write_bytes(place, b"x")
            with pytest.raises(InputError, match="Cannot write /"), only_writer(Path(place)):
                pass


STARVED = """
import resource, sys
import numpy as np
import torch
from transformers import BertConfig, BertModel
sys.path.insert(0, sys.argv[1])
from small_models import sentences, small_tokenizer
from debias_ssae.model import embed, forward, wrap_model

torch.set_num_threads(1)
sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 4096}
bert = BertModel(BertConfig(vocab_size=64, max_position_embeddings=40, **sizes))
model = wrap_model(bert, small_tokenizer(), name="wide", dtype=torch.float32)
texts, room = sentences(2_000, longest=30), int(sys.argv[2]) * 2**20
wanted = embed(model.with_limits(token_budget=512), texts)
sizes, real = [], forward.run_batch

def watched(model, batch, *args, **options):
    sizes.append(len(batch.sequences))
    real(model, batch, *args, **options)

forward.run_batch = watched
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
found = embed(model.with_limits(token_budget=10**6), texts)
print(max(sizes), min(sizes), float(np.abs(found - wanted).max()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory in use is read from /proc")
def test_under_a_memory_limit_batches_are_halved(counted):
    """A real limit of the address space: the batch that does not fit is halved until it does."""
    models = str(Path(__file__).parents[1] / "model")
    for room in (6000, 300):
        process = started(STARVED, models, room)
        out, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
        largest, smallest, difference = map(float, out.split())
        assert difference < 1e-5
        assert (smallest < largest / 2) == (room == 300), "the control: with room enough one batch is all"
        counted["memory limits"] = counted.get("memory limits", 0) + 1
