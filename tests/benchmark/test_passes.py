"""A pass runs once, and what comes back later is what came the first time."""

from pathlib import Path

import numpy as np
import pytest
from tiny_benchmark import tiny_table

from debias_ssae.benchmark.passes import Encoding, Passes


class Counted:
    """Draws new vectors at each call, so that a second call shows."""

    def __init__(self) -> None:
        self.calls, self.rng = 0, np.random.default_rng(0)

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls += 1
        return self.rng.normal(size=(len(texts), 3)).astype(np.float32)


@pytest.fixture
def encoder(make_seed):  # type: ignore[no-untyped-def]
    return make_seed(tiny_table()).corpus.encoder


def test_a_pass_is_kept_on_disk_whole_and_under_its_own_name(encoder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    draw = Counted()
    first, seconds = Passes(encoder, tmp_path).run(Encoding("a", draw), ["x", "y"])
    again, same = Passes(encoder, tmp_path).run(Encoding("a", draw), ["x", "y"])
    assert draw.calls == 1
    assert np.array_equal(first, again)
    assert seconds == same > 0
    for other in (("b", ["x", "y"]), ("a", ["y", "x"]), ("a", ["x"])):
        Passes(encoder, tmp_path).run(Encoding(other[0], draw), other[1])
    assert draw.calls == 4
    file = next((tmp_path / "passes").iterdir())
    assert not list((tmp_path / "passes").glob("*.tmp"))
    for damaged in (tmp_path / "passes").iterdir():
        damaged.write_bytes(file.read_bytes()[:20])
    Passes(encoder, tmp_path).run(Encoding("a", draw), ["x", "y"])
    assert draw.calls == 5, "a damaged file is made again"


def test_without_a_directory_shared_passes_are_remembered(encoder) -> None:  # type: ignore[no-untyped-def]
    draw, passes = Counted(), Passes(encoder)
    for key, shared, calls in (("a", True, 1), ("b", False, 3)):
        for _ in range(2):
            assert passes.run(Encoding(key, draw, shared), ["x"])[0].shape == (1, 3)
        assert draw.calls == calls


def test_another_model_or_pooling_is_another_pass(encoder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    draw = Counted()
    for pooling in ("mean", "max"):
        encoder.pooling = pooling
        Passes(encoder, tmp_path).run(Encoding("a", draw), ["x"])
    assert draw.calls == 2


def test_plain_and_edited_run_the_model(encoder) -> None:  # type: ignore[no-untyped-def]
    class Zero:
        fingerprint = "zero"

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return 0 * x

    passes, texts = Passes(encoder), ["the nurse", "a surgeon works"]
    plain = passes.run(passes.plain(), texts)[0]
    assert np.array_equal(plain, encoder.encode(texts))
    edited = passes.run(passes.edited({"final": Zero()}), texts)[0]
    assert np.abs(plain).max() > 0 == np.abs(edited).max()
