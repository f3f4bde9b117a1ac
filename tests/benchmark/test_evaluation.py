"""Rows of the results: measures against hand counts, which heads see what, counterfactuals, and probes run once."""

from collections.abc import Callable

import numpy as np
import pytest
from tiny_benchmark import tiny_table

from debias_ssae.benchmark import evaluation as room
from debias_ssae.benchmark.evaluation import LEAKAGE, evaluate, frozen_heads, scores
from debias_ssae.benchmark.heads import Head
from debias_ssae.benchmark.methods import PairActivations, Rows, Seed, Variant, variants


@pytest.fixture(scope="module")
def seed(make_seed: Callable[..., Seed]) -> Seed:
    return make_seed(tiny_table(), regimes=("none", "labelled", "labelled_all", "concept"))


@pytest.fixture(scope="module")
def frozen(seed: Seed) -> list[Head]:
    return frozen_heads(seed)


def test_measures_by_hand() -> None:
    y = np.array(["n"] * 8 + ["s"] * 4)
    z = np.array(["F", "F", "F", "F", "M", "M", "M", "M", "F", "F", "M", "M"])
    predicted = np.array(["n", "n", "n", "n", "n", "s", "s", "s", "s", "n", "s", "s"])
    found = scores(y, predicted, z, {"n": "F", "s": "M"})
    assert found["cells"] == {
        "n, F": {"n": 4, "accuracy": 1.0},
        "n, M": {"n": 4, "accuracy": 0.25},
        "s, F": {"n": 2, "accuracy": 0.5},
        "s, M": {"n": 2, "accuracy": 1.0},
    }
    assert found["accuracy"] == pytest.approx(8 / 12)
    assert found["balanced_accuracy"] == pytest.approx((5 / 8 + 3 / 4) / 2)
    assert (found["worst_group"], found["worst_group_accuracy"]) == ("n, M", 0.25)
    assert found["tpr_gap_rms"] == pytest.approx(np.sqrt((0.75**2 + 0.5**2) / 2))
    assert found["demographic_parity_difference"] == pytest.approx(5 / 6 - 1 / 6)
    assert found["equalized_odds_difference"] == pytest.approx(0.75)
    assert found["attribute_accuracy"] == pytest.approx((5 + 5) / 12)


def kinds(seed: Seed, variant: Variant, frozen: list[Head]) -> list[tuple[str, str, str, str]]:
    rows = [row for row, _ in evaluate(seed, variant, frozen)]
    return [(row["head"], row["representation"], row["head_model"], row["C_rule"]) for row in rows]


def test_which_heads_see_what(seed: Seed, frozen: list[Head]) -> None:
    rules = [("logistic", "cv"), ("logistic", "fixed"), ("logistic", "group"), ("mlp", "fixed")]
    once = [("retrained", "mean(final)", *rule) for rule in rules]
    three = [
        *once,
        *(("frozen", "mean(final)", *rule) for rule in rules),
        *(("frozen", "mean(final), re-centred", *rule) for rule in rules),
    ]
    expected = {
        "erm": once,
        "oracle": once,
        "oracle_large": once,
        "augmentation": once,
        "concept_bottleneck": once,
    }
    expected |= {
        "scrub": three,
        "leace": three,
        "majority": [("retrained", "mean(final)", "constant", "own")],
    }
    for method, heads in expected.items():
        assert kinds(seed, next(variants(seed, method)), frozen) == heads, method


def test_re_centred_heads_see_the_mean_they_know(seed: Seed, frozen: list[Head]) -> None:
    """A representation that is only shifted is the plain one to a frozen head that is re-centred."""
    shifted = Variant("shift", "none", seed.plain.map(lambda X: X + np.float32(2)))
    erm = [row["cells"] for row, _ in evaluate(seed, Variant("erm", "none", seed.plain), frozen)]
    rows = [row for row, _ in evaluate(seed, shifted, frozen)]
    assert [row["cells"] for row in rows[8:]] == erm
    assert [row["cells"] for row in rows[4:8]] != erm
    assert rows[0]["cells"] == erm[0], "a retrained head does not mind"


def test_flips_count_changed_predictions(seed: Seed) -> None:
    class Sign:
        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.where(X[:, 0] > 0, "nurse", "surgeon")

    def column(*values: float) -> np.ndarray:
        return np.array(values)[:, None]

    n = len(seed.split.test)
    test = column(*[1.0] * n)
    counterfactuals = {
        "listed": PairActivations(np.array([0, 2, 3]), column(1, -1, -1)),
        "unlisted": PairActivations(np.array([], dtype=int), np.zeros((0, 1))),
    }
    rows = Rows(seed.plain.head, seed.plain.attribute, test, counterfactuals, plain=True)
    variant = Variant("x", "none", rows, heads=(Head(Sign(), None, "own"),))
    row, predicted = next(evaluate(seed, variant, []))
    assert (row["flips"], row["flips_n"]) == (pytest.approx(2 / 3), 3)
    assert (row["flips_unlisted"], row["flips_unlisted_n"]) == (None, 0)
    assert (predicted.y_pred == "nurse").all()
    assert predicted.text_id.tolist() == seed.split.test.tolist()


def test_who_needs_the_attribute_is_marked_and_gets_it(seed: Seed, frozen: list[Head]) -> None:
    for method in ("threshold_optimizer", "correlation_removal"):
        row, _ = next(evaluate(seed, next(variants(seed, method)), frozen))
        assert row["needs_attribute"]
        assert row["flips"] is None
    assert not next(evaluate(seed, next(variants(seed, "leace")), frozen))[0]["needs_attribute"]


def test_the_plain_representation_is_probed_once(
    seed: Seed, frozen: list[Head], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = room.leakage
    monkeypatch.setattr(room, "leakage", lambda *given: calls.append(1) or real(*given))
    seed.plain_leakage.clear()
    rows = [
        next(evaluate(seed, next(variants(seed, m)), frozen))[0]
        for m in ("erm", "oracle", "majority", "leace")
    ]
    assert len(calls) == 2
    assert all(set(LEAKAGE) <= set(row) for row in rows)
    assert rows[0]["leakage"] == rows[1]["leakage"]


def test_the_level_of_a_hookpoint_is_told(seed: Seed, frozen: list[Head]) -> None:
    levels = {}
    for method in ("ssae", "ssae_deep", "scrub"):
        row, _ = next(evaluate(seed, next(variants(seed, method)), frozen))
        levels[method] = (row["hookpoint"], row["level"])
    assert levels == {
        "ssae": ("embeddings", "token"),
        "ssae_deep": ("blocks.0", "context"),
        "scrub": (None, None),
    }
