"""SCR, TPP, sparse probing and absorption beside the package sae-bench, on the same SAE and activations.

sae-bench brings transformer-lens and sae-lens; install it into an environment of its own to run this. What is drawn
at random (negative examples, order of batches, initial weights) differs, and SAEBench takes the epoch of a probe that
is best on its test texts; everything that is not drawn must be equal.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from debias_ssae.core.config import SAEConfig
from debias_ssae.sae import SparseAutoencoder
from debias_ssae.sae.evaluation.absorption import projection_absorption
from debias_ssae.sae.evaluation.probing import latent_effects, scr, sparse_probing, top_latents, without

pytest.importorskip("sae_bench", reason="the package sae-bench is not installed here")
main = pytest.importorskip("sae_bench.evals.scr_and_tpp.main")
probe_training = pytest.importorskip("sae_bench.evals.sparse_probing.probe_training")
calculators = pytest.importorskip("sae_bench.evals.absorption.feature_absorption_calculator")

D, N_LATENTS, LENGTH = 16, 48, 6
Y, Z, BOTH = "professor / nurse", "male / female", "male_professor / female_nurse"


class Theirs:
    """Our SAE as sae-bench asks for one: any number of axes in front, and a device."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae, self.W_dec, self.device, self.dtype = sae, sae.W_dec.detach(), "cpu", torch.float32

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae.encode(x.reshape(-1, D)).reshape(*x.shape[:-1], -1)

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        return self.sae.decode(f.reshape(-1, N_LATENTS)).reshape(*f.shape[:-1], D)


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    sae = SparseAutoencoder(SAEConfig(d_in=D, d_sae=N_LATENTS, k=6, architecture="topk"), random_state=0)
    return sae.requires_grad_(False)


