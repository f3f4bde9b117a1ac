"""The benchmark end to end on synthetic biographies: schema, determinism, resume, and that nothing leaks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from debias_ssae.benchmark import METHODS, demo_splits, demo_table, run_benchmark
from debias_ssae.benchmark import run as room
from debias_ssae.config import (
    ActivationConfig,
    BenchmarkConfig,
    DebiasConfig,
    RetrievalConfig,
    SelectionConfig,
    TrainConfig,
)
from debias_ssae.datasets import synthetic_corpus
from debias_ssae.exceptions import InputError

CONFIG = BenchmarkConfig(
    seeds=2,
    n_test=8,
    n_attribute=10,
    max_head=30,
    n_draws=2,
    debias=DebiasConfig(
        d_sae=128,
        k=16,
        general=TrainConfig(n_steps=30, batch_size=256),
        special=TrainConfig(n_steps=10, batch_size=256, lr=5e-4, tilt="auto"),
        general_rows=5_000,
        retrieval=RetrievalConfig(n_texts=30, max_seeds=30),
        activations=ActivationConfig(dtype="float32"),
        selection=SelectionConfig(n_latents=20, max_texts=60, min_cell=3),
    ),
)
KEYS = {
    "method", "setting", "regime", "representation", "head", "head_model", "C", "C_rule", "d_sae", "n_latents", "seed",
    "accuracy", "balanced_accuracy", "worst_group_accuracy", "worst_group", "attribute_accuracy", "leakage",
    "seconds_fit", "seconds_transform",
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    table = demo_table(CONFIG, correlation=1.0)
    return table[table.target.isin(["surgeon", "nurse"])].reset_index(drop=True)


def run(table: pd.DataFrame, out: Path, **options) -> dict:  # type: ignore[no-untyped-def]
    config = CONFIG.updated(**options.pop("config", {}))
    return run_benchmark(
        table, config, out, corpus=synthetic_corpus(80, random_state=0), splits=demo_splits, **options
    )


def without_seconds(runs: list[dict]) -> list[dict]:
    return [{k: v for k, v in run.items() if not k.startswith("seconds")} for run in runs]


@pytest.fixture(scope="module")
def results(minilm, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:  # type: ignore[no-untyped-def]
    out = tmp_path_factory.mktemp("bench")
    return run(table, out), out


def test_schema(results: tuple[dict, Path]) -> None:
    found, out = results
    written = json.loads((out / "results.json").read_text())
    assert set(written) >= {"config", "versions", "data", "runs", "summary", "concept"}
    assert written["runs"] == json.loads(json.dumps(found["runs"]))
    assert {run["method"] for run in written["runs"]} == set(CONFIG.methods)
    for run_ in written["runs"]:
        assert set(run_) >= KEYS
        assert 0 <= run_["worst_group_accuracy"] <= run_["accuracy"] <= 1
    for row in written["summary"]:
        assert (
            row["worst_group_accuracy_ci_low"]
            <= row["worst_group_accuracy"]
            <= row["worst_group_accuracy_ci_high"]
        )
    assert not list(out.glob("*.partial"))
    assert (out / "config.yaml").exists()


def test_every_method_has_its_rows(results: tuple[dict, Path]) -> None:
    counts = pd.DataFrame(results[0]["runs"]).groupby("method").size().to_dict()
    heads = dict.fromkeys(CONFIG.methods, 3) | {
        "erm": 1,
        "oracle": 1,
        "random_latents": 3 * CONFIG.n_draws,
        "ssae": 6,
    }
    assert counts == {method: n * 2 * CONFIG.seeds for method, n in heads.items()}, "heads x C rules x seeds"


def test_predictions_give_the_same_accuracies(results: tuple[dict, Path]) -> None:
    found, out = results
    predictions = pd.read_parquet(out / "predictions.parquet")
    keys = ["method", "regime", "representation", "head", "C_rule", "draw", "seed"]
    accuracy = (predictions.y == predictions.y_pred).groupby([predictions[k] for k in keys]).mean()
    for row in found["runs"]:
        assert accuracy[tuple(row[k] for k in keys)] == pytest.approx(row["accuracy"])


@pytest.mark.slow
def test_same_seed_same_results_and_resume(
    results: tuple[dict, Path], table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = room.evaluate

    def cut_off(seed, *rest):  # type: ignore[no-untyped-def]
        if seed.number == 1:
            raise KeyboardInterrupt
        return real(seed, *rest)

    monkeypatch.setattr(room, "evaluate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(table, tmp_path)
    started: list[int] = []

    def counted(seed, *rest):  # type: ignore[no-untyped-def]
        started.append(seed.number)
        return real(seed, *rest)

    monkeypatch.setattr(room, "evaluate", counted)
    again = run(table, tmp_path)
    assert set(started) == {1}, "the finished seed was not run again"
    assert without_seconds(again["runs"]) == without_seconds(results[0]["runs"])
    assert not (tmp_path / "seeds").exists()


@pytest.mark.slow
def test_no_test_text_and_no_head_label_reaches_selection(
    results: tuple[dict, Path], table: pd.DataFrame, tmp_path: Path
) -> None:
    """Poisoned test texts, and attribute labels of head and test rows, change no selection and no training."""
    from debias_ssae.benchmark.methods import Seed

    poisoned = table.copy()
    test, head = (((poisoned.part == part) & (poisoned.seed == 0)).to_numpy() for part in ("test", "head"))
    poisoned.loc[test, "text"] = [f"poison {i} she he her his" for i in range(test.sum())]
    poisoned.loc[test | head, "sensitive"] = np.roll(poisoned.loc[test | head, "sensitive"].to_numpy(), 1)
    chosen = []
    for data in (table, poisoned):
        # the pool holds the test texts too: they must not be learnt from there either
        pool = synthetic_corpus(80, random_state=0) + data.text[test].tolist()
        shared = room._prepare(data, CONFIG, pool, None, False)
        seed = Seed(shared, demo_splits(data)[0], 0)
        chosen.append((seed.sae.fingerprint(), seed.labelled.top(20).tolist(), seed.concept.top(20).tolist()))
    assert chosen[0] == chosen[1]


ON_REQUEST = tuple(method for method in METHODS if method not in CONFIG.methods)


@pytest.mark.slow
def test_methods_on_request(minilm, table: pd.DataFrame, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert ON_REQUEST
    found = run(table, tmp_path, config={"methods": ON_REQUEST, "seeds": 1})
    assert {row["method"] for row in found["summary"]} == set(ON_REQUEST)


@pytest.mark.slow
def test_without_a_concept_the_labelled_regime_stands_alone(
    minilm, table: pd.DataFrame, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    methods = ("erm", "scrub", "token_mask", "counterfactual_subspace", "random_latents", "ssae")
    found = run(table, tmp_path, config={"concept": None, "seeds": 1, "n_draws": 1, "methods": methods})
    rows = {(row["method"], row["regime"]) for row in found["summary"]}
    assert rows == {("erm", "none"), ("random_latents", "labelled"), ("ssae", "labelled")}
    assert found["concept"] is None


def test_unknown_method_and_small_cells_end_before_any_work(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown methods magic"):
        run(table, tmp_path / "out", config={"methods": ("erm", "magic")})
    with pytest.raises(InputError, match="fewer than"):
        run_benchmark(table, CONFIG.updated(n_test=500), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.realdata
def test_real_slice_one_seed(data_dir: Path, minilm, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """One seed of the real benchmark, smaller SAE and head: the shortcut is there, and most of it goes."""
    table = pd.read_parquet(data_dir / "bias_in_bios_surgeon_nurse" / "data.parquet")
    table = table.rename(columns={"profession": "target", "gender": "sensitive"})
    small = table.groupby(["target", "sensitive"]).head(500).reset_index(drop=True)
    config = BenchmarkConfig(
        seeds=1,
        n_test=100,
        n_attribute=100,
        max_head=300,
        methods=("erm", "oracle", "ssae"),
        debias=DebiasConfig(
            general=TrainConfig(n_steps=200, batch_size=1024),
            special=TrainConfig(n_steps=50, batch_size=1024, lr=5e-4, tilt="auto"),
            general_rows=60_000,
        ),
    )
    found = run_benchmark(small, config, tmp_path)
    worst = {
        (r["method"], r["regime"]): r["worst_group_accuracy"]
        for r in found["summary"]
        if r["head"] == "retrained" and r["C_rule"] == "fixed"
    }
    assert worst["erm", "none"] < 0.4
    assert worst["oracle", "labelled"] > 0.75
    for regime in ("labelled", "concept"):
        assert worst["ssae", regime] > worst["erm", "none"] + 0.2
