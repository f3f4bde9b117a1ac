"""Names, devices and precisions; what the processor can do is read from the system's description of it."""

import pytest
import torch
from torch import nn

from debias_ssae.core import device as models
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model.forward import token_batches
from debias_ssae.sae import training


def test_names(monkeypatch):
    assert models.resolve_model_name("org/model") == "org/model"
    assert models.resolve_model_name("minilm").endswith("model")
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    assert models.resolve_model_name("minilm") == models.MINILM_HUB_ID


def test_devices():
    assert models.pick_device("cpu").type == "cpu"
    assert models.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="Unknown device 'abacus'"):
        models.pick_device("abacus")
    assert models.pick_device(torch.device("cpu", 3)) == torch.device("cpu")
    for name in ("meta", "xla", "cuda:99"):
        with pytest.raises(InputError, match=r"use device='auto'|give auto"):
            models.pick_device(name)
    if not torch.backends.mps.is_available():
        with pytest.raises(InputError, match="device='mps' cannot be used here"):
            models.pick_device("mps")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device='cuda' cannot be used here"):
            models.pick_device("cuda")
        assert not models.has_fast_bf16("cuda")


def test_precision(monkeypatch):
    cpu = torch.device("cpu")
    assert models.pick_dtype("float32", cpu) == torch.float32
    assert models.pick_dtype("bfloat16", cpu) == torch.bfloat16
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(models, "has_fast_bf16", lambda kind, native=native: native)
        assert models.pick_dtype("auto", cpu) == expected
    with pytest.raises(InputError, match="Unknown dtype 'half'"):
        models.pick_dtype("half", cpu)


def test_lowered_weights_give_the_bits_of_autocast():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    x = torch.randn(5, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = module(x)
        models.lower_weights(module)
        lowered = module(x)
    assert (plain == lowered).all()
    assert module[1].weight.dtype == torch.float32


@pytest.mark.parametrize("budget", [1, 7, 20, 1000])
def test_batches_hold_each_sequence_once_within_the_budget(budget):
    lengths = [3, 0, 9, 9, 1, 14, 2]
    batches = list(token_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == [0, 2, 3, 4, 5, 6]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    widths = [max(lengths[i] for i in batch) for batch in batches]
    assert widths == sorted(widths, reverse=True)


@pytest.fixture
def described(monkeypatch):
    """Let the system describe another models."""

    def describe(text: str | None) -> None:
        def read_text(self, encoding):
            if text is None:
                raise OSError
            return text

        monkeypatch.setattr(models.Path, "read_text", read_text)
        models.multiplies_bfloat16.cache_clear()

    yield describe
    monkeypatch.undo()
    models.multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("text", "bfloat16"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512_bf16", True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16", True),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 avx512_fp16", False),
        ("Features : fp asimd bf16 i8mm", True),
        ("Features : fp asimd", False),
        (None, False),
    ],
)
def test_each_kind(described, text, bfloat16):
    described(text)
    assert models.multiplies_bfloat16() is bfloat16
    # embedding and training go by the same answer
    assert models.has_fast_bf16("cpu") is bfloat16
    assert training.Training(SAEConfig(d_in=8), TrainConfig(device="cpu")).knobs.bfloat16 is bfloat16


def test_a_hub_out_of_reach_is_seen_before_its_client_asks_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    from debias_ssae.model import load_model

    def refused(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.create_connection", refused)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    models.hub_in_reach.cache_clear()
    assert not models.hub_in_reach()
    with pytest.raises(
        InputError, match=r"'nobody/none'.*hub cannot be reached, and it is not in the local cache"
    ):
        load_model("nobody/none", device="cpu")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    models.hub_in_reach.cache_clear()
    assert models.hub_in_reach()
    models.hub_in_reach.cache_clear()


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    assert [str(models.pick_device(name)) for name in ("auto", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    for here, own in (("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda:0")):
        monkeypatch.setenv("LOCAL_RANK", here)
        assert [str(models.pick_device(name)) for name in ("auto", "cuda", "cuda:1")] == [own, own, "cuda:1"]
