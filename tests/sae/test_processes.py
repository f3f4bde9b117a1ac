"""Several processes compute what one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted_sae import planted_rows

from debias_ssae.config import SAEConfig, TrainConfig
from debias_ssae.exceptions import InputError
from debias_ssae.sae import load_sae, shuffled_batches, train_sae
from debias_ssae.sae.checkpoints import checkpoint_files
from debias_ssae.sae.metrics import evaluate
from debias_ssae.sae.processes import Processes

SCRIPT = """
import sys, torch, torch.distributed as dist
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from planted_sae import planted_rows
from debias_ssae.config import SAEConfig, TrainConfig
from debias_ssae.sae import save_sae, shuffled_batches, train_sae
torch.set_num_threads(1)
dist.init_process_group("gloo")
out = Path(sys.argv[1])
for dtype in ("float64", "float32"):
    for architecture in sys.argv[3:]:
        cfg = SAEConfig(d_in=16, d_sae=48, k=4, dtype=dtype, architecture=architecture)
        train = TrainConfig(n_steps=50, batch_size=65, tilt="auto", dead_steps=2, device="cpu",
                            matmul_dtype="float32", checkpoint_steps=20)
        x = planted_rows(1000).to(getattr(torch, dtype))
        name = f"{dtype}-{architecture}"
        result = train_sae(shuffled_batches(x, 65, 0), cfg, train, random_state=0,
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
        n_steps=50, batch_size=65, tilt="auto", dead_steps=2, device="cpu", matmul_dtype="float32"
    )
    x = planted_rows(1000).to(getattr(torch, dtype))
    one = train_sae(shuffled_batches(x, 65, 0), cfg, train, random_state=0).sae
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
    assert [processes.bounds(7), processes.bounds(3)] == [(2, 4), (1, 2)]
    with pytest.raises(InputError, match="2 rows cannot be split over 3"):
        processes.bounds(2)
