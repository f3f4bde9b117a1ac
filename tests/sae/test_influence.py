"""Influence equals what automatic differentiation gives, and finds texts like the seeds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import harvest, load_model
from debias_ssae.sae.influence import row_influence, seed_gradient, tracin_scorer
from debias_ssae.sae.model import SparseAutoencoder


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


def test_scorer_means_rows_of_a_text_and_ranks_like_texts_first():
    model = load_model("minilm", device="cpu", dtype="float32")
    texts = [
        "The nurse treats patients.",
        "",
        "A surgeon operates at the clinic.",
        "Goalkeepers won the league cup.",
    ]
    sae = SparseAutoencoder(SAEConfig(d_in=384, d_sae=64, architecture="topk", k=8), random_state=0)
    seeds = ["The nurse works at the clinic.", "The surgeon treats patients."]
    scores = tracin_scorer(model, sae, seeds)(texts)
    gradient = seed_gradient(sae, harvest(model, seeds).x)
    alone = row_influence(sae, gradient, harvest(model, texts[:1]).x).mean()
    assert scores[0] == pytest.approx(float(alone), abs=1e-5)
    assert scores[1] == -1
    assert min(scores[0], scores[2]) > scores[3]


def test_bad_input_is_named():
    model = load_model("minilm", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="rows of width 6, minilm gives 384"):
        tracin_scorer(model, small_sae("relu"), ["a"])
    with pytest.raises(InputError, match="no rows"):
        seed_gradient(small_sae("relu"), torch.zeros(0, 6))


def test_a_row_without_error_has_no_influence():
    sae = small_sae("relu")
    found = row_influence(sae, seed_gradient(sae, torch.ones(1, 6)), sae.decode(torch.zeros(1, 10)).detach())
    assert found.isfinite().all()
