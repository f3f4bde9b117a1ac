"""Every method: what may not reach it, what theory promises, and what cannot run says why."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from tiny_benchmark import TINY, sentence, tiny_split, tiny_table

from debias_ssae.benchmark import METHODS
from debias_ssae.benchmark.evaluation import Plain, Used, context_of, plain_of, run_method, use
from debias_ssae.benchmark.methods import family, needs_attribute, transform_with
from debias_ssae.benchmark.protocol import Protocol, Split
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser

HEAD_LABELS = ("labelled_head", "labelled_all")
"""Regimes whose point is that the attribute of the head's texts is known."""
REGIMES = ("none", "labelled", "labelled_gap", "labelled_head", "labelled_all", "concept", "concept_he_she")
Make = Callable[..., Protocol]


def poisoned(table: pd.DataFrame, split: Split, *, head: bool) -> pd.DataFrame:
    """Other texts and labels in place of the test's, and other attributes of the head's texts."""
    table, rng = table.copy(), np.random.default_rng(9)
    for row in split.test:
        gender = {"F": "M", "M": "F"}[table.sensitive[row]]
        target = rng.choice(table.target.unique())
        table.loc[row, ["text", "target", "sensitive"]] = [sentence(rng, target, gender), target, gender]
    if head:
        table.loc[split.head, "sensitive"] = rng.permutation(table.sensitive[split.head])
    return table


@pytest.fixture(scope="module")
def protocols(make_protocol: Make) -> dict[str, dict[str, tuple[Protocol, Plain]]]:
    """By setting: untouched data, poisoned test, poisoned test and head attribute; the pool holds the test's texts, and
    again in capitals.
    """
    found: dict[str, dict[str, tuple[Protocol, Plain]]] = {}
    other = tiny_table(n=12)[["text", "sensitive"]].assign(text=lambda t: t.text + " of")
    for setting in ("confounded", "natural"):
        table = tiny_table()
        split = tiny_split(table, setting)
        tables = {
            "clean": table,
            "test": poisoned(table, split, head=False),
            "both": poisoned(table, split, head=True),
        }
        found[setting] = {}
        for name, one in tables.items():
            protocol = make_protocol(
                one,
                split,
                extra=[form(text) for text in one.text[split.test] for form in (str, str.upper)],
                setting=setting,
                regimes=REGIMES,
                attribute_data=other,
            )
            found[setting][name] = protocol, plain_of(protocol, 0, METHODS)
    return found


def used(protocol: Protocol, plain: Plain, method: str, regime: str) -> Used:
    return use(protocol, context_of(protocol, plain, 0, regime), METHODS[method], 0)


def contents(protocol: Protocol, plain: Plain, method: str) -> dict[str, list[np.ndarray]]:
    """By regime, all that a method learnt, as far as texts that were left alone show it."""
    found = {}
    split = protocol.splits[0]
    for regime in REGIMES:
        if family(regime) in METHODS[method].regimes:
            try:
                one = used(protocol, plain, method, regime)
            except InputError:
                continue
            rows = [protocol.samples(split.attribute)]
            rows += [] if needs_attribute(one.estimator) else [protocol.samples(split.head)]
            found[regime] = [transform_with(one.estimator, r.texts, r.z, one.what) for r in rows]
    return found


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_no_test_text_and_no_label_of_head_or_test_reaches_a_method(method: str, protocols: Any) -> None:
    # groups of the head's own texts exist in the natural setting only
    setting = "natural" if METHODS[method].regimes == ("labelled_head",) else "confounded"
    made = {name: contents(*one, method) for name, one in protocols[setting].items()}
    assert made["clean"]
    for regime, clean in made["clean"].items():
        assert same(clean, made["test"][regime]), (regime, "the test's texts and labels")
        if regime not in HEAD_LABELS:
            assert same(clean, made["both"][regime]), (regime, "the head's attribute")


@pytest.mark.parametrize("method", ["reweighting", "oracle_large"])
def test_the_poison_shows_where_the_heads_attribute_is_used(method: str, protocols: Any) -> None:
    """The control of the test above: it can fail."""
    clean, both = (contents(*protocols["natural"][name], method) for name in ("clean", "both"))
    assert clean
    assert not any(same(clean[regime], both[regime]) for regime in clean)


def test_every_sae_row_is_the_public_class(protocols: Any) -> None:
    protocol, plain = protocols["confounded"]["clean"]
    named = [name for name in METHODS if name.startswith(("ssae", "gsae", "random", "latent"))]
    assert len(named) > 10
    for name in named:
        regime = "labelled" if "labelled" in METHODS[name].regimes else "concept"
        assert type(METHODS[name].make(context_of(protocol, plain, 0, regime))) is SSAEDebiaser


