import pytest
import torch
from planted_sae import ARCHITECTURES, planted_rows, random_sae

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae import SparseAutoencoder
from debias_ssae.sae.model import fvu

ELEMENTWISE = tuple(name for name in ARCHITECTURES if name != "topk")


@pytest.fixture
def x():
    return planted_rows(60) - 5


def naive_latents(sae, x):
    """The formula, one number after another."""
    rows = []
    for row in x.tolist():
        centred = [a - b for a, b in zip(row, sae.b_dec.tolist(), strict=True)]
        pre = [
            sum(a * b for a, b in zip(centred, w, strict=True)) + bias
            for w, bias in zip(sae.W_enc.tolist(), sae.b_enc.tolist(), strict=True)
        ]
        if sae.cfg.architecture == "topk":
            bound = sorted(pre)[-sae.cfg.k]
            rows.append([max(p, 0.0) if p >= bound else 0.0 for p in pre])
        else:
            thresholds = sae.threshold.expand(sae.cfg.d_sae).tolist()
            if sae.cfg.architecture == "relu":
                thresholds = [0.0] * sae.cfg.d_sae
            rows.append([p if p > max(t, 0.0) else 0.0 for p, t in zip(pre, thresholds, strict=True)])
    return torch.tensor(rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_is_the_formula(architecture, x):
    sae = random_sae(architecture)
    latents = sae.encode(x)
    assert torch.allclose(latents, naive_latents(sae, x), atol=1e-4)
    assert 0 < (latents > 0).float().mean() < 1
    assert torch.allclose(sae(x).x_hat, latents @ sae.W_dec + sae.b_dec, atol=1e-5)
    assert torch.equal(sae(x).latents, latents)


@pytest.mark.parametrize("architecture", ELEMENTWISE)
def test_a_slice_keeps_the_chosen_latents(architecture, x):
    sae = random_sae(architecture)
    chosen = [7, 0, 31]
    assert sae.is_elementwise
    small = sae.slice(torch.tensor(chosen))
    assert small.cfg.d_sae == 3
    assert torch.allclose(small.encode(x), sae.encode(x)[:, chosen], atol=1e-5)
    with torch.no_grad():
        sae.W_enc.zero_()
    assert small.W_enc.abs().sum() > 0


def test_a_sliced_topk_competes_among_the_chosen(x):
    sae = random_sae("topk", k=4)
    assert not sae.is_elementwise
    small = sae.slice(torch.tensor([1, 2]))
    assert small.cfg.k == 2
    assert torch.allclose(small.encode(x), small.pre_acts(x).relu(), atol=1e-6)


def test_wrong_width_and_wrong_latents(x):
    sae = random_sae("relu")
    for bad in (x[:, :5], x[0]):
        with pytest.raises(InputError, match="width 16"):
            sae.encode(bad)
    for latents in (torch.tensor([48]), torch.tensor([-1]), torch.tensor([[1]])):
        with pytest.raises(InputError, match="0 to 47"):
            sae.slice(latents)
    with pytest.raises(InputError, match="at least one"):
        sae.slice(torch.tensor([], dtype=torch.long))


def test_fingerprint_changes_with_any_weight_and_the_configuration():
    sae = random_sae("batchtopk")
    seen = {sae.fingerprint()}
    assert random_sae("batchtopk").fingerprint() in seen
    for tensor in sae.state_dict().values():
        with torch.no_grad():
            tensor.view(-1)[0] += 1
        seen.add(sae.fingerprint())
    seen.add(random_sae("batchtopk", k=5).fingerprint())
    assert len(seen) == 7


def test_the_seed_decides_the_weights():
    cfg = SAEConfig(d_in=4, d_sae=8, k=2)
    same = [SparseAutoencoder(cfg, random_state=1).W_enc for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], SparseAutoencoder(cfg).W_enc)
    assert torch.allclose(same[0].norm(dim=1), torch.ones(8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 9},
        {"architecture": "matryoshka", "k": 2, "widths": (4, 2, 8)},
        {"architecture": "matryoshka", "k": 2, "widths": (2, 4)},
    ],
)
def test_configurations_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=r"k=|widths="):
        SAEConfig(d_in=4, d_sae=8, **wrong)


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
