"""The index grows, resumes, finds what an exact search finds, and the command line drives it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_manifest, write_manifest
from debias_ssae.retrieval import CorpusIndex, retrieve
from debias_ssae.retrieval.index import KIND

WORDS = [
    "nurse",
    "surgeon",
    "match",
    "cup",
    "senate",
    "vote",
    "river",
    "rain",
    "opera",
    "violin",
    "tax",
    "bank",
]


def corpus(n, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) + f" {seed} {i}" for i in range(n)]


class Vectors:
    """Stands for the embedder: a random direction a word, so that no model runs."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.words = {word: rng.standard_normal(16) for word in WORDS}
        self.n_texts = 0

    def __call__(self, texts, *args, **kwargs):
        self.n_texts += len(texts)
        rows = [
            sum((self.words.get(w, 0) for w in t.split()), np.zeros(16))
            + 0.3 * np.random.default_rng(len(t)).random(16)
            for t in texts
        ]
        x = np.asarray(rows, np.float32).reshape(-1, 16)
        return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def embedder(monkeypatch):
    vectors = Vectors()
    monkeypatch.setattr("debias_ssae.retrieval.index.embed_texts", vectors)
    monkeypatch.setattr("debias_ssae.retrieval.index.load_embedder", lambda name: None)
    monkeypatch.setattr("debias_ssae.retrieval.index.PART_TEXTS", 100)
    return vectors


def test_it_grows_and_holds_each_text_once(tmp_path, embedder):
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    texts = corpus(250)
    assert index.add([*texts, texts[0].upper() + "!", "", None]) == 250
    again = CorpusIndex(tmp_path / "i")
    assert again.add([*texts, "a new one"]) == 1
    assert len(again) == 251
    assert again.texts() == [*texts, "a new one"]


def test_interrupted_growth_goes_on(tmp_path, embedder):
    texts = corpus(250)

    def broken():
        yield from texts[:150]
        raise KeyboardInterrupt

    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    with pytest.raises(KeyboardInterrupt):
        index.add(broken())
    (tmp_path / "i" / "part-00001.parquet").write_text("half a part, without its record")
    embedder.n_texts = 0
    assert CorpusIndex(tmp_path / "i").add(texts) == 150
    assert embedder.n_texts == 150
    assert CorpusIndex(tmp_path / "i").texts() == texts


def test_exact_search_over_parts_equals_one_product(tmp_path, embedder):
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    assert index.nearest(["nurse"], 3) == []
    texts, queries = corpus(250), corpus(5, seed=9)
    index.add(texts)
    scores = embedder(texts) @ embedder(queries).mean(0)
    found = index.nearest(queries, 7)
    np.testing.assert_allclose([score for _, score in found], -np.sort(-scores)[:7], atol=1e-5)
    np.testing.assert_allclose(
        [scores[texts.index(text)] for text, _ in found], -np.sort(-scores)[:7], atol=1e-5
    )
    assert len(index.nearest(queries, 255)) == 250


@pytest.mark.parametrize("method", ["dense", "hybrid"])
def test_an_index_is_selected_from_as_a_list_would_be(tmp_path, embedder, monkeypatch, method):
    monkeypatch.setattr("debias_ssae.retrieval.select.embed_texts", embedder)
    texts, seeds = corpus(350), corpus(3, seed=9)
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    index.add(texts)

    options = {"n_texts": 40, "method": method, "near_duplicate": 1.0, "held_out": texts[:5]}
    whole, read = (retrieve(seeds, corpus, **options) for corpus in (texts, index))
    assert read.texts == whole.texts
    assert (read.corpus_ids == whole.corpus_ids).all()
    assert read.report["n_exact_duplicates"] == whole.report["n_exact_duplicates"] == 5


def test_an_index_holds_its_texts_in_their_order(tmp_path, embedder):
    texts = corpus(250)
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    assert (index.texts(), len(index)) == ([], 0)
    index.add(texts)
    assert (index.texts(), len(index)) == (texts, 250)


def test_bad_indices_are_named(tmp_path, embedder):
    with pytest.raises(InputError, match="holds no index"):
        CorpusIndex(tmp_path / "none")
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    assert index.add(["a nurse"]) == 1
    with pytest.raises(InputError, match="made with embedder='minilm', not 'other'"):
        CorpusIndex(tmp_path / "i", embedder="other")
    with pytest.raises(InputError, match="made with max_length=128, not 64"):
        CorpusIndex(tmp_path / "i", max_length=64)


TEXTS = [
    "The nurse treats a patient.",
    "A surgeon operates.",
    "The team won the cup.",
    "It rained on the match.",
]


