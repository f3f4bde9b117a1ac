"""The store is whole or says what is not, and shuffles every row once with bounded memory."""

import errno
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_file

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_json, read_or_make, write_bytes, write_json, write_manifest
from debias_ssae.model.store import ActivationStore, EmbeddingCache, StoreWriter
from debias_ssae.model.store.activations import FORMAT, shard_path
from debias_ssae.text.checks import texts_sha256

SETTINGS = {"hookpoints": ["embeddings", "blocks.0"], "d_model": 4, "dtype": "float32"}


def fill(directory, sizes=(10, 0, 25), **changes):
    writer = StoreWriter(directory, {**SETTINGS, **changes})
    first = 0
    for number, n in enumerate(sizes):
        x = (torch.arange(first, first + n)[:, None] + torch.tensor([0.0, 0.25, 0.5, 0.75])).reshape(n, 4)
        ids = torch.arange(n)
        tensors = {"x/embeddings": x, "x/blocks.0": -x, "text_ids": ids, "token_ids": ids.clone()}
        tensors["offsets"] = torch.zeros(n, 2, dtype=torch.int64)
        writer.write_rows(number, tensors, {"texts_sha256": str(number), "n_texts": n, "n_rows": n})
        first += n
    writer.finish(len(sizes))
    return ActivationStore(directory)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_round_trip(tmp_path, dtype):
    store = fill(tmp_path / "s", dtype=dtype)
    assert (store.n_rows, store.n_texts, store.d_model) == (35, 35, 4)
    rows = torch.cat(list(store.rows()))
    assert rows.dtype == torch.float32
    expected = torch.arange(35)[:, None] + torch.tensor([0.0, 0.25, 0.5, 0.75])
    torch.testing.assert_close(rows, expected.to(getattr(torch, dtype)).float(), rtol=0, atol=0)
    assert (torch.cat(list(store.rows("blocks.0"))) == -rows).all()
    shard = store.shard(2, "blocks.0")
    assert (shard["x"] == -rows[10:]).all()
    assert shard["token_ids"].tolist() == list(range(25))
    assert shard["offsets"].shape == (25, 2)
    with pytest.raises(InputError, match=r"no hookpoint 'final'.*embeddings, blocks.0"):
        store.shard(0, "final")


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda s: sum(s) > 4),
    batch=st.integers(1, 5),
    block=st.integers(1, 7),
    buffer=st.integers(7, 50),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_shuffled_epoch_holds_each_row_once(tmp_path_factory, sizes, batch, block, buffer, seed):
    store = fill(tmp_path_factory.mktemp("s") / "s", sizes)
    options = {"batch_size": batch, "block_rows": block, "buffer_rows": buffer, "random_state": seed}
    one = list(store.shuffled(n_epochs=1, **options))
    assert all(b.shape == (batch, 4) for b in one)
    seen = torch.cat(one)[:, 0].tolist()
    assert len(set(seen)) == len(seen) == sum(sizes) // batch * batch
    two = torch.cat(list(store.shuffled(n_epochs=2, **options)))[:, 0]
    assert len(two) == 2 * sum(sizes) // batch * batch
    assert (two[: len(seen)] == torch.tensor(seen)).all()
    assert torch.bincount(two.long()).max() <= 2


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda s: sum(s) > 4),
    batch=st.integers(1, 5),
    buffer=st.integers(7, 50),
    skipped=st.integers(0, 90),
)
@settings(max_examples=40, deadline=None)
def test_seek_goes_where_reading_would_have_gone(tmp_path_factory, sizes, batch, buffer, skipped):
    store = fill(tmp_path_factory.mktemp("s") / "s", sizes)
    options = {"batch_size": batch, "block_rows": 3, "buffer_rows": buffer, "random_state": 1}
    read, sought = store.shuffled(**options), store.shuffled(**options)
    for _ in range(skipped):
        next(read)
    sought.seek(skipped)
    for _ in range(12):
        assert (next(read) == next(sought)).all()


