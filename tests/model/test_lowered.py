"""The fast bfloat16 pass gives what torch's own gives, up to rounding, and keeps out of what it cannot do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import Parameter
from torch.nn.functional import linear, scaled_dot_product_attention

from debias_ssae.model import lowered as room
from debias_ssae.model.lowered import LoweredPass, lowered

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    torch.bfloat16 not in room._packable_dtypes(), reason="this processor has no bfloat16 products"
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@torch.no_grad()
def test_linear_layers_equal_torch(monkeypatch):
    x, weight, bias = random(3, 5, 24), Parameter(random(40, 24, seed=1)), random(40, seed=2)
    packings = []
    monkeypatch.setattr(room, "_packed", room.WeakTensorKeyDictionary())
    pack = torch.ops.mkldnn._reorder_linear_weight
    monkeypatch.setattr(
        torch.ops.mkldnn, "_reorder_linear_weight", lambda *a: packings.append(1) or pack(*a), raising=False
    )
    for some_bias in (bias, None):
        with lowered(CPU, torch.bfloat16):
            from_float, from_half = linear(x.float(), weight, some_bias), linear(x, weight, some_bias)
        torch.testing.assert_close(from_half, linear(x, weight, some_bias), rtol=1e-2, atol=1e-2)
        assert torch.equal(from_float, from_half)
    assert len(packings) == 1
    weight.mul_(2)
    with lowered(CPU, torch.bfloat16):
        torch.testing.assert_close(linear(x, weight), from_half * 2, rtol=1e-2, atol=1e-2)
    assert len(packings) == 2
    weight.data = random(40, 24, seed=3)
    with lowered(CPU, torch.bfloat16):
        torch.testing.assert_close(linear(x, weight), linear(x.clone(), weight.clone()), rtol=1e-2, atol=1e-2)
    assert len(packings) == 3
    layer = nn.Linear(24, 40, bias=False, dtype=torch.bfloat16)
    layer.weight = weight
    weight.data.mul_(2)  # nothing tells of this
    room.forget(layer)
    with lowered(CPU, torch.bfloat16):
        torch.testing.assert_close(layer(x), linear(x, weight.clone()), rtol=1e-2, atol=1e-2)
    assert len(packings) == 4


def test_inference_mode_gives_the_same():
    x, weight = random(3, 5, 24), Parameter(random(40, 24, seed=1))
    with torch.no_grad(), lowered(CPU, torch.bfloat16):
        expected = linear(x.float(), weight)
    with torch.inference_mode(), lowered(CPU, torch.bfloat16):
        same = x.float()
        assert torch.equal(linear(same, weight), expected)
        same.mul_(2)
        torch.testing.assert_close(linear(same, weight), expected * 2, rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_an_input_that_was_changed_is_cast_again():
    x, weight = random(4, 8).float(), Parameter(torch.eye(8).bfloat16())
    with lowered(CPU, torch.bfloat16):
        first = linear(x, weight)
        x.add_(1)
        second = linear(x, weight)
    assert ((second - first) > 0.9).all()


@given(n=st.integers(1, 40), heads=st.integers(1, 3), kind=st.sampled_from(["none", "keys", "causal", "any"]))
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_attention_equals_torch(n, heads, kind):
    q, k, v = (random(2, heads, n, 16, seed=i) for i in range(3))
    mask = None
    if kind == "keys":
        mask = (torch.arange(n) < torch.tensor([[n], [max(1, n - 3)]]))[:, None, None, :]
    elif kind == "any":
        mask = (torch.rand(2, 1, n, n, generator=torch.Generator().manual_seed(n)) > 0.5) | torch.eye(
            n
        ).bool()
    options = {"attn_mask": mask, "is_causal": kind == "causal"}
    exact = scaled_dot_product_attention(q.float(), k.float(), v.float(), **options)
    calls = []
    with LoweredPass() as active:
        inner = active._attend
        active._attend = lambda *a, **o: calls.append(1) or inner(*a, **o)
        for _ in range(2):  # the mask's penalty is kept between layers
            found = scaled_dot_product_attention(q, k, v, **options)
    assert len(calls) == 2
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)
    scaled = scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=0.1, **options)
    with LoweredPass():
        found = scaled_dot_product_attention(q, k, v, scale=0.1, **options)
    torch.testing.assert_close(found.float(), scaled, rtol=0.05, atol=0.05)


@torch.no_grad()
def test_attention_casts_what_autocast_would():
    q, k, v = (random(1, 2, 9, 8, seed=i).float() for i in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        exact = scaled_dot_product_attention(q, k, v)
        with LoweredPass():
            found = scaled_dot_product_attention(q, k.bfloat16(), v)
    assert found.dtype == exact.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)


def test_what_it_leaves_to_torch(monkeypatch):
    monkeypatch.setattr(LoweredPass, "_attend", lambda *_, **__: pytest.fail("not of the plain kind"))
    monkeypatch.setattr(LoweredPass, "_linear", lambda *_, **__: pytest.fail("not of the plain kind"))
    q = random(1, 2, 6, 8)
    long = random(1, 1, room.LONGEST + 1, 8)
    weight = Parameter(random(8, 8))
    with LoweredPass():
        linear(q, weight).float().sum().backward()
        scaled_dot_product_attention(q, q, q)  # gradients may be wanted
        with torch.no_grad():
            scaled_dot_product_attention(q.float(), q.float(), q.float())
            scaled_dot_product_attention(long, long, long)
            scaled_dot_product_attention(q, q, q, attn_mask=torch.zeros(1, 1, 6, 6).bfloat16())
            scaled_dot_product_attention(q, q[:, :1], q[:, :1], enable_gqa=True)
            linear(q.float(), weight.float())
            linear(q, random(8, 8))  # no layer's weights
            linear(q[:0], weight)
            linear(input=q, weight=weight)
    assert weight.grad is not None


@torch.no_grad()
def test_float32_layers_equal_torch(monkeypatch):
    calls = []
    inner = LoweredPass._linear
    monkeypatch.setattr(LoweredPass, "_linear", lambda *a: calls.append(1) or inner(*a))
    monkeypatch.setattr(room, "_packable_dtypes", lambda: {torch.float32})
    x, weight, bias = torch.randn(3, 5, 24), Parameter(torch.randn(40, 24)), torch.randn(40)
    with lowered(CPU, torch.float32):
        found = linear(x, weight, bias)
    torch.testing.assert_close(found, linear(x, weight, bias), rtol=1e-5, atol=1e-5)
    assert calls == [1]
    with lowered(CPU, torch.bfloat16):  # not fast here, and no float32 layer is left out of autocast
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16), LoweredPass():
        assert linear(x, weight).dtype == torch.bfloat16
    assert calls == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_torch_without_packing_runs_as_it_does(monkeypatch, dtype):
    monkeypatch.setattr(room, "_packable_dtypes", frozenset)
    monkeypatch.setattr(LoweredPass, "_linear", lambda *_, **__: pytest.fail("cannot pack"))
    with torch.no_grad(), lowered(CPU, dtype):
        assert linear(torch.ones(2, 4), Parameter(torch.ones(3, 4))).dtype == dtype


def test_packing_is_found_out(monkeypatch):
    inner = room._packable_dtypes.__wrapped__
    for intel in (True, False):
        monkeypatch.setattr(room, "suits_mkl", lambda intel=intel: intel)
        assert (torch.float32 in inner()) != intel
        assert torch.bfloat16 in inner()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert inner() == {torch.float32}

    def gone():
        raise AttributeError

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", gone, raising=False)
    assert inner() == frozenset()
