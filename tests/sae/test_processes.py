"""Several processes compute what one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted_sae import planted_rows

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae import load_sae, shuffled_batches, train_sae
from debias_ssae.sae.checkpoints import checkpoint_files
from debias_ssae.sae.metrics import evaluate
from debias_ssae.sae.processes import Processes, start_processes

SCRIPT = """
import sys, torch, torch.distributed as dist
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from planted_sae import planted_rows
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.sae import save_sae, shuffled_batches, train_sae
torch.set_num_threads(1)
dist.init_process_group("gloo")
out = Path(sys.argv[1])
for dtype in ("float64", "float32"):
    for architecture in sys.argv[3:]:
        cfg = SAEConfig(d_in=16, d_sae=48, k=4, dtype=dtype, architecture=architecture)
        train = TrainConfig(n_steps=50, batch_size=66, tilt="auto", dead_steps=2, device="cpu",
                            matmul_dtype="float32", checkpoint_steps=20)
        x = planted_rows(1000).to(getattr(torch, dtype))
        name = f"{dtype}-{architecture}"
        result = train_sae(shuffled_batches(x, 66, 0), cfg, train, random_state=0,
                           checkpoint_dir=out / f"checkpoints-{name}-{dist.get_rank()}")
        save_sae(result.sae, out / f"{name}-{dist.get_rank()}")
dist.destroy_process_group()
"""
NAMES = ("relu", "topk", "batchtopk", "jumprelu", "matryoshka")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    script = out / "train.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    here = str(Path(__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(out), here, *NAMES], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_two_ranks_equal_one(two_ranks, dtype, architecture):
    name = f"{dtype}-{architecture}"
    cfg = SAEConfig(d_in=16, d_sae=48, k=4, dtype=dtype, architecture=architecture)
    train = TrainConfig(
        n_steps=50, batch_size=66, tilt="auto", dead_steps=2, device="cpu", matmul_dtype="float32"
    )
    x = planted_rows(1000).to(getattr(torch, dtype))
    one = train_sae(shuffled_batches(x, 66, 0), cfg, train, random_state=0).sae
    ranks = [load_sae(two_ranks / f"{name}-{rank}") for rank in (0, 1)]
    assert ranks[0].fingerprint() == ranks[1].fingerprint()
    for key, value in one.state_dict().items():
        other = ranks[0].state_dict()[key]
        if dtype == "float64":
            assert (value - other).abs().max() < 1e-10, key
        else:
            assert (value - other).norm() <= 1e-4 * value.norm(), key
    fvu = [evaluate(sae, x)["fvu"] for sae in (one, ranks[0])]
    assert fvu[1] == pytest.approx(fvu[0], rel=1e-3)


@pytest.mark.slow
def test_only_rank_zero_writes(two_ranks):
    assert len(checkpoint_files(two_ranks / "checkpoints-float64-topk-0")) == 2
    assert checkpoint_files(two_ranks / "checkpoints-float64-topk-1") == []


def test_a_batch_smaller_than_the_number_of_processes():
    processes = Processes(torch.device("cpu"))
    assert processes.bounds(1) == (0, 1)
    processes.size, processes.rank = 3, 1
    assert [processes.bounds(7), processes.bounds(5)] == [(2, 4), (2, 4)]
    with pytest.raises(InputError, match="4 rows cannot be split over 3 processes: give at least 5 rows"):
        processes.bounds(4)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shares_cover_the_batch_and_begin_at_even_rows(size):
    processes = Processes(torch.device("cpu"))
    processes.size = size
    for n in range(2 * size - 1, 60):
        shares = []
        for processes.rank in range(size):
            shares.append(processes.bounds(n))
        edges = [low for low, _ in shares] + [n]
        assert [high for _, high in shares] == edges[1:]
        assert edges == sorted(set(edges))
        assert all(low % 2 == 0 for low, _ in shares)


def test_each_process_of_torchrun_works_on_its_own_gpu(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, "init_process_group", calls.append)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    start_processes(torch.device("cuda"))
    assert calls == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    start_processes(torch.device("cuda"))
    assert calls == [1, "nccl"]
    calls.clear()
    start_processes(torch.device("cpu"))  # as asked, even where there are GPUs
    assert calls == ["gloo"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="Process 2 has no GPU, there are 2"):
        start_processes(torch.device("cuda"))
