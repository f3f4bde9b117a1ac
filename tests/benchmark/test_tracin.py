"""Influence equals what automatic differentiation gives."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae.model import SparseAutoencoder

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from tracin import row_influence, seed_gradient


def small_sae(architecture, d_in=6, d_sae=10, seed=0):
    sae = SparseAutoencoder(
        SAEConfig(d_in=d_in, d_sae=d_sae, k=3, architecture=architecture), random_state=seed
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if architecture != "relu" and architecture != "topk":
            sae.threshold.fill_(0.1)
    return sae


def unit_gradient(sae, row):
    """Gradient of one row's squared error by autograd, flattened and scaled to unit length."""
    names = ("W_dec", "W_enc", "b_enc", "b_dec")
    sae.zero_grad()
    x_hat = sae(row[None]).x_hat
    (x_hat - row).square().sum().backward()
    flat = torch.cat([getattr(sae, n).grad.flatten() for n in names])
    return flat / flat.norm()


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk"])
@given(st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_equals_autograd(architecture, seed):
    sae = small_sae(architecture, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    seeds, rows = torch.randn(5, 6, generator=generator), torch.randn(7, 6, generator=generator)
    mean = torch.stack([unit_gradient(sae, r) for r in seeds]).mean(0)
    expected = torch.stack([unit_gradient(sae, r) @ mean for r in rows])
    found = row_influence(sae, seed_gradient(sae, seeds), rows)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_single_seed_influences_itself_most():
    sae = small_sae("relu")
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    found = row_influence(sae, seed_gradient(sae, rows[4:5]), rows)
    assert found.argmax() == 4
    assert found[4] == pytest.approx(1.0, abs=1e-5)
    assert found.min() >= -1.0001
    assert row_influence(sae, seed_gradient(sae, rows), rows[:0]).shape == (0,)


def test_seeds_without_rows_are_named():
    with pytest.raises(InputError, match="no rows"):
        seed_gradient(small_sae("relu"), torch.zeros(0, 6))


def test_a_row_without_error_has_no_influence():
    sae = small_sae("relu")
    found = row_influence(sae, seed_gradient(sae, torch.ones(1, 6)), sae.decode(torch.zeros(1, 10)).detach())
    assert found.isfinite().all()