def test_command_line(tmp_path):
    def run(*arguments):
        done = CliRunner().invoke(main, ["retrieve", *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.output

    (tmp_path / "c.txt").write_text("\n".join(TEXTS))
    (tmp_path / "seeds.txt").write_text("Doctors and nurses care for the sick.\n")
    (tmp_path / "held.txt").write_text(TEXTS[1])
    pd.DataFrame({"text": TEXTS, "origin": ["m", "m", "s", "s"]}).to_parquet(tmp_path / "c.parquet")

    assert "4 texts added, 4 in all" in run("index", "--corpus", tmp_path / "c.txt", "--out", tmp_path / "i")
    assert "0 texts added, 4 in all" in run(
        "index", "--corpus", tmp_path / "c.parquet", "--out", tmp_path / "i"
    )
    assert "nurse" in run("query", tmp_path / "i", "--query", "hospital care", "--n", 2).splitlines()[0]

    seeds = ["--seed-texts", tmp_path / "seeds.txt", "--n", 2]
    out = tmp_path / "s.parquet"
    run("select", "--corpus", tmp_path / "c.parquet", *seeds, "--out", out)
    table = pd.read_parquet(out)
    assert table.text.tolist() == TEXTS[:2]
    assert json.loads(out.with_suffix(".json").read_text())["n_retrieved"] == 2

    run("select", "--index", tmp_path / "i", *seeds, "--held-out", tmp_path / "held.txt", "--out", out)
    table = pd.read_parquet(out)
    assert TEXTS[0] in table.text.tolist()
    assert TEXTS[1] not in table.text.tolist()


def test_command_line_errors(tmp_path):
    (tmp_path / "c.txt").write_text("\n".join(TEXTS))
    base = ["retrieve", "select", "--corpus", str(tmp_path / "c.txt"), "--out", str(tmp_path / "s.parquet")]
    query = ["--query", "nurse"]
    done = CliRunner().invoke(main, [*base, *query, "--method", "hybrid", "--n", "2"])
    assert done.exit_code == 0, done.output
    assert len(pd.read_parquet(tmp_path / "s.parquet")) == 2
    for arguments, message in [
        ([*base, *query, "--index", str(tmp_path)], "either --corpus or --index"),
        (base, "either --query or --seed-texts"),
        (
            [*base[:-1], str(tmp_path / "o.parquet"), "--seed-texts", base[-1], "--text", "bio"],
            "no column 'bio'; it has text, score",
        ),
        ([*base[:-1], str(tmp_path / "no" / "s.parquet"), *query], "there is no directory"),
        ([*base, "--seed-texts", base[-1]], "which would be lost"),
        (["retrieve", "query", str(tmp_path), "--query", "x"], "holds no index"),
    ]:
        failed = CliRunner().invoke(main, arguments)
        assert failed.exit_code == 2
        assert message in failed.output.strip().splitlines()[-1]


def damages(data: bytes, rng: np.random.Generator, other: bytes) -> list[bytes]:
    """Flipped bits, a cut end, an added end, a hole, and another file in its place."""
    flipped = []
    for _ in range(6):
        some = bytearray(data)
        some[rng.integers(len(some))] ^= 1 << rng.integers(8)
        flipped.append(bytes(some))
    at = int(rng.integers(len(data)))
    return [*flipped, data[:at], data + b"x", b"", data[:at] + bytes(len(data) - at), other]


def test_no_damage_gives_a_wrong_answer(tmp_path, embedder):
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    index.add(corpus(300))
    queries, rng = corpus(3, seed=5), np.random.default_rng(0)

    def answers():
        opened = CorpusIndex(tmp_path / "i")
        return opened.nearest(queries, 4), opened.texts(), opened.add(corpus(300)), len(opened)

    right, refused = answers(), 0
    files = sorted(path for path in (tmp_path / "i").iterdir() if not path.name.startswith("."))
    for i, path in enumerate(files):
        whole = path.read_bytes()
        for damaged in damages(whole, rng, files[i - 1].read_bytes()):
            path.write_bytes(damaged)
            try:
                assert answers() == right
            except InputError:
                refused += 1
        path.unlink()
        with pytest.raises(InputError):
            answers()
        path.write_bytes(whole)
    assert refused > 10 * len(files)
    assert answers() == right


@pytest.mark.parametrize(
    "changes",
    [
        {"n_texts": -1},
        {"n_texts": "many"},
        {"embedder": 3},
        {"max_length": "long"},
        {"probe": None},
    ],
)
def test_numbers_of_a_manifest_are_checked_before_use(tmp_path, embedder, changes):
    index = CorpusIndex(tmp_path / "i", embedder="minilm")
    index.add(corpus(100))
    manifest = read_manifest(tmp_path / "i", KIND)
    write_manifest(tmp_path / "i", KIND, manifest.about | changes, manifest.files)
    with pytest.raises(InputError, match="does not describe an index"):
        CorpusIndex(tmp_path / "i")


def test_one_process_adds_at_a_time_and_none_is_lost(tmp_path, embedder):
    first, second = (CorpusIndex(tmp_path / "i", embedder="minilm") for _ in range(2))
    assert len(second) == 0
    texts = corpus(30)

    def meanwhile():
        with pytest.raises(InputError, match="Another process is writing"):
            second.add(["late"])
        yield from texts

    assert first.add(meanwhile()) == 30
    assert second.add(["late"]) == 1
    assert len(CorpusIndex(tmp_path / "i")) == 31


def test_vectors_are_made_again_where_they_are_lost_or_of_another_model(tmp_path, minilm, monkeypatch):
    def answer():
        return CorpusIndex(tmp_path / "i").nearest(["hospital care"], 4)

    CorpusIndex(tmp_path / "i", embedder="minilm").add(TEXTS)
    right = answer()
    (part,) = (tmp_path / "i" / "embeddings").glob("*/part-*")
    part.write_bytes(part.read_bytes()[:-4])
    assert answer() == right
    other = minilm.copied()
    with torch.no_grad():
        other.module.get_input_embeddings().weight.neg_()
    monkeypatch.setattr("debias_ssae.retrieval.embedders.load_embedder", lambda *_: other)
    assert answer() != right
    assert len(list((tmp_path / "i" / "embeddings").iterdir())) == 2
