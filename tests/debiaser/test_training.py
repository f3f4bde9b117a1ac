"""What the SAEs of a debiaser are trained on."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_debiaser import CONFIG, make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.core.cache import entries
from debias_ssae.core.config import SAEConfig
from debias_ssae.debiaser import training
from debias_ssae.debiaser.training import LearnedSAE, learn_ssae
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.retrieval import retrieve
from debias_ssae.retrieval.duplicates import fold
from debias_ssae.sae.model import SparseAutoencoder


class StopError(Exception):
    """Everything wanted has been seen."""


def test_no_wording_of_a_held_out_text_is_in_the_general_saes_pool(
    small_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ActivationEncoder(str(small_encoder), dtype="float32").language_model
    texts, corpus = make_texts(5), make_texts(60)[5:]
    held_out = [text.upper() + "!" for text in corpus[::7]]
    pools = []

    def train_general_sae(model: object, pool: list[str], *_: object, **__: object) -> None:
        pools.append(pool)
        raise StopError

    monkeypatch.setattr(training, "train_general_sae", train_general_sae)
    with pytest.raises(StopError):
        learn_ssae(model, texts, "embeddings", CONFIG, corpus=corpus, held_out=held_out)
    folded = {fold(text) for text in held_out}
    assert pools[0] == [text for text in corpus if fold(text) not in folded]
    assert 0 < len(np.unique(pools[0])) < len(np.unique(corpus))


@pytest.mark.parametrize(
    ("special_rows", "steps", "rows"), [(10**6, 10**4, None), (200, 10**4, 200), (10**6, 3, 3 * 64)]
)
def test_no_more_rows_are_held_than_asked_or_read(
    special_rows: int, steps: int, rows: int | None, small_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ActivationEncoder(str(small_encoder), dtype="float32").language_model
    texts, seen = make_texts(60), []

    def harvest(model: object, texts: list[str], *_: object, **__: object) -> None:
        seen.append(texts)
        raise StopError

    monkeypatch.setattr(training, "harvest", harvest)
    general = SparseAutoencoder(SAEConfig(d_in=model.d_model, d_sae=32, k=4))
    special = CONFIG.special.updated(n_steps=steps, batch_size=64)
    config = CONFIG.updated(special_rows=special_rows, special=special.model_dump())
    for _ in range(2):
        with pytest.raises(StopError):
            learn_ssae(model, texts, "embeddings", config, general=general, random_state=0)
    assert seen[0] == seen[1]
    assert set(seen[0]) <= set(texts)
    if rows is None:
        assert seen[0] == texts
    else:
        # the text that crosses the bound is whole
        held = [len(text) / 4 for text in seen[0]]
        assert sum(held) - max(held) <= rows <= sum(held)


def test_of_a_long_text_what_the_model_reads_counts() -> None:
    texts = ["word " * 10_000, "語" * 10_000, "short text"] * 40
    drawn = training._draw(texts, 5_000, 256, 0)
    assert sum(min(len(t.encode()) / 4, 256) for t in drawn) >= 5_000
    assert len(drawn) >= 5_000 / 256
    assert training._at_most(texts, 120 * 256, 256, 0) == texts


def test_of_two_that_want_an_sae_one_trains_it(tmp_path: Path) -> None:
    trained = []

    def train() -> LearnedSAE:
        trained.append(1)
        time.sleep(0.2)
        return LearnedSAE(SparseAutoencoder(SAEConfig(d_in=4, d_sae=8, k=2), random_state=0), {"loss": 1.0})

    def cached(_: int) -> LearnedSAE:
        return training._cached(tmp_path, "general", ["key"], train)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(cached, range(4)))
    assert len(trained) == 1
    assert {one.sae.fingerprint() for one in found} == {found[0].sae.fingerprint()}
    assert [one.record for one in found] == [{"loss": 1.0}] * 4


def test_what_was_retrieved_is_kept(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ActivationEncoder(str(small_encoder), dtype="float32").language_model
    texts, corpus, asked = make_texts(10), make_texts(60)[10:], []
    general = SparseAutoencoder(SAEConfig(d_in=model.d_model, d_sae=32, k=4), random_state=0)
    monkeypatch.setattr(training, "retrieve", lambda *a, **k: asked.append(1) or retrieve(*a, **k))

    def learn(
        texts: list[str] = texts, held_out: tuple[str, ...] = (), n_texts: int = 5
    ) -> dict[str, object]:
        config = CONFIG.updated(retrieval=CONFIG.retrieval.updated(n_texts=n_texts))
        options = {"general": general, "random_state": 0, "cache_dir": tmp_path}
        learned = learn_ssae(model, texts, "embeddings", config, corpus=corpus, held_out=held_out, **options)
        return learned.record["retrieval"]

    first = learn()
    assert learn() == first
    assert asked == [1]
    (file,) = (tmp_path / "retrieved").glob("*.safetensors")
    file.write_text("{", encoding="utf-8")
    assert learn() == first
    assert asked == [1, 1], "a damaged file is made again"
    learn(held_out=(corpus[0],))
    learn(n_texts=4)
    learn(texts=texts[:9])
    assert len(asked) == 5


def test_a_second_fit_finds_the_corpus_in_the_users_cache(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", str(tmp_path))
    trained: list[int] = []
    train_sae = training.train_sae
    monkeypatch.setattr(training, "train_sae", lambda *a, **k: trained.append(1) or train_sae(*a, **k))
    monkeypatch.setattr(training, "retrieve", lambda *a, **k: trained.append(2) or retrieve(*a, **k))
    texts, corpus = make_texts(40), make_texts(100)[40:]
    y, z = np.arange(40) % 2, np.arange(40) // 2 % 2

    def fit(texts: list[str]) -> SSAEDebiaser:
        config = CONFIG.updated(selection=CONFIG.selection.updated(min_cell=5))
        debiaser = SSAEDebiaser(small_encoder, corpus=corpus, config=config, random_state=0)
        return debiaser.fit(texts, y, sensitive_features=z)

    first = fit(texts)
    assert trained == [2, 1, 1]
    again = fit(texts)
    assert trained == [2, 1, 1]
    assert again.intervention_.sae.fingerprint() == first.intervention_.sae.fingerprint()
    fit(texts[::-1])
    assert trained == [2, 1, 1, 2, 1], "of other texts the general SAE is the same"
    kinds = {one.path.parent.name for one in entries(tmp_path)}
    assert {"saes", "retrieved"} <= kinds
