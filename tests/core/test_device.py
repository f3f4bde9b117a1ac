"""Names, devices and precisions."""

import pytest
import torch
from torch import nn

from debias_ssae.core import device as models
from debias_ssae.core.errors import InputError
from debias_ssae.model.batching import token_batches


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
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable GPU"):
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