def means(X: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.stack([X[z == g].mean(axis=0) for g in np.unique(z)])


def test_leace_makes_the_groups_means_equal_on_its_fit_data(protocols: Any) -> None:
    protocol, plain = protocols["confounded"]["clean"]
    texts, y, z = protocol.samples(protocol.splits[0].attribute)

    def vectors(method: str, regime: str = "labelled") -> np.ndarray:
        return used(protocol, plain, method, regime).estimator.transform(texts)

    gap = np.ptp(means(vectors("erm", "none"), z), axis=0).max()
    assert np.ptp(means(vectors("leace"), z), axis=0).max() < 1e-3 * gap
    inside = vectors("leace_conditional")
    for c in np.unique(y):
        assert np.ptp(means(inside[y == c], z[y == c]), axis=0).max() < 1e-3 * gap
    erased = vectors("inlp")
    probe = LogisticRegression(max_iter=1000).fit(erased / erased.std(axis=0), z)
    assert probe.score(erased / erased.std(axis=0), z) <= 0.55


def test_nothing_removed_is_the_plain_representation(make_protocol: Make) -> None:
    protocol = make_protocol(n_latents=0, regimes=("none", "labelled", "concept"))
    plain = plain_of(protocol, 0, METHODS)
    encoder = context_of(protocol, plain, 0, "none").encoder
    head = protocol.samples(protocol.splits[0].head).texts
    for method in ("ssae", "ssae_deep"):
        assert np.array_equal(
            used(protocol, plain, method, "concept").estimator.transform(head), encoder.encode(head)
        )
    rows = {name: run_method(protocol, plain, 0, name, METHODS[name])["rows"] for name in ("erm", "ssae")}
    assert {json_of(r) for r in rows["ssae"]} == {json_of(r) for r in rows["erm"]}


def json_of(row: dict[str, Any]) -> str:
    return str((row["head_model"], row["C_rule"], row["cells"]))


def test_random_latents_are_others(protocols: Any) -> None:
    protocol, plain = protocols["confounded"]["clean"]
    chosen, others = (
        next(iter(used(protocol, plain, name, "concept").estimator.interventions_.values())).selection.ids
        for name in ("ssae", "random_latents")
    )
    assert len(chosen) == len(others) == TINY.n_latents
    assert not set(chosen) & set(others)


def test_what_cannot_run_says_why(make_protocol: Make, protocols: Any) -> None:
    def reasons(protocol: Protocol, plain: Plain, method: str) -> dict[str, str]:
        record = run_method(protocol, plain, 0, method, METHODS[method])
        return {note["regime"]: note["reason"] for note in record["skipped"]}

    confounded = protocols["confounded"]["clean"]
    assert "one attribute value only" in reasons(*confounded, "group_dro")["labelled_head"]
    assert "needs y" in reasons(*confounded, "splince")["labelled_gap"]
    assert "needs y" in reasons(*confounded, "leace_conditional")["labelled_gap"]
    bare = make_protocol(
        tiny_table(("nurse", "Dr")),
        concept=None,
        bottleneck_words=(),
        regimes=("none", "labelled", "labelled_gap", "concept"),
        short_concepts={},
        with_corpus=False,
    )
    plain = plain_of(bare, 0, {})
    assert "no concept" in reasons(bare, plain, "scrub")["concept"]
    assert "bottleneck_words" in reasons(bare, plain, "concept_bottleneck")["none"]
    assert "no texts with attribute labels" in reasons(bare, plain, "leace")["labelled_gap"]
    assert "none of its regimes" in reasons(bare, plain, "reweighting")[""]
    for method in ("gsae", "gsae_eighth", "latent_skyline"):
        assert "no general corpus" in reasons(bare, plain, method)["labelled"]
    assert "labelled" not in reasons(bare, plain, "ssae"), "starts from the head's own texts then"


@pytest.mark.slow
def test_many_classes(make_protocol: Make) -> None:
    """Only what is defined for two classes stands aside."""
    regimes = ("none", "labelled", "labelled_head", "labelled_all", "concept")
    protocol = make_protocol(tiny_table(("nurse", "surgeon", "Dr")), setting="natural", regimes=regimes)
    plain = plain_of(protocol, 0, METHODS)
    records = {name: run_method(protocol, plain, 0, name, METHODS[name]) for name in METHODS}
    two = {"exponentiated_gradient", "threshold_optimizer"}
    assert {name for name, record in records.items() if not record["rows"]} == two
    assert {note["method"] for record in records.values() for note in record["skipped"]} == two
    row, (_, y_pred) = records["ssae_default"]["rows"][0], records["ssae_default"]["predictions"][0]
    assert len(row["cells"]) == 6
    assert set(y_pred) <= set(protocol.y)
