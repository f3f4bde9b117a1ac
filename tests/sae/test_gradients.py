"""The hand-written gradient against autograd, in float64."""

import pytest
import torch
from planted_sae import ARCHITECTURES, planted_rows, random_sae
from reference_loss import reference_loss

from debias_ssae.core.config import SAEConfig
from debias_ssae.sae import fast
from debias_ssae.sae.fast import Knobs, Weights, compute_step
from debias_ssae.sae.model import nested_widths

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def spread(step, d_sae):
    """The gradient with a row a latent."""
    if step.rows is None:
        return step.gradient
    full = {}
    for name in NAMES:
        part = getattr(step.gradient, name)
        full[name] = (
            part if name == "b_dec" else part.new_zeros(d_sae, *part.shape[1:]).index_copy(0, step.rows, part)
        )
    return Weights(**full)


def weights_of(sae, log_threshold=None):
    return Weights(*(getattr(sae, name).detach().clone() for name in NAMES), log_threshold=log_threshold)


@pytest.mark.parametrize("dense_share", [0.0, 1.1], ids=["dense", "sparse"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_equals_autograd(architecture, dense_share, monkeypatch):
    monkeypatch.setattr(fast, "DENSE_SHARE", dense_share)
    sae = random_sae(architecture, dtype="float64")
    x = planted_rows(40).double() - 5
    generator = torch.Generator().manual_seed(1)
    row_weights = torch.rand(40, generator=generator, dtype=torch.float64)
    log_threshold = sae.threshold.log().requires_grad_() if architecture == "jumprelu" else None
    knobs = Knobs(sae.cfg, sparsity=0.7, bandwidth=0.4)
    step = compute_step(
        weights_of(sae, None if log_threshold is None else log_threshold.detach().clone()),
        x,
        knobs,
        lambda losses: row_weights,
    )
    loss = reference_loss(
        sae,
        x,
        row_weights,
        sparsity=0.7,
        bandwidth=0.4,
        log_threshold=log_threshold,
    )
    loss.backward()
    for name in NAMES:
        assert torch.allclose(getattr(spread(step, 48), name), getattr(sae, name).grad, atol=1e-12), name
        assert getattr(sae, name).grad.abs().max() > 1e-3
    if log_threshold is not None:
        assert torch.allclose(step.gradient.log_threshold, log_threshold.grad, atol=1e-12)
        assert log_threshold.grad.abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_aux_gradient_equals_autograd(architecture):
    sae = random_sae(architecture, dtype="float64")
    x = planted_rows(40).double() - 5
    dead = torch.zeros(48, dtype=torch.bool)
    dead[[3, 4, 10, 30, 31]] = True
    log_threshold = sae.threshold.log() if architecture == "jumprelu" else None
    weights = weights_of(sae, log_threshold)
    uniform = torch.full((40,), 1 / 40, dtype=torch.float64)
    plain = compute_step(weights, x, Knobs(sae.cfg), lambda losses: uniform)
    knobs = Knobs(sae.cfg, aux_coefficient=0.5, k_aux=2)
    with_aux = compute_step(weights, x, knobs, lambda losses: uniform, dead=dead)

    if architecture in ("batchtopk", "matryoshka"):
        bound = sae.pre_acts(x).detach().flatten().topk(40 * sae.cfg.k).values.min()
        pre = sae.pre_acts(x).detach()
        error = x - sae.decode(torch.where(pre >= bound, pre, 0.0).relu()).detach()
    else:
        error = (x - sae(x).x_hat).detach()
    error = error[::2]
    centred = (x - sae.b_dec.detach())[::2]
    pre = centred @ sae.W_enc[dead].T + sae.b_enc[dead]
    top, where = pre.topk(2)
    latents = torch.zeros_like(pre).scatter(1, where, top.relu())
    loss = 0.5 * (latents @ sae.W_dec[dead] - error).square().sum() / error.square().sum()
    loss.backward()
    assert with_aux.aux_loss == pytest.approx(loss.item())
    for name in ("W_enc", "b_enc", "W_dec"):
        difference = getattr(spread(with_aux, 48), name) - getattr(spread(plain, 48), name)
        assert torch.allclose(difference, getattr(sae, name).grad, atol=1e-12), name
        assert difference[dead].abs().max() > 0
    assert torch.equal(with_aux.gradient.b_dec, plain.gradient.b_dec)


def test_aux_without_dead_latents_changes_nothing():
    sae, x = random_sae("topk"), planted_rows(10) - 5
    knobs = Knobs(sae.cfg, aux_coefficient=1.0)
    step = compute_step(
        weights_of(sae), x, knobs, lambda losses: losses, dead=torch.zeros(48, dtype=torch.bool)
    )
    assert step.aux_loss == 0.0


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_bfloat16_gives_nearly_the_same_gradient(architecture):
    sae, x = random_sae(architecture, d_sae=400, k=8), planted_rows(300) - 5
    weigh = lambda losses: torch.full_like(losses, 1 / len(losses))  # noqa: E731
    exact = compute_step(weights_of(sae), x, Knobs(sae.cfg), weigh)
    rough = compute_step(weights_of(sae), x, Knobs(sae.cfg, bfloat16=True), weigh)
    assert float(rough.errors.mean()) == pytest.approx(float(exact.errors.mean()), rel=2e-3)
    for name in NAMES:
        left, right = getattr(spread(rough, 400), name), getattr(spread(exact, 400), name)
        assert (left - right).norm() < 0.05 * right.norm(), name


@pytest.mark.parametrize("dense_share", [0.0, 1.1], ids=["dense", "sparse"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_fire_on_rows_of_no_weight_too(architecture, dense_share, monkeypatch):
    monkeypatch.setattr(fast, "DENSE_SHARE", dense_share)
    sae, x = random_sae(architecture), planted_rows(40) - 5
    log_threshold = sae.threshold.log() if architecture == "jumprelu" else None
    for light in (0.0, 1e-38):
        rows = torch.full((40,), light)
        rows[:2] = 0.5
        some, every = (
            compute_step(weights_of(sae, log_threshold), x, Knobs(sae.cfg), lambda losses, w=w: w).fired > 0
            for w in (rows, torch.full((40,), 1 / 40))
        )
        assert torch.equal(some, every)
        assert every.sum() > 10


def test_default_matryoshka_widths_halve():
    assert nested_widths(SAEConfig(d_in=2, d_sae=64, k=2, architecture="matryoshka")) == [8, 16, 32, 64]
    assert nested_widths(SAEConfig(d_in=2, d_sae=3, k=2, architecture="matryoshka")) == [1, 3]
    assert nested_widths(SAEConfig(d_in=2, d_sae=9, k=2, architecture="matryoshka", widths=(2, 9))) == [2, 9]


def test_nothing_active_gives_no_gradient_to_the_latents():
    sae = random_sae("relu")
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    x = planted_rows(10) - 5
    step = compute_step(weights_of(sae), x, Knobs(sae.cfg), lambda losses: losses * 0 + 0.1)
    assert step.gradient.W_enc.abs().max() == 0
    assert step.gradient.W_dec.abs().max() == 0
    assert step.gradient.b_dec.abs().max() > 0
    assert step.fired.sum() == 0
