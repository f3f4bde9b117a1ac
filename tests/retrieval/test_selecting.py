"""Retrieval finds the subdomain, drops what is not new and says what it did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from debias_ssae import model as models
from debias_ssae.core.errors import InputError
from debias_ssae.retrieval import embed_texts, embedders, retrieve
from debias_ssae.retrieval.duplicates import drop_near, fold, new_texts, without
from debias_ssae.retrieval.select import bm25_scores, fuse_ranks

MEDICAL = [
    f"The {who} {does} patients at the {place}."
    for who in ("nurse", "surgeon", "doctor", "midwife")
    for does in ("treats", "visits", "examines")
    for place in ("hospital", "clinic", "emergency ward")
]
OTHER = [
    f"The {team} {did} the {game} on {day}."
    for team in ("striker", "goalkeeper", "coach", "captain")
    for did in ("won", "lost", "watched")
    for game in ("football match", "cup final", "league game")
    for day in ("Monday", "Sunday")
]
SEEDS = ["The surgeon operates on a patient in the hospital.", "Nurses care for patients at the clinic."]
CORPUS = [text for pair in zip(OTHER[:36], MEDICAL, strict=True) for text in pair] + OTHER[36:]
IS_MEDICAL = np.isin(CORPUS, MEDICAL)


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_each_method_finds_the_subdomain(method):
    found = retrieve(SEEDS, CORPUS, n_texts=20, method=method, near_duplicate=1.0)
    assert IS_MEDICAL[found.corpus_ids].mean() >= 0.95
    assert found.texts == [CORPUS[i] for i in found.corpus_ids]
    assert (np.diff(found.scores) <= 0).all()
    assert found.report["method"] == method
    assert found.report["n_retrieved"] == 20


def test_dense_score_is_the_mean_cosine_with_the_seeds():
    found = retrieve(SEEDS, CORPUS, n_texts=5, near_duplicate=1.0)
    cosines = embed_texts(found.texts) @ embed_texts(SEEDS).T
    np.testing.assert_allclose(found.scores, cosines.mean(1), atol=5e-3)  # bfloat16 in other batches


def test_only_what_bm25_finds_likely_is_embedded(monkeypatch):
    embedded, inner = [], embed_texts
    monkeypatch.setattr(
        "debias_ssae.retrieval.select.embed_texts",
        lambda texts, *a, **k: embedded.extend(texts) or inner(texts, *a, **k),
    )
    found = retrieve(SEEDS, CORPUS, n_texts=9, likely=2, near_duplicate=1.0)
    assert len(embedded) == len(SEEDS) + 18
    assert set(found.texts) <= set(MEDICAL) & set(embedded)
    # words that the corpus does not hold rule out nothing
    embedded.clear()
    strange = retrieve(["Krankenschwester"], CORPUS, n_texts=9, likely=2, near_duplicate=1.0)
    assert len(embedded) == 1 + len(CORPUS)
    assert len(strange.texts) == 9


def test_seeds_held_out_texts_and_repeats_are_never_retrieved():
    held_out = [MEDICAL[3], MEDICAL[4].upper()]
    corpus = ["  ", *CORPUS, SEEDS[0].replace(" ", "  "), MEDICAL[0].lower() + "!!", ""]
    found = retrieve(SEEDS, corpus, n_texts=1000, held_out=held_out, near_duplicate=1.0)
    folded = [fold(text) for text in found.texts]
    assert len(set(folded)) == len(folded) == len(CORPUS) - 2
    assert not {fold(text) for text in [*SEEDS, *held_out]} & set(folded)
    assert found.report["n_exact_duplicates"] == 6
    close = retrieve(SEEDS, corpus, n_texts=1000, near_duplicate=0.9)
    vectors = embed_texts([*close.texts, *SEEDS])
    cosines = vectors @ vectors.T - np.eye(len(vectors))
    assert cosines[: len(close.texts)].max() < 0.92
    assert close.report["n_near_duplicates"] > 0
    guarded = retrieve(SEEDS, CORPUS, n_texts=1000, held_out=[MEDICAL[3] + " Indeed."], near_duplicate=0.9)
    assert MEDICAL[3] not in guarded.texts


def test_report_tells_histogram_and_samples():
    report = retrieve(SEEDS, CORPUS, n_texts=25, near_duplicate=1.0).report
    assert sum(report["score_histogram"]["counts"]) == 25
    assert [s["rank"] for s in report["samples"]][::9] == [0, 24]
    assert len(report["samples"]) == 10
    nothing = retrieve(SEEDS, SEEDS, n_texts=5).report
    assert (nothing["n_retrieved"], nothing["samples"]) == (0, [])


def test_many_seeds_are_subsampled_by_the_seed():
    options = {"n_texts": 5, "max_seeds": 3}
    first, again = (retrieve(MEDICAL[:20], CORPUS, random_state=4, **options) for _ in range(2))
    assert (first.scores == again.scores).all()
    assert first.report["n_seeds_used"] == 3
    other = retrieve(MEDICAL[:20], CORPUS, random_state=5, **options)
    assert not np.array_equal(first.scores, other.scores)


def test_vectors_are_kept_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(embedders, "CHUNK_TEXTS", 16)
    first = embed_texts(CORPUS, cache_dir=tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == -(-len(CORPUS) // 16)
    victim = sorted(tmp_path.rglob("*.safetensors"))[0]
    victim.write_bytes(victim.read_bytes()[:50])
    ran = []
    inner = models.embed
    monkeypatch.setattr(models, "embed", lambda m, texts, **o: ran.append(len(texts)) or inner(m, texts, **o))
    again = embed_texts(CORPUS, cache_dir=tmp_path)
    assert len(ran) == 1, "only the texts of the damaged part"
    assert 0 < ran[0] <= 16
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    ran.clear()
    embed_texts(CORPUS, cache_dir=tmp_path, max_length=8)
    assert sum(ran) == len(set(CORPUS))


def test_vectors_equal_those_of_sentence_transformers():
    path = embedders.load_embedder("minilm", "cpu", "float32").module.config.name_or_path
    model = SentenceTransformer(path, device="cpu")
    odd = [*MEDICAL[:5], "", "\ud800 naïve 🙂", "word " * 3000]
    ours = embed_texts(odd, device="cpu", dtype="float32", max_length=64)
    model.max_seq_length = 64
    theirs = model.encode([t.replace("\ud800", "?") for t in odd], normalize_embeddings=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_bad_input_is_named():
    cases = [
        (lambda: retrieve([" "], CORPUS), "No seed texts"),
        (lambda: retrieve("seed", CORPUS), "single string where seeds"),
        (lambda: retrieve(SEEDS, ["a", None]), "row 1 of texts of the corpus holds None"),
        (
            lambda: retrieve(SEEDS, CORPUS, method="best"),
            "method: .*'dense', 'bm25' or 'hybrid'",
        ),
        (lambda: retrieve(SEEDS, {"d": "a text"}), "mapping"),
        (lambda: retrieve(SEEDS, set(CORPUS)), "no order"),
        (lambda: retrieve(SEEDS, CORPUS, n_texts=0), "n_texts: .*1"),
        (lambda: retrieve(SEEDS, CORPUS, near_duplicate=0), "near_duplicate: .*0"),
        (lambda: embed_texts(["a"], "nobody/nothing"), "Cannot load the embedder 'nobody/nothing'"),
        (lambda: bm25_scores(["!", "?"], SEEDS), "no words"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()


def test_bm25_mean_over_seeds_is_the_mean_of_single_scores():
    both = bm25_scores(CORPUS, SEEDS)
    single = [bm25_scores(CORPUS, [seed]) for seed in SEEDS]
    np.testing.assert_allclose(both, np.mean(single, 0), rtol=1e-4, atol=1e-5)
    assert (bm25_scores(CORPUS, ["zzz"]) == 0).all()
    assert bm25_scores(CORPUS, ["midwife"]).argmax() in np.flatnonzero(["midwife" in t for t in CORPUS])


def test_fused_ranks():
    a, b = np.asarray([3.0, 2.0, 1.0], np.float32), np.asarray([1.0, 3.0, 2.0], np.float32)
    fused = fuse_ranks(a, b)
    np.testing.assert_allclose(fused, [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62], rtol=1e-6)


@given(
    st.lists(st.text(alphabet="aB !é", max_size=6), max_size=30), st.lists(st.text(alphabet="ab", max_size=3))
)
@settings(max_examples=60, deadline=None)
def test_new_texts_have_each_wording_once(corpus, known):
    kept = new_texts(corpus, known)
    folded = [fold(corpus[i]) for i in kept]
    assert len(set(folded)) == len(folded)
    assert {fold(t) for t in corpus} - {fold(t) for t in known} - {""} == set(folded)
    assert list(kept) == sorted(kept)


@given(
    st.lists(st.text(alphabet="aB !é", max_size=6), max_size=30), st.lists(st.text(alphabet="ab", max_size=3))
)
@settings(max_examples=60, deadline=None)
def test_without_leaves_out_every_wording_of_a_held_out_text(corpus, held_out):
    kept = without(corpus, held_out)
    assert not {fold(t) for t in kept} & {fold(t) for t in held_out}
    assert sorted(kept) == sorted(t for t in corpus if fold(t) not in {fold(h) for h in held_out})


@given(st.integers(0, 2000), st.integers(1, 40), st.floats(0.3, 0.99))
@settings(max_examples=30, deadline=None)
def test_drop_near_equals_the_plain_walk(seed, n_texts, threshold):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    ranked = rng.permutation(60)[:50]
    known = x[:2]
    kept, expected = [], []
    for row in ranked:
        others = np.concatenate([known, x[expected]])
        if (others @ x[row] <= threshold).all() and len(expected) < n_texts:
            expected.append(int(row))
    kept, dropped = drop_near(ranked, lambda rows: x[rows], known, n_texts, threshold)
    assert kept.tolist() == expected
    if len(expected) < n_texts:
        assert dropped == 50 - len(expected)


@pytest.mark.realdata
def test_biographies_are_found_in_a_general_corpus(data_dir):
    import pandas as pd

    general = pd.read_parquet(data_dir / "general_corpus" / "data.parquet").text.tolist()[::100]
    bios = pd.read_parquet(data_dir / "bias_in_bios_surgeon_nurse" / "data.parquet").iloc[::30, 0].tolist()
    found = retrieve(bios[:50], [*general, *bios[50:]], n_texts=100, max_length=64)
    assert (found.corpus_ids >= len(general)).mean() >= 0.95
