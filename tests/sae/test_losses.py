"""Laws of the tilted loss."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_ssae.core.errors import InputError
from debias_ssae.sae.losses import effective_sample_size, tilt_for_ess, tilt_weights, tilted

losses_lists = st.lists(st.floats(0.0, 100.0, width=32), min_size=1, max_size=40)
tilts = st.floats(-20.0, 20.0)


@given(losses_lists)
def test_without_tilt_it_is_the_mean(values):
    losses = torch.tensor(values)
    assert tilted(losses, 0.0).item() == pytest.approx(losses.double().mean().item(), rel=1e-5, abs=1e-7)
    near = tilted(losses.double(), 2e-6).item()
    assert near == pytest.approx(losses.double().mean().item(), rel=1e-3, abs=1e-6)


@given(losses_lists)
def test_a_huge_tilt_is_the_maximum_and_its_negative_the_minimum(values):
    losses = torch.tensor(values)
    for t, limit in (
        (1e9, losses.max()),
        (math.inf, losses.max()),
        (-1e9, losses.min()),
        (-math.inf, losses.min()),
    ):
        assert tilted(losses, t).item() == pytest.approx(limit.item(), rel=1e-6, abs=1e-6)


@given(losses_lists, tilts)
def test_between_minimum_and_maximum_and_growing_in_t(values, t):
    losses = torch.tensor(values, dtype=torch.float64)
    value = tilted(losses, t).item()
    assert losses.min().item() - 1e-9 <= value <= losses.max().item() + 1e-9
    assert value <= tilted(losses, t + 1.0).item() + 1e-9


@given(losses_lists, tilts)
def test_gradient_is_the_tilt_weights(values, t):
    losses = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    tilted(losses, t).backward()
    assert torch.allclose(losses.grad, tilt_weights(losses, t), atol=1e-9)


def test_gradient_reaches_parameters_as_the_weighted_sum_of_the_rows_gradients():
    torch.manual_seed(0)
    x, w = torch.randn(20, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64, requires_grad=True)
    losses = (x @ w).square()
    (gradient,) = torch.autograd.grad(tilted(losses, 3.0), w)
    rows = 2 * (x @ w).detach().unsqueeze(1) * x
    weights = torch.softmax(3.0 * losses.detach(), 0)
    assert torch.allclose(gradient, (weights.unsqueeze(1) * rows).sum(0), rtol=1e-10)


@given(losses_lists, st.floats(0.01, 5.0), st.floats(0.1, 50.0))
def test_dividing_by_the_mean_makes_the_tilt_free_of_the_losses_scale(values, t, scale):
    losses = torch.tensor(values, dtype=torch.float64) + 0.1
    relative, scaled = losses / losses.mean(), (scale * losses) / (scale * losses).mean()
    assert torch.allclose(tilt_weights(relative, t), tilt_weights(scaled, t), rtol=1e-6)
    assert torch.allclose(tilted(losses, t) * scale, tilted(losses * scale, t / scale), rtol=1e-6)


@pytest.mark.parametrize("t", [0.0, 1e-3, 1.0, 500.0, 1e9, math.inf, -1e9])
def test_bfloat16_losses_give_no_nan(t):
    losses = torch.tensor([0.0, 1e-3, 3.0, 2e4, 3e38], dtype=torch.bfloat16, requires_grad=True)
    value = tilted(losses, t)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(losses.grad).all()
    assert tilt_weights(losses, t).sum().item() == pytest.approx(1.0)


def test_effective_sample_size_runs_from_one_to_n():
    assert effective_sample_size(torch.full((10,), 0.1)) == pytest.approx(10)
    assert effective_sample_size(torch.tensor([0.0, 0.0, 5.0])) == pytest.approx(1)


def test_weights_of_equal_maxima_share():
    assert tilt_weights(torch.tensor([1.0, 2.0, 2.0]), math.inf).tolist() == [0.0, 0.5, 0.5]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 300), st.floats(0.1, 1.0))
def test_tilt_for_ess_hits_its_target(n, share):
    losses = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + 0.1
    t = tilt_for_ess(losses, share)
    reached = effective_sample_size(tilt_weights(losses, t))
    assert reached == pytest.approx(max(share * n, 1.0), rel=0.02)


def test_tilt_for_ess_of_equal_losses_stops_at_its_limit():
    assert tilt_for_ess(torch.ones(10), 0.5, t_max=64.0) == 64.0


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_bad_shares(share):
    with pytest.raises(InputError, match="share"):
        tilt_for_ess(torch.rand(4), share)


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.zeros(2, 2), torch.tensor(1.0)])
def test_losses_must_be_a_vector(bad):
    with pytest.raises(InputError, match="vector"):
        tilted(bad, 1.0)
