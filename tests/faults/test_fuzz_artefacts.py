"""Damaged, mixed and forged directories of every kind: the documented error, or what was written; a damaged cache is
made again.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from small_debiaser import CONFIG, concept, fitted, make_texts, small_encoder, texts
from test_fuzz import damage, tried
from test_fuzz_models import attack

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_json, write_manifest
from debias_ssae.debiaser.training import learn_ssae
from debias_ssae.export import export_sentence_transformers, load_exported
from debias_ssae.model import load_model
from debias_ssae.model.store import ActivationStore, EmbeddingCache
from debias_ssae.model.store.harvest import harvest_to_store
from debias_ssae.retrieval import CorpusIndex, embed_texts
from debias_ssae.sae.formats import save_sae
from debias_ssae.selection.choices import Choice, Choices, check_nothing_lost

__all__ = ["concept", "fitted", "small_encoder", "texts"]

SOME = make_texts(300, seed=3)


def read_index(folder: Path) -> np.ndarray:
    index = CorpusIndex(folder)
    found = index.nearest(SOME[:3], 50)
    told = np.frombuffer("".join([*index.texts(), *(text for text, _ in found)]).encode(), np.uint8)
    return np.concatenate([[score for _, score in found], told])


def read_store(folder: Path) -> np.ndarray:
    return np.concatenate([x.numpy().ravel() for x in ActivationStore(folder).rows()])


def read_export(folder: Path) -> np.ndarray:
    return load_exported(folder).encode(SOME[:4])


def read_debiaser(folder: Path) -> np.ndarray:
    return SSAEDebiaser.load(folder).transform(SOME[:4])


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory, small_encoder, fitted, texts):
    """Kind to what reads it and two directories of that kind with other content."""
    folder = tmp_path_factory.mktemp("artefacts")
    model = load_model(str(small_encoder), dtype="float32")
    options: dict[str, Any] = {"config": CONFIG, "random_state": 1, "n_latents": 3}
    other = SSAEDebiaser(fitted.encoder, **options).fit(
        texts, sensitive_features=["she" in t.split() for t in texts]
    )
    for i, (some, debiaser) in enumerate(((SOME, fitted), (make_texts(300, seed=4), other))):
        index = CorpusIndex(folder / f"index-{i}", embedder=str(small_encoder))
        index.add(some)
        harvest_to_store(model, some[:60], folder / f"store-{i}", texts_per_shard=30)
        debiaser.save(folder / f"debiaser-{i}")
        export_sentence_transformers(debiaser, folder / f"export-{i}")
    readers = {"index": read_index, "store": read_store, "debiaser": read_debiaser, "export": read_export}
    return {kind: (read, folder / f"{kind}-0", folder / f"{kind}-1") for kind, read in readers.items()}


KINDS = ("index", "store", "debiaser", "export")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_mixed_directories(tmp_path, artefacts, kind, amount, counted):
    read, one, other = artefacts[kind]
    goal = tmp_path / "a"
    shutil.copytree(one, goal)
    for path in [p for p in goal.rglob("*") if p.suffix == ".md" or p.name == ".lock"]:
        path.unlink()  # what nothing is read from
    right = read(goal)
    n = amount(30, 1000)
    assert attack(goal, lambda: read(goal), np.random.default_rng(11), n, strict=True)
    for path in [p for p in goal.rglob("*") if p.is_file()]:
        whole, twin = path.read_bytes(), other / path.relative_to(goal)
        path.unlink()
        found = [tried(lambda: read(goal))]
        if twin.exists() and twin.read_bytes() != whole:
            shutil.copy(twin, path)
            found.append(tried(lambda: read(goal)))
        for what in found:
            assert isinstance(what, InputError) or np.array_equal(what, right), path.name
        path.write_bytes(whole)
    assert np.array_equal(read(goal), right)
    counted["directories"] = counted.get("directories", 0) + n


VALUES = [
    None,
    True,
    -1,
    0,
    3,
    10**30,
    1.5,
    "",
    "x",
    "../x",
    [],
    [0],
    [-1],
    {},
    {"a": 1},
    [[1]],
    "minilm",
    "0" * 64,
]


def retyped(value: Any, rng: np.random.Generator) -> Any:
    """``value`` with one of the values in it replaced by another kind of value, or left out."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[rng.integers(len(keys))]
        made = value.copy()
        if isinstance(value, dict) and rng.random() < 0.1:
            del made[key]
        else:
            made[key] = retyped(value[key], rng)
        return made
    return VALUES[rng.integers(len(VALUES))]


@pytest.mark.parametrize("kind", KINDS)
def test_forged_manifests(tmp_path, artefacts, kind, amount, counted):
    """Whoever can write a directory can write a manifest whose checksum is right: no foreign error comes of it."""
    read, one, _ = artefacts[kind]
    goal, rng = tmp_path / "a", np.random.default_rng(12)
    shutil.copytree(one, goal)
    manifest = read_json(goal / "manifest.json")
    n = amount(40, 1500)
    for _ in range(n):
        about, files = manifest["about"], manifest["files"]
        if rng.random() < 0.8:
            about = retyped(about, rng)
        else:
            files = retyped(files, rng)
        if not isinstance(about, dict) or not isinstance(files, dict):
            continue
        if not all(isinstance(told, dict) for told in files.values()):
            continue
        write_manifest(goal, manifest["kind"], about, files)
        found = tried(lambda: read(goal))
        assert isinstance(found, InputError | np.ndarray)
    counted["forged manifests"] = counted.get("forged manifests", 0) + n


