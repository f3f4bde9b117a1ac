"""A run that is cut off at any step goes on to the same bits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_sae import planted_rows

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae import SparseAutoencoder, load_sae, shuffled_batches, train_sae
from debias_ssae.sae.checkpoints import Checkpoint, checkpoint_files, read_checkpoint, write_checkpoint

CFG = SAEConfig(d_in=16, d_sae=48, k=4)
TRAIN = TrainConfig(n_steps=40, batch_size=64, checkpoint_steps=6, tilt=2.0, device="cpu")
SCRIPT = """
import sys, time, torch
sys.path.insert(0, sys.argv[3])
from planted_sae import planted_rows
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.sae import save_sae, shuffled_batches, train_sae
torch.set_num_threads(1)
cfg = SAEConfig(d_in=16, d_sae=48, k=4, architecture=sys.argv[4])
train = TrainConfig(n_steps=40, batch_size=64, checkpoint_steps=6, tilt=2.0, device="cpu")

def slow(batches):
    for batch in batches:
        time.sleep(0.03)
        yield batch

sae = train_sae(slow(shuffled_batches(planted_rows(1000), 64, 0)), cfg, train, random_state=0,
                checkpoint_dir=sys.argv[1], resume=True).sae
save_sae(sae, sys.argv[2])
"""


class CutError(Exception):
    """Stands for whatever ends a run."""


def stream():
    return shuffled_batches(planted_rows(1000), 64, 0)


class Cut(Iterator):
    """The first ``n`` batches of a stream, then the end of the run."""

    def __init__(self, batches, n):
        self.batches, self.left, self.seed = batches, n, getattr(batches, "seed", None)

    def __next__(self):
        if self.left == 0:
            raise CutError
        self.left -= 1
        return next(self.batches)


def run(directory, *, cfg=CFG, cut=None, resume=False, batches=None):
    batches = batches or stream()
    batches = batches if cut is None else Cut(batches, cut + 1)
    return train_sae(batches, cfg, TRAIN, random_state=0, checkpoint_dir=directory, resume=resume)


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu", "matryoshka"])
def test_resume_is_bit_identical(tmp_path, architecture):
    cfg = CFG.updated(architecture=architecture)
    whole = train_sae(stream(), cfg, TRAIN, random_state=0)
    with pytest.raises(CutError):
        run(tmp_path, cfg=cfg, cut=20)
    assert [path.stem for path in checkpoint_files(tmp_path)] == ["step-000000018", "step-000000012"]
    resumed = run(tmp_path, cfg=cfg, resume=True)
    assert resumed.sae.fingerprint() == whole.sae.fingerprint()
    timeless = [
        [
            {k: v for k, v in record.items() if k not in ("seconds", "rows_per_second")}
            for record in result.history
        ]
        for result in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]


def test_a_stream_that_cannot_seek_is_read_past(tmp_path):
    batches = [next(s) for s in [stream()] for _ in range(40)]
    with pytest.raises(CutError):
        run(tmp_path, cut=9, batches=iter(batches))
    with pytest.raises(InputError, match="ended after 3 batches"):
        run(tmp_path, resume=True, batches=iter(batches[:3]))
    resumed = run(tmp_path, resume=True, batches=iter(batches))
    assert resumed.sae.fingerprint() == train_sae(stream(), CFG, TRAIN, random_state=0).sae.fingerprint()


@pytest.mark.slow
def test_kill_nine_then_resume_is_bit_identical(tmp_path):
    architecture = "batchtopk"
    command = [sys.executable, "-c", SCRIPT]
    here, out = str(Path(__file__).parents[1]), tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(checkpoints):
        arguments = [str(checkpoints), str(out), here, architecture]
        return subprocess.Popen([*command, *arguments], env=environment)

    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while len(checkpoint_files(tmp_path / "killed")) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert start(tmp_path / "killed").wait() == 0
    cfg = CFG.updated(architecture=architecture)
    assert load_sae(out).fingerprint() == train_sae(stream(), cfg, TRAIN, random_state=0).sae.fingerprint()


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "no digest"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, damage):
    whole = train_sae(stream(), CFG, TRAIN, random_state=0)
    with pytest.raises(CutError):
        run(tmp_path, cut=20)
    newest = checkpoint_files(tmp_path)[0]
    data = bytearray(newest.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "altered":
        data[-100] ^= 1
    elif damage == "empty":
        data = bytearray()
    else:
        data = data.replace(b'"sha256"', b'"sha255"')
    newest.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(newest)
    with pytest.warns(RuntimeWarning, match=r"step-000000018.* is damaged.*the one before it is used"):
        resumed = run(tmp_path, resume=True)
    assert resumed.sae.fingerprint() == whole.sae.fingerprint()


def test_an_error_in_the_stream_keeps_the_last_good_checkpoint(tmp_path):
    batches = [planted_rows(64, seed=i) for i in range(40)]
    batches[15][0, 0] = torch.nan
    with pytest.raises(InputError, match="Batch 15"):
        run(tmp_path, batches=iter(batches))
    assert read_checkpoint(checkpoint_files(tmp_path)[0]).step == 12


def test_checkpoints_of_another_run_are_not_mixed_in(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match=r"resume=True \(--resume\) or give another"):
        run(tmp_path)
    with pytest.raises(InputError, match="another configuration"):
        run(tmp_path, cfg=CFG.updated(k=5), resume=True)


@pytest.mark.parametrize("other", ["init", "random_state", "stream"])
def test_checkpoints_of_a_run_with_another_start_or_stream_are_refused(tmp_path, other):
    cfg, rows = CFG.updated(architecture="relu"), planted_rows(1000)
    inits = [SparseAutoencoder(cfg, random_state=seed) for seed in (1, 2)]

    def start(**changes):
        named = {"init": inits[0], "random_state": 0, "stream": 0} | changes
        batches = shuffled_batches(rows, 64, named.pop("stream"))
        return train_sae(batches, cfg, TRAIN, checkpoint_dir=tmp_path, resume=True, **named)

    first = start()
    assert start().sae.fingerprint() == first.sae.fingerprint()
    changed = {"init": inits[1], "random_state": 1, "stream": 1}[other]
    with pytest.raises(InputError, match=rf"another configuration \(.*{other}"):
        start(**{other: changed})


def test_the_seed_of_a_numpy_integer_is_kept(tmp_path):
    seed = np.int64(3)
    batches = shuffled_batches(planted_rows(1000), 64, seed)
    assert train_sae(batches, CFG, TRAIN, random_state=seed, checkpoint_dir=tmp_path).history


def test_resuming_a_finished_run_returns_it(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path, resume=True)
    assert again.sae.fingerprint() == first.sae.fingerprint()
    assert again.history == first.history


def test_resume_where_nothing_is_starts_anew(tmp_path):
    assert run(tmp_path / "new", resume=True).history[0]["step"] == 0


def test_only_two_checkpoints_stay_and_no_temporary_file(tmp_path):
    for step in (3, 20, 100):
        write_checkpoint(tmp_path, Checkpoint(step, {"a": torch.ones(2, 3).T}, {"b": [1.5, None]}))
    (tmp_path / "step-x.safetensors").touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-000000020.safetensors",
        "step-000000100.safetensors",
        "step-x.safetensors",
    ]
    read = read_checkpoint(checkpoint_files(tmp_path)[0])
    assert read.step == 100
    assert read.state == {"b": [1.5, None]}
    assert torch.equal(read.tensors["a"], torch.ones(3, 2))


def test_time_alone_writes_checkpoints(tmp_path):
    eager = TRAIN.updated(checkpoint_steps=1000, checkpoint_minutes=1e-9, init_batches=1)
    seen = []

    def counted():
        for batch in stream():
            seen.append(len(checkpoint_files(tmp_path)))
            yield batch

    train_sae(counted(), CFG, eager, checkpoint_dir=tmp_path)
    assert seen[:4] == [0, 1, 2, 2]
