"""Scripts that need a machine of their own run here at small sizes, on every path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, out: Path, *arguments: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--out", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("minilm")
def test_gpu(tmp_path: Path) -> None:
    found = run("gpu.py", tmp_path / "gpu.json", "--tiny")
    assert found["tiny"]
    assert found["equality"]["vectors"] < 1e-4
    assert set(found["sae"]["times_faster"]) >= {"dense PyTorch"}
    assert 0 < found["harvest"]["share_of_peak"] < 2
    assert found["whole"]["times_faster_than_two_cores"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("minilm")
def test_transform_scale(tmp_path: Path) -> None:
    found = run("transform_scale.py", tmp_path / "scale.json", "--sizes", "200,400", "--trial")
    assert [one["n_texts"] for one in found["runs"]] == [200, 400]