def test_choices(tmp_path, fitted, amount, counted):
    sae = fitted.intervention_.sae
    cards = tuple(Choice(tick=i % 2 == 0, name=f"card {i}", ids=(i, i + 9)) for i in range(4))
    Choices({"embeddings": cards}, {"embeddings": sae}).save(tmp_path / "c.yaml")

    def read() -> np.ndarray:
        return Choices.load(tmp_path / "c.yaml").ids.get("embeddings", np.zeros(0, int))

    rng, n = np.random.default_rng(13), amount(40, 2000)
    attack(tmp_path / "c.sae", read, rng, n, strict=True)
    whole = (tmp_path / "c.yaml").read_bytes()
    for _ in range(n):  # a person edits this file, so that another number of a latent is what it says
        (tmp_path / "c.yaml").write_bytes(damage(whole, rng))
        found = tried(read)
        assert isinstance(found, InputError) or ((found >= 0) & (found < sae.cfg.d_sae)).all()
    counted["choices"] = counted.get("choices", 0) + 2 * n


@pytest.fixture(scope="module")
def caches(tmp_path_factory, small_encoder):
    """Kind to a call that uses a cache folder."""
    model = load_model(str(small_encoder), dtype="float32")
    config = CONFIG.updated(retrieval=CONFIG.retrieval.model_copy(update={"embedder": str(small_encoder)}))

    def vectors(folder: Path) -> np.ndarray:
        return EmbeddingCache(folder, "key").fetch(SOME[:50], lambda texts: np.ones((len(texts), 3)) * 7)

    def embedder(folder: Path) -> np.ndarray:
        return embed_texts(SOME[:50], str(small_encoder), cache_dir=folder)

    def sae(folder: Path) -> np.ndarray:
        learned = learn_ssae(
            model, SOME[:40], "embeddings", config, corpus=SOME[40:], cache_dir=folder, random_state=0
        )
        return learned.sae.W_dec.detach().numpy()

    return {"vectors": vectors, "embedder": embedder, "sae": sae}


@pytest.mark.parametrize("kind", ["vectors", "embedder", "sae"])
def test_a_damaged_cache_is_made_again(tmp_path, caches, kind, amount, counted):
    use, rng = caches[kind], np.random.default_rng(14)
    right = use(tmp_path / "whole")
    n = amount(6, 40 if kind == "sae" else 1500)
    for i in range(n):
        shutil.copytree(tmp_path / "whole", tmp_path / "a")
        files = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file() and p.stat().st_size)
        path = files[i % len(files)]
        path.write_bytes(damage(path.read_bytes(), rng))
        assert np.array_equal(tried(lambda: use(tmp_path / "a")), right), path.name
        shutil.rmtree(tmp_path / "a")
    counted["caches"] = counted.get("caches", 0) + n


def test_vectors_of_another_key_are_not_taken(tmp_path):
    def use(key: str, value: float) -> np.ndarray:
        return EmbeddingCache(tmp_path, key).fetch(SOME[:5], lambda texts: np.full((len(texts), 3), value))

    for key, value in (("one", 1.0), ("two", 2.0)):
        assert (use(key, value) == value).all()
    folders = {read_json(f / "key.json")["key"]: f for f in (tmp_path / "embeddings").iterdir()}
    shutil.copytree(folders["one"], folders["two"], dirs_exist_ok=True)
    for path in folders["two"].glob("part-*"):
        if not (folders["one"] / path.name).exists():
            path.unlink()
    assert (use("two", 2.0) == 2.0).all()


def test_a_persons_decisions_are_not_written_over(tmp_path, fitted):
    sae = fitted.intervention_.sae

    def choices(*ticks: bool) -> Choices:
        cards = tuple(Choice(tick=tick, name=f"card {i}", ids=(i,)) for i, tick in enumerate(ticks))
        return Choices({"embeddings": cards}, {"embeddings": sae})

    path = tmp_path / "c.yaml"
    check_nothing_lost(path, choices(False))
    choices(False, True).save(path, with_saes=False)
    check_nothing_lost(path, choices(False, True, False))
    for new in (choices(False, False), choices(True, True), choices(False)):
        with pytest.raises(InputError, match="holds a person's decision on 'card"):
            check_nothing_lost(path, new)


def test_an_index_without_texts_can_be_made_with_another_embedder(tmp_path, small_encoder):
    with pytest.raises(InputError, match="Cannot load the embedder"):
        CorpusIndex(tmp_path / "i", embedder="nobody/mistyped").add(SOME[:3])
    assert CorpusIndex(tmp_path / "i", embedder=str(small_encoder)).add(SOME[:3]) == 3
    with pytest.raises(InputError, match="was made with embedder="):
        CorpusIndex(tmp_path / "i", embedder="nobody/mistyped")


def test_names_that_are_no_utf8_are_printed(tmp_path, fitted):
    save_sae(fitted.intervention_.sae, tmp_path / "sae")
    given = ["sae", "convert", str(tmp_path / "sae"), f"{tmp_path}/\udcff"]
    done = CliRunner().invoke(main, given)
    assert (done.exit_code, done.exception) == (0, None), done.output
    assert "\\udcff: batchtopk" in done.output
