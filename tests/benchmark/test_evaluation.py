"""How a method is judged: measures by hand, which heads see what, and what is told of an edit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from debias_ssae.benchmark import METHODS
from debias_ssae.benchmark import evaluation as module
from debias_ssae.benchmark.evaluation import LEAKAGE, Plain, evaluate, plain_of, scores
from debias_ssae.benchmark.protocol import Protocol

Make = Callable[..., Protocol]


@pytest.fixture(scope="module")
def seed(make_protocol: Make) -> tuple[Protocol, Plain]:
    protocol = make_protocol(regimes=("none", "labelled", "concept"))
    return protocol, plain_of(protocol, 0, METHODS)


def rows_of(seed: tuple[Protocol, Plain], name: str, regime: str) -> list[dict[str, Any]]:
    return [row for row, _ in evaluate(*seed, 0, name, METHODS[name], regime)]


def test_measures_by_hand() -> None:
    y = np.array(["a"] * 4 + ["b"] * 4)
    z = np.array(["m", "m", "f", "f"] * 2)
    y_pred = np.array(["a", "a", "a", "b", "b", "b", "b", "a"])
    found = scores(y, y_pred, z, {"a": "m", "b": "f"})
    assert found["accuracy"] == 0.75
    assert found["worst_group_accuracy"] == 0.5
    assert found["worst_group"] in ("a, f", "b, f")
    assert found["cells"]["a, m"] == {"n": 2, "accuracy": 1.0}
    assert found["cells"]["b, f"] == {"n": 2, "accuracy": 0.5}
    # read as their class's majority value: a is m, b is f
    assert found["attribute_accuracy"] == np.mean((y_pred == "a") == (z == "m"))


def test_which_heads_see_what(seed: tuple[Protocol, Plain]) -> None:
    def kinds(name: str, regime: str) -> set[tuple[str, bool, str]]:
        rows = rows_of(seed, name, regime)
        return {
            (r["head"], "re-centred" in r["representation"], f"{r['head_model']} {r['C_rule']}") for r in rows
        }

    assert kinds("erm", "none") == {("retrained", False, "logistic cv")}
    assert kinds("oracle", "labelled") == {("retrained", False, "logistic cv")}
    assert kinds("dfr", "labelled") == {("retrained", False, "logistic own")}
    edited = {("retrained", False), ("frozen", False), ("frozen", True)}
    assert kinds("scrub", "concept") == {(*one, "logistic cv") for one in edited}
    assert kinds("concept_bottleneck", "none") == {("retrained", False, "logistic cv")}, "another width"


def test_a_method_that_edits_nothing_is_erm(seed: tuple[Protocol, Plain]) -> None:
    """The laws of the heads: with nothing changed, retrained, frozen and re-centred say the same."""
    (erm,) = rows_of(seed, "erm", "none")
    plain = METHODS["erm"].__class__(lambda c: c.encoder, ("none",))
    for row, _ in evaluate(*seed, 0, "again", plain, "none"):
        assert row["cells"] == erm["cells"], row["head"]


def test_who_needs_the_attribute_is_marked_and_gets_it(seed: tuple[Protocol, Plain]) -> None:
    for name in ("threshold_optimizer", "correlation_removal"):
        rows = rows_of(seed, name, "labelled")
        assert all(row["needs_attribute"] for row in rows)


def test_the_plain_representation_is_probed_once(
    seed: tuple[Protocol, Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = []
    real = module.leakage
    monkeypatch.setattr(module, "leakage", lambda *a: probed.append(1) or real(*a))
    plain = {name: rows_of(seed, "oracle", "labelled")[0][name] for name in LEAKAGE}
    assert not probed
    assert plain == seed[1].leakage
    assert rows_of(seed, "scrub", "concept")[0]["leakage"] != plain["leakage"]
    assert probed == [1]


def test_what_was_removed_is_told(seed: tuple[Protocol, Plain]) -> None:
    row = rows_of(seed, "ssae", "concept")[0]
    assert (row["hookpoint"], row["d_sae"], row["n_latents"]) == ("embeddings", 48, 8)
    assert 0 < len(row["removed"]) <= 8
    scrubbed = rows_of(seed, "scrub", "concept")[0]
    assert scrubbed["n_latents"] is scrubbed["removed"] is None