def test_seek_reads_no_more_than_the_buffers_it_hands_out(tmp_path, monkeypatch):
    store = fill(tmp_path / "s", (3000, 3000))
    read = []
    inner = ActivationStore._gather
    monkeypatch.setattr(
        ActivationStore,
        "_gather",
        lambda self, key, blocks, size: read.append(len(blocks)) or inner(self, key, blocks, size),
    )
    stream = store.shuffled(batch_size=100, buffer_rows=1000, block_rows=10, random_state=0)
    stream.seek(1234)
    next(stream)
    assert read == [100]
    stream.seek(1235)  # in the same buffer: nothing is read again
    next(stream)
    assert read == [100]
    over = store.shuffled(batch_size=100, n_epochs=1, random_state=0)
    over.seek(60)
    with pytest.raises(StopIteration):
        next(over)


def test_shuffle_mixes_and_follows_the_seed(tmp_path):
    store = fill(tmp_path / "s", (3000, 3000))
    draw = [next(store.shuffled(batch_size=500, block_rows=16, random_state=s))[:, 0] for s in (1, 1, 2)]
    assert (draw[0] == draw[1]).all()
    assert not (draw[0] == draw[2]).all()
    order = torch.cat(
        list(store.shuffled(batch_size=100, buffer_rows=1024, block_rows=16, n_epochs=1, random_state=0))
    )[:, 0]
    assert abs(np.corrcoef(order, np.arange(6000))[0, 1]) < 0.2
    assert (order.diff() == 1).float().mean() < 0.01
    endless = store.shuffled(batch_size=4000, random_state=0)
    assert sum(len(next(endless)) for _ in range(4)) == 16_000
    for wrong in ({"batch_size": 6001}, {"batch_size": 0}, {"buffer_rows": 4}, {"block_rows": 0}):
        with pytest.raises(InputError):
            next(store.shuffled(**wrong))


def test_damage_is_named_and_only_that_shard_is_not_done(tmp_path, caplog):
    fill(tmp_path / "s")
    writer = StoreWriter(tmp_path / "s", SETTINGS)
    victim = shard_path(tmp_path / "s", 2)
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"^[^;]*shard-00002\S* is damaged.*only these are redone"):
        ActivationStore(tmp_path / "s", verify=True)
    assert writer.is_done(0, "0")
    assert not writer.is_done(2, "2")
    assert "shard-00002" in caplog.text
    store = ActivationStore(tmp_path / "s")
    victim.write_bytes(bytes(data[:60]))
    with pytest.raises(InputError, match=r"shard-00002.*(is damaged|checksum differs)"):
        store.shard(2)
    with pytest.raises(InputError, match=r"shard-00002.*60 bytes"):
        ActivationStore(tmp_path / "s")
    victim.unlink()
    with pytest.raises(InputError, match=r"shard-00002.*is missing"):
        ActivationStore(tmp_path / "s")
    assert not writer.is_done(2, "2")
    victim.with_suffix(".json").write_text("{")
    assert not writer.is_done(2, "2")
    with pytest.raises(InputError, match="made from other texts"):
        writer.is_done(0, "else")
    victim.with_suffix(".json").unlink()
    assert not writer.is_done(2, "2")


def test_a_shard_that_shrinks_while_read_is_named(tmp_path):
    store = fill(tmp_path / "s", (200,))
    store.shard(0)
    path = shard_path(tmp_path / "s", 0)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match="checksum differs"):
        store.shard(0)
    with pytest.raises(InputError, match="checksum differs"):
        next(store.shuffled(batch_size=200))


