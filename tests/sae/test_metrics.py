import pytest
import torch
from planted_sae import planted_rows, random_sae

from debias_ssae.core.errors import InputError
from debias_ssae.sae.metrics import dead_fraction, evaluate, fvu, l0


def test_fvu_of_perfect_mean_and_worse():
    x = torch.randn(50, 4) + 10
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand(50, 4)) == pytest.approx(1.0)
    assert fvu(x, torch.zeros(50, 4)) > 10


def test_fvu_needs_equal_shapes_and_rows_that_vary():
    with pytest.raises(InputError, match="one shape"):
        fvu(torch.zeros(3, 2), torch.zeros(3, 3))
    with pytest.raises(InputError, match="do not vary"):
        fvu(torch.ones(3, 2), torch.zeros(3, 2))


def test_l0_and_dead_fraction_count():
    latents = torch.tensor([[0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    assert l0(latents) == 1.5
    assert dead_fraction(latents) == 0.5


def test_evaluate_in_parts_equals_at_once():
    x, sae = planted_rows(200), random_sae("jumprelu")
    latents = sae.encode(x)
    expected = {"fvu": fvu(x, sae(x).x_hat), "l0": l0(latents), "dead_fraction": dead_fraction(latents)}
    assert evaluate(sae, x, batch_size=37) == pytest.approx(expected, rel=1e-5)
    assert evaluate(sae, x.split(50)) == pytest.approx(expected, rel=1e-5)


def test_evaluate_without_rows():
    with pytest.raises(InputError, match="no rows"):
        evaluate(random_sae("relu"), [])
