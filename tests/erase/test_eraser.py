"""Laws of the latent eraser."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.erase import LatentEraser
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder

D, M, N = 8, 24, 40


def sae_of(architecture: str = "relu", seed: int = 0) -> SparseAutoencoder:
    return SparseAutoencoder(SAEConfig(d_in=D, d_sae=M, k=4, architecture=architecture), random_state=seed)


def rows(seed: int = 0) -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu", "matryoshka"])
def test_subtracts_what_the_latents_write(architecture: str) -> None:
    sae, x, chosen = sae_of(architecture), rows(), [3, 17, 5]
    with torch.no_grad():
        f = sae.encode(x)
        expected = x - f[:, chosen] @ sae.W_dec[chosen]
    assert torch.allclose(LatentEraser.from_sae(sae, chosen)(x), expected, atol=1e-5)


@given(st.lists(st.integers(0, M - 1), unique=True), st.floats(0, 2), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_pooling_identity(latents: list[int], alpha: float, seed: int) -> None:
    """pool(edit(x)) == pool(x) - alpha * pool(f)[:, S] @ W_dec[S] (DESIGN 3.1)."""
    sae, x = sae_of(seed=seed), rows(seed)
    ids = torch.sort(torch.randint(0, 6, (N,), generator=torch.Generator().manual_seed(seed))).values

    def pool(values: torch.Tensor) -> torch.Tensor:
        blank = torch.zeros(N, 2, dtype=torch.long)
        return Activations(values, ids, torch.zeros(N, dtype=torch.long), blank, 6).pool()

    with torch.no_grad():
        f = sae.encode(x)
        expected = pool(x) - alpha * pool(f)[:, latents] @ sae.W_dec[latents]
    assert torch.allclose(pool(LatentEraser.from_sae(sae, latents, alpha=alpha)(x)), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu"])
def test_in_double_precision_rows_do_not_depend_on_those_beside_them(architecture: str) -> None:
    eraser = LatentEraser.from_sae(sae_of(architecture), [3, 17])
    x, double = rows().double(), eraser.double()
    one_by_one = torch.cat([double(row[None]) for row in x])
    torch.testing.assert_close(double(x), one_by_one, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(double(x).float(), eraser(x.float()), rtol=1e-4, atol=1e-4)
    assert eraser.sae.W_enc.dtype == torch.float32


@pytest.mark.parametrize(("latents", "alpha"), [([], 1.0), ([1, 2], 0.0)])
def test_nothing_removed_means_the_same_bits(latents: list[int], alpha: float) -> None:
    x = rows()
    assert LatentEraser.from_sae(sae_of(), latents, alpha=alpha)(x) is x


@pytest.mark.parametrize("architecture", ["relu", "topk"])
def test_columns_that_the_sae_leaves_alone_stay_the_same_bits(architecture: str) -> None:
    sae, x = sae_of(architecture), rows()
    with torch.no_grad():
        sae.W_enc[:, 2] = sae.W_dec[:, 2] = 0.0
        sae.b_dec[2] = 1e-9
    x[:, 2] = 1e-20 + 1e-30 * x[:, 2]
    edited = LatentEraser.from_sae(sae, [3, 17, 5])(x)
    assert torch.equal(edited[:, 2], x[:, 2])
    assert not torch.isclose(edited[:, 3], x[:, 3]).all()


def test_row_order_does_not_matter() -> None:
    x, order = rows(), torch.randperm(N, generator=torch.Generator().manual_seed(1))
    eraser = LatentEraser.from_sae(sae_of(), [1, 2, 3])
    assert torch.allclose(eraser(x)[order], eraser(x[order]), atol=1e-6)


def test_eraser_keeps_only_its_rows_where_it_can() -> None:
    assert LatentEraser.from_sae(sae_of("batchtopk"), [1, 2]).sae.cfg.d_sae == 2
    assert LatentEraser.from_sae(sae_of("topk"), [1, 2]).sae.cfg.d_sae == M


@pytest.mark.parametrize("architecture", ["topk", "relu"])
def test_the_callers_sae_stays_where_it_is(architecture: str) -> None:
    sae = sae_of(architecture)
    eraser = LatentEraser.from_sae(sae, [1, 2])
    eraser.sae.double()
    assert sae.W_enc.dtype == torch.float32


def test_fingerprint_names_the_edit() -> None:
    sae = sae_of()
    same = LatentEraser.from_sae(sae, [1, 2]).fingerprint
    assert same == LatentEraser.from_sae(sae_of(), [1, 2]).fingerprint
    others = [
        LatentEraser.from_sae(sae, [1, 3]),
        LatentEraser.from_sae(sae, [1, 2], alpha=0.5),
        LatentEraser.from_sae(sae_of(seed=1), [1, 2]),
    ]
    assert same not in {other.fingerprint for other in others}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latents": [M]}, "but the SAE has"),
        ({"latents": [-1]}, "but the SAE has"),
        ({"latents": [1, 1]}, "twice"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LatentEraser.from_sae(sae_of(), **arguments)


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu", "matryoshka"])
def test_thresholds_are_kept(architecture: str) -> None:
    """Latents below the threshold write nothing, so they take nothing away."""
    sae, x = sae_of(architecture), rows()
    with torch.no_grad():
        sae.b_dec.normal_(generator=torch.Generator().manual_seed(2))
        sae.threshold += 0.7
        expected = x - sae.encode(x)[:, [3, 17, 5]] @ sae.W_dec[[3, 17, 5]]
    assert torch.allclose(LatentEraser.from_sae(sae, [3, 17, 5])(x), expected, atol=1e-5)


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="width 8"):
        LatentEraser.from_sae(sae_of(), [1])(torch.zeros(3, D + 1))