def test_folders_that_hold_something_else(tmp_path):
    fill(tmp_path / "s")
    with pytest.raises(InputError, match=r"differs in dtype \(there 'float32', now 'float16'\)"):
        StoreWriter(tmp_path / "s", {**SETTINGS, "dtype": "float16"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds no store"):
        StoreWriter(tmp_path / "other", SETTINGS)
    with pytest.raises(InputError, match=r"no finished activation store$"):
        ActivationStore(tmp_path / "other")
    with pytest.raises(InputError, match="is not a folder"):
        StoreWriter(tmp_path / "other" / "thesis.tex" / "s", SETTINGS)
    with pytest.raises(InputError, match="Unknown store dtype 'int8'"):
        StoreWriter(tmp_path / "t", {**SETTINGS, "dtype": "int8"})
    StoreWriter(tmp_path / "u", SETTINGS)
    with pytest.raises(InputError, match="unfinished: run the same harvest again"):
        ActivationStore(tmp_path / "u")
    manifest = read_json(tmp_path / "s" / "manifest.json")
    for change in (
        {"settings": {}}, {"shards": [{}]}, {"shards": 3}, {"totals": {"n_rows": 10**15}},
        {"settings": manifest["about"]["settings"] | {"d_model": 2**60}},
    ):  # fmt: skip
        write_manifest(tmp_path / "s", FORMAT, manifest["about"] | change, manifest["files"])
        with pytest.raises(InputError):
            ActivationStore(tmp_path / "s").shard(0)
    manifest["about"]["settings"]["format"] = "other"
    write_json(tmp_path / "s" / "manifest.json", manifest)
    with pytest.raises(InputError, match="its checksum differs"):
        ActivationStore(tmp_path / "s")


def test_every_flipped_bit_of_a_shard_is_noticed(tmp_path):
    fill(tmp_path / "s", (40,))
    path, rng = shard_path(tmp_path / "s", 0), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="checksum differs"):
            ActivationStore(tmp_path / "s").shard(0)


def test_every_flipped_bit_of_the_embedding_cache_is_noticed(tmp_path):
    texts, rng = [f"text {i}" for i in range(20)], np.random.default_rng(0)

    def compute(some):
        return np.stack([np.full(4, float(text.split()[1]), np.float32) for text in some])

    right = EmbeddingCache(tmp_path, "k").fetch(texts, compute)
    for _ in range(50):
        (path,) = tmp_path.rglob("part-*.safetensors")
        damaged = bytearray(path.read_bytes())
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        np.testing.assert_array_equal(EmbeddingCache(tmp_path, "k").fetch(texts, compute), right)


def test_a_manifest_needs_every_shard_and_float16_its_range(tmp_path):
    writer = StoreWriter(tmp_path / "s", {**SETTINGS, "dtype": "float16"})
    with pytest.raises(InputError, match=r"shard-00000.json"):
        writer.finish(1)
    with pytest.raises(InputError, match="beyond float16"):
        writer.write_rows(0, {"x/embeddings": torch.full((1, 4), 1e6)}, {})


def test_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    write_bytes(tmp_path / "f", b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"disk is full.*run the same command again"):
        write_bytes(tmp_path / "f", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"
    with pytest.raises(InputError, match=r"Cannot write .*g"):
        write_bytes(tmp_path / "nowhere" / "g", b"")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_json(tmp_path / "list.json")


def test_a_file_size_limit_is_told_and_resumes(tmp_path):
    """A real refusal by the system, as on a full disk: the rows written before it stay."""
    import signal

    writer = StoreWriter(tmp_path / "s", SETTINGS)
    small = {"x/embeddings": torch.ones(4, 4)}
    writer.write_rows(0, small, {"texts_sha256": "a", "n_rows": 4, "n_texts": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(InputError, match="disk is full"):
            writer.write_rows(1, {"x/embeddings": torch.ones(10_000, 4)}, {"texts_sha256": "b"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(p.name for p in (tmp_path / "s").glob("s*")) == [
        "settings.json",
        "shard-00000.json",
        "shard-00000.safetensors",
    ]
    assert not list((tmp_path / "s").glob(".*.tmp"))
    assert writer.is_done(0, "a")
    assert not writer.is_done(1, "b")


def test_the_key_of_texts_tells_where_one_ends():
    assert texts_sha256(["ab", "c"]) != texts_sha256(["a", "bc"])
    assert texts_sha256(["\ud800", None]) != texts_sha256([None, None])


def test_embedding_cache_computes_each_text_once(tmp_path):
    calls = []

    def compute(texts):
        calls.append(list(texts))
        return np.asarray([[len(t), len(calls)] for t in texts], np.float32).reshape(-1, 2)

    cache = EmbeddingCache(tmp_path, "model|layer")
    first = cache.fetch(["a", "bb", "a"], compute)
    assert calls == [["a", "bb"]]
    assert first.tolist() == [[1, 1], [2, 1], [1, 1]]
    again = EmbeddingCache(tmp_path, "model|layer").fetch(["ccc", "bb", "\ud800"], compute)
    assert calls[1] == ["ccc", "\ud800"]
    assert again.tolist() == [[3, 2], [2, 1], [1, 2]]
    assert len(EmbeddingCache(tmp_path, "model|layer")) == 4
    EmbeddingCache(tmp_path, "other key").fetch(["a"], compute)
    assert calls[2] == ["a"]
    assert cache.fetch([], compute).shape == (0, 2)
    with pytest.raises(InputError, match="1 texts gave 2 vectors"):
        cache.fetch(["new"], lambda texts: np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="Cannot make the cache folder"):
        EmbeddingCache(next(tmp_path.rglob("*.safetensors")), "key")


def test_embedding_cache_keeps_vectors_on_disk(tmp_path):
    texts = [f"text {i}" for i in range(4000)]

    def compute(some):
        return np.repeat(np.asarray([[int(t.split()[1])] for t in some], np.float32), 256, axis=1)

    for start in range(0, 4000, 1000):
        EmbeddingCache(tmp_path, "key").fetch(texts[start : start + 1200], compute)
    tracemalloc.start()
    cache = EmbeddingCache(tmp_path, "key")
    found = cache.fetch(texts[::-1000], lambda _: pytest.fail("all are known"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[:, 7].tolist() == [3999, 2999, 1999, 999]
    assert len(cache) == 4000
    assert peak < 4000 * 256 * 4 / 4
    everything = cache.fetch(texts, lambda _: pytest.fail("all are known"))
    assert (everything[:, 0] == np.arange(4000)).all()


def test_embedding_cache_drops_a_damaged_part(tmp_path):
    cache = EmbeddingCache(tmp_path, "key")
    cache.fetch(["a"], lambda texts: np.ones((1, 3), np.float32))
    part = next(tmp_path.rglob("part-*.safetensors"))
    part.write_bytes(part.read_bytes()[:-3])
    fresh = EmbeddingCache(tmp_path, "key")
    assert fresh.fetch(["a"], lambda texts: np.full((1, 3), 2, np.float32)).tolist() == [[2, 2, 2]]
    assert len(EmbeddingCache(tmp_path, "key")) == 1
    next(tmp_path.rglob("part-*.safetensors")).write_bytes(save_file({"other": np.zeros(3, np.float32)}))
    assert len(EmbeddingCache(tmp_path, "key")) == 0


@pytest.mark.parametrize("look", ["exists", "iterdir"])
def test_two_processes_may_begin_one_store(tmp_path, monkeypatch, look):
    """Right after one process has looked at the empty folder, another begins and writes a shard."""
    inner, begun = getattr(Path, look), []

    def looked(path):
        found = inner(path)
        found = found if look == "exists" else list(found)
        if not begun and tmp_path in (path, path.parent):
            begun.append(True)
            fill(tmp_path)
        return found

    monkeypatch.setattr(Path, look, looked)
    writer = StoreWriter(tmp_path, SETTINGS)
    assert begun
    assert writer.is_done(0, "0")


def test_what_is_kept_is_not_made_again_and_what_is_being_made_is_waited_for(tmp_path):
    file, lock = tmp_path / "kept", tmp_path / "locks" / "kept"

    def read():
        return file.read_text() if file.exists() else None

    def make():
        with pytest.raises(Timeout):
            FileLock(lock, timeout=0).acquire()
        file.write_text("made")
        return "made"

    assert read_or_make(lock, read, make) == "made"
    file.write_text("read")
    assert read_or_make(lock, read, make) == "read"
