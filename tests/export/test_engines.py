"""The lines of docs/howto/deploy.md on local Ray and Spark, where these are installed."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_debiaser import make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.export import export_sentence_transformers

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "deploy.md").read_text()
TEXTS = make_texts(10_000, seed=3)


@pytest.fixture
def folder(fitted: SSAEDebiaser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    export_sentence_transformers(fitted, "debiased")
    Path("texts").mkdir()
    table = pd.DataFrame({"number": range(len(TEXTS)), "text": TEXTS})
    for i in range(4):
        table[2500 * i : 2500 * (i + 1)].to_parquet(f"texts/{i}.parquet", index=False)
    return tmp_path


def run(package: str, folder: Path) -> None:
    (code,) = (
        block for block in re.findall(r"```py\n(.*?)```", PAGE, re.S) if re.search(rf"\b{package}\b", block)
    )
    for name in ("debiased", "texts", "vectors"):
        code = code.replace(f'"{name}"', repr(str(folder / name)))
    exec(compile(code, package, "exec"), {"__name__": package})


def check(folder: Path, fitted: SSAEDebiaser) -> None:
    found = pd.concat([pd.read_parquet(file) for file in (folder / "vectors").glob("*.parquet")])
    vectors = np.stack(found.sort_values("number")["vector"].tolist())
    assert np.abs(vectors - fitted.transform(TEXTS)).max() < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray(folder: Path, fitted: SSAEDebiaser, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra engines")
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers starve on a busy machine
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run("ray", folder)
    finally:
        ray.shutdown()
    check(folder, fitted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spark(folder: Path, fitted: SSAEDebiaser, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="needs the extra engines")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        run("pyspark", folder)
    finally:
        session.stop()
    check(folder, fitted)
