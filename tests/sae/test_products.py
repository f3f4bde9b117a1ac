import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from debias_ssae.sae import products
from debias_ssae.sae.products import product


@given(
    n=st.integers(0, 40),
    k=st.integers(1, 40),
    m=st.integers(1, 40),
    turned=st.booleans(),
    biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_products_equal_torch(n, k, m, turned, biased, dtype):
    generator = torch.Generator().manual_seed(n + 50 * k)
    x = torch.randn(n + 2, k, generator=generator).to(dtype)[1 : n + 1]
    W = (torch.randn(k, m, generator=generator).T if turned else torch.randn(m, k, generator=generator)).to(
        dtype
    )
    b = torch.randn(m, generator=generator).to(dtype) if biased else None
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(product(x, W, b), linear(x, W, b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("intel", [False, True])
def test_onednn_is_taken_where_mkl_is_not_at_home(monkeypatch, intel):
    monkeypatch.setattr(products, "suits_mkl", lambda: intel)
    assert products._prefers_onednn.__wrapped__() == (not intel and torch.backends.mkldnn.is_available())


def test_a_torch_without_the_operator_uses_its_own(monkeypatch):
    def gone(*_):
        raise RuntimeError

    monkeypatch.setattr(products, "suits_mkl", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", gone, raising=False)
    assert not products._prefers_onednn.__wrapped__()
