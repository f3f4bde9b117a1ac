"""Probes find what is there, not what is not, and claim no more than they found."""

import numpy as np
import pytest

from debias_ssae.audit.leakage import PROBES, Probe, probe_leakage
from debias_ssae.core.errors import InputError


def _data(strength: float, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    z = np.where(rng.random(n) < 0.8, y, 1 - y)
    x = rng.normal(size=(n, 12)).astype(np.float32)
    x[:, 0] += 2.5 * y
    x[:, 1] += strength * z
    return x, np.where(z == 1, "f", "m"), y


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_finds_a_strong_attribute(probe: Probe) -> None:
    x, z, y = _data(4.0)
    report = probe_leakage(x, z, y, probes=(probe,), n_folds=3, random_state=0)
    for given_y in (False, True):
        found = report.strongest(given_y=given_y)
        assert found.balanced_accuracy > 0.85
        assert found.ci_low > 0.8 > 0.65 > found.shuffled
        assert found.ci_low <= found.balanced_accuracy <= found.ci_high


def test_what_only_the_label_tells_is_gone_given_the_label() -> None:
    x, z, y = _data(0.0, n=1500)
    report = probe_leakage(x, z, y, probes=("linear",), random_state=0)
    assert report.strongest().ci_low > 0.6
    assert report.strongest(given_y=True).ci_low < 0.5 < report.strongest(given_y=True).ci_high + 0.02


def test_only_a_nonlinear_probe_reads_an_exclusive_or() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (600, 2))
    x = (bits + rng.normal(scale=0.2, size=bits.shape)).astype(np.float32)
    report = probe_leakage(x, bits[:, 0] ^ bits[:, 1], n_folds=3, random_state=0)
    scores = {r.probe: r.balanced_accuracy for r in report.results}
    assert scores["linear"] < 0.6
    assert scores["boosted"] > 0.9
    assert report.strongest().probe != "linear"


def test_the_claim_never_says_removed() -> None:
    x, z, y = _data(0.0)
    claim = probe_leakage(x, z, y, probes=("linear",), random_state=0).claim(given_y=True)
    assert claim.startswith("The strongest of our probes")
    assert "+/-" in claim
    assert "removed" not in claim


def test_more_values_small_classes_and_missing_ones() -> None:
    rng = np.random.default_rng(0)
    z = np.array([*(["a", "b", "c"] * 60), None, None], dtype=object)
    x = rng.normal(size=(182, 5))
    x[:180, 0] += 4 * np.tile([0, 1, 2], 60)
    y = np.array(["big"] * 170 + ["small"] * 12)
    report = probe_leakage(x, z, y, probes=("linear",), n_folds=3, random_state=0)
    assert report.values == ("a", "b", "c")
    assert report.n_missing == 2
    assert report.skipped == ("small",)
    assert report.strongest().chance == pytest.approx(1 / 3)
    assert report.strongest().balanced_accuracy > 0.85
    assert report.to_dict()["n_missing"] == 2


def test_same_seed_same_numbers_and_rows_are_capped() -> None:
    x, z, _ = _data(1.0)
    first, second = (
        probe_leakage(x, z, probes=("linear", "mlp"), n_folds=2, random_state=3) for _ in range(2)
    )
    assert first == second
    capped = probe_leakage(x, z, probes=("linear",), n_folds=2, max_rows=100, random_state=0)
    assert capped.strongest().n == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z": ["a", "b"]}, "same number of rows"),
        ({"z": ["a"] * 10}, "two values or more"),
        ({"z": ["a"] * 9 + ["b"]}, "at least 5 rows"),
        ({"X": np.zeros(10)}, "shape"),
        ({"X": np.full((10, 2), np.nan)}, "finite"),
        ({"probes": ("magic",)}, "probes must be"),
        ({"probes": ()}, "probes must be"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        probe_leakage(**{"X": np.zeros((10, 2)), "z": ["a", "b"] * 5, **arguments})


def test_given_y_needs_y() -> None:
    x, z, _ = _data(1.0, n=60)
    report = probe_leakage(x, z, probes=("linear",), n_folds=2, random_state=0)
    with pytest.raises(InputError, match="pass y"):
        report.claim(given_y=True)