def drawn(n: int, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Token states [4n, LENGTH, D] of texts in four equal cells: the target on axis 0, the attribute, stronger, on
    axis 1."""
    generator = torch.Generator().manual_seed(seed)
    y, z = (np.repeat(values, n) for values in ([True, True, False, False], [True, False, True, False]))
    x = torch.randn(4 * n, LENGTH, D, generator=generator)
    x[:, :, 0] += torch.from_numpy(1.0 * (2 * y - 1))[:, None]
    x[:, :, 1] += torch.from_numpy(1.5 * (2 * z - 1))[:, None]
    return x, y, z


def keyed(x: torch.Tensor, y: np.ndarray, z: np.ndarray) -> dict[str, torch.Tensor]:
    """The same, as sae-bench keys it for SCR."""
    return {
        Y: x[torch.from_numpy(y)], "nurse_only": x[torch.from_numpy(~y)], Z: x[torch.from_numpy(z)],
        "female_only": x[torch.from_numpy(~z)], BOTH: x[torch.from_numpy(y & z)],
        "female_nurse_only": x[torch.from_numpy(~y & ~z)],
    }  # fmt: skip


def keys() -> dict[str, str]:
    from sae_bench.sae_bench_utils.dataset_info import PAIRED_CLASS_KEYS

    return dict(PAIRED_CLASS_KEYS)


def named(x: torch.Tensor, y: np.ndarray, z: np.ndarray) -> dict[str, torch.Tensor]:
    pairs = keys()
    found = keyed(x, y, z)
    return {
        **{name: found[name] for name in (Y, Z, BOTH)},
        pairs[Y]: found["nurse_only"], pairs[Z]: found["female_only"], pairs[BOTH]: found["female_nurse_only"],
    }  # fmt: skip


def pooled(sae: SparseAutoencoder, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(1).numpy(), Theirs(sae).encode(x).mean(1).numpy()


def weights_of(layer: torch.nn.Linear) -> tuple[np.ndarray, float]:
    return layer.weight.detach().numpy()[0], float(layer.bias.detach())


def test_effects_and_ablated_states_are_equal(sae: SparseAutoencoder) -> None:
    x, y, z = drawn(50, 0)
    X, latents = pooled(sae, x)
    probe = probe_training.Probe(D, torch.float32)
    theirs = main.get_effects_per_class_precomputed_acts(
        Theirs(sae), probe, Y, named(x, y, z), True, 32
    ).numpy()
    ours = np.abs(latent_effects(latents, y, probe.net.weight.detach().numpy()[0], sae.W_dec.numpy()))
    assert np.allclose(ours, theirs, atol=1e-5)
    mask = main.select_top_n_features(torch.from_numpy(theirs), 5, Y)
    assert set(top_latents(ours, 5)) == set(np.flatnonzero(mask.numpy()))
    edited = main.ablated_precomputed_activations(x, Theirs(sae), mask, 32).numpy()
    assert np.allclose(
        without(X, latents, sae.W_dec.numpy(), np.flatnonzero(mask.numpy())), edited, atol=1e-4
    )


def test_scr_is_theirs_with_the_same_probes(sae: SparseAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = drawn(250, 1), drawn(250, 2)
    torch.manual_seed(0)
    train_means = {name: part.mean(1) for name, part in named(*train).items()}
    test_means = {name: part.mean(1) for name, part in named(*test).items()}
    probes, clean = probe_training.train_probe_on_activations(
        {n: train_means[n] for n in train_means}, {n: test_means[n] for n in test_means},
        use_sklearn=False, batch_size=16, epochs=20, lr=1e-3,
        perform_scr=True, l1_penalty=1e-3, early_stopping_patience=20,
    )  # fmt: skip
    names = [Y, Z, BOTH]
    clean = main.get_probe_test_accuracy(probes, names, test_means, 250, True)
    effects = main.get_all_node_effects_for_one_sae(Theirs(sae), probes, names, True, named(*train), 250)
    ablated = main.perform_feature_ablations(
        probes, Theirs(sae), 250, named(*test), effects, [2, 10], names, 250, True
    )
    theirs = main.get_scr_plotting_dict(ablated, clean)
    x, y, z = (np.concatenate([a, b]) for a, b in zip(train, test, strict=True))
    X, latents = pooled(sae, torch.from_numpy(x))
    given = iter([probes[name].net for name in (Y, Z, BOTH)])  # the order in which ours are trained
    monkeypatch.setattr("debias_ssae.sae.evaluation.probing.linear_probe", lambda *_: weights_of(next(given)))
    found = scr(X, latents, sae.W_dec.numpy(), y, z, np.arange(len(X)) < len(train[1]), ns=(2, 10))
    for n in (2, 10):
        for direction in (1, 2):
            (ours,) = [
                r["value"]
                for r in found
                if r["measure"] == "scr" and r["n"] == n and r["direction"] == direction
            ]
            assert ours == pytest.approx(theirs[f"scr_dir{direction}_threshold_{n}"], abs=0.01)


def test_sparse_probes_are_theirs(sae: SparseAutoencoder) -> None:
    (x, y, _), (x_test, y_test, _) = drawn(100, 3), drawn(100, 4)
    f, f_test = pooled(sae, x)[1], pooled(sae, x_test)[1]
    train = np.arange(800) < 400
    found = sparse_probing(np.concatenate([f, f_test]), np.concatenate([y, y_test]), train, ks=(1, 2, 5))
    for k in (1, 2, 5):
        labels = torch.from_numpy(y.astype(np.int32))
        mask = probe_training.get_top_k_mean_diff_mask(torch.from_numpy(f), labels, k)
        parts = [
            probe_training.apply_topk_mask_reduce_dim(torch.from_numpy(part), mask) for part in (f, f_test)
        ]
        _, theirs = probe_training.train_sklearn_probe(
            parts[0], labels, parts[1], torch.from_numpy(y_test.astype(np.int32))
        )
        (ours,) = [r["value"] for r in found if r["measure"] == "sparse_probe_accuracy" and r["k"] == k]
        assert ours == pytest.approx(theirs, abs=0.01)


def test_projected_absorption_is_theirs_word_by_word(sae: SparseAutoencoder) -> None:
    generator = torch.Generator().manual_seed(5)
    probe = sae.W_dec[3] + 0.8 * sae.W_dec[7] + 0.3 * torch.randn(D, generator=generator)
    states = torch.randn(200, D, generator=generator) * 0.6 + probe
    words = [f"w{i}" for i in range(200)]
    place = {word: i for i, word in enumerate(words)}

    def run(prompts: list[str], names_filter: list[str]) -> tuple[None, dict[str, torch.Tensor]]:
        rows = [place[prompt.rsplit("\n", 1)[-1].split(":")[0].strip()] for prompt in prompts]
        return None, {names_filter[0]: states[rows][:, None].expand(-1, 3, -1)}

    model: Any = SimpleNamespace(run_with_cache=run, to_tokens=lambda text: [[0]])
    calculator = calculators.FeatureAbsorptionCalculator(
        model=model, icl_word_list=["tart"], max_icl_examples=1
    )
    main_latents = np.array([3])
    theirs = calculator.calculate_absorption(
        Theirs(sae), words, probe, [3], layer=0, show_progress=False
    ).word_results
    latents = sae.encode(states).numpy()
    fraction, full, _ = projection_absorption(
        states.numpy(), latents, sae.W_dec.numpy(), probe.numpy(), main_latents
    )
    assert np.allclose(fraction, [word.absorption_fraction for word in theirs], atol=1e-4)
    assert full.tolist() == [word.is_full_absorption for word in theirs]
    assert 0 < fraction.mean() < 1
