"""What the processor can do is read from the system's description of it."""

import pytest

from debias_ssae.core import device as models
from debias_ssae.core import processor
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.sae import starts


@pytest.fixture
def described(monkeypatch):
    """Let the system describe another processor."""
    known = processor.suits_mkl, processor.multiplies_bfloat16

    def describe(text: str | None) -> None:
        def read_text(self, encoding):
            if text is None:
                raise OSError
            return text

        monkeypatch.setattr(processor.Path, "read_text", read_text)
        for one in known:
            one.cache_clear()

    yield describe
    monkeypatch.undo()
    for one in known:
        one.cache_clear()


@pytest.mark.parametrize(
    ("text", "mkl", "bfloat16"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512_bf16", False, True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False, False),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16", True, True),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 avx512_fp16", True, False),
        ("Features : fp asimd bf16 i8mm", False, True),
        ("Features : fp asimd", False, False),
        (None, True, False),
    ],
)
def test_each_kind(described, text, mkl, bfloat16):
    described(text)
    assert processor.suits_mkl() is mkl
    assert processor.multiplies_bfloat16() is bfloat16
    # embedding and training go by the same answer
    cpu = models.pick_device("cpu")
    assert models.has_fast_bf16("cpu") is bfloat16
    assert starts.multiplies_bfloat16(SAEConfig(d_in=8), TrainConfig(), cpu) is bfloat16
