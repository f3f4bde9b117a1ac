"""Every method in the registry: what may not reach it, what theory promises, and what cannot run says why."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tiny_benchmark import TINY, sentence, tiny_split, tiny_table

from debias_ssae.benchmark.evaluation import evaluate, frozen_heads
from debias_ssae.benchmark.methods import METHODS, AttributeSet, Seed, Variant, variants
from debias_ssae.benchmark.methods import seed as seed_room
from debias_ssae.benchmark.splits import Split
from debias_ssae.core.config import SelectionConfig
from debias_ssae.selection.pairs import read_counterfactual_pairs
from debias_ssae.selection.select import rank_from_pairs

HEAD_LABELS = ("labelled_head", "labelled_all")
"""Regimes whose point is that the attribute of the head's texts is known."""
Make = Callable[..., Seed]


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


def content(variant: Variant, z: np.ndarray) -> dict[str, Any]:
    """All that a variant learnt, as far as texts that were left alone show it."""
    rows, training = variant.rows, variant.training
    found = {"attribute": rows.attribute, "n_latents": variant.n_latents, "size": variant.n_parameters}
    if not variant.needs_attribute:
        found["head"] = rows.head
    if training is not None:
        found |= {name: value for name, value in training._asdict().items() if value is not None}
    return found | {str(i): head.predict(rows.attribute, z) for i, head in enumerate(variant.heads)}


def contents(seed: Seed, method: str) -> dict[str, dict[str, Any]]:
    z = seed.corpus.z[seed.split.attribute]
    return {f"{v.regime} {v.draw}": content(v, z) for v in variants(seed, method)}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def seeds(make_seed: Make) -> dict[str, dict[str, Seed]]:
    """By setting: untouched data, poisoned test, poisoned test and head attribute; the pool holds the test's texts, and
    again in capitals."""
    labelled = AttributeSet(
        tiny_table(n=12).text.tolist(), np.array(["F"] * 12 + ["M"] * 12 + ["F"] * 12 + ["M"] * 12)
    )
    regimes = (
        "none",
        "labelled",
        "labelled_gap",
        "labelled_head",
        "labelled_all",
        *TINY.updated(concept="gender").word_regimes,
    )
    found: dict[str, dict[str, Seed]] = {}
    for setting in ("confounded", "natural"):
        table = tiny_table()
        split = tiny_split(table, setting)
        tables = {
            "clean": table,
            "test": poisoned(table, split, head=False),
            "both": poisoned(table, split, head=True),
        }
        found[setting] = {
            name: make_seed(
                table,
                split,
                extra=tuple(form(text) for text in table.text[split.test] for form in (str, str.upper)),
                setting=setting,
                regimes=regimes,
                attribute_texts=labelled,
            )
            for name, table in tables.items()
        }
    return found


@pytest.mark.parametrize("method", METHODS)
def test_no_test_text_and_no_label_of_head_or_test_reaches_a_method(
    method: str, seeds: dict[str, dict[str, Seed]]
) -> None:
    # groups of the head's own texts exist in the natural setting only
    setting = "natural" if method in ("reweighting", "subsampling") else "confounded"
    made = {name: contents(seed, method) for name, seed in seeds[setting].items()}
    assert made["clean"]
    for regime, clean in made["clean"].items():
        assert same(clean, made["test"][regime]), (regime, "the test's texts and labels")
        if not regime.startswith(HEAD_LABELS):
            assert same(clean, made["both"][regime]), (regime, "the head's attribute")


@pytest.mark.parametrize("method", ["reweighting", "oracle_large"])
def test_the_poison_shows_where_the_heads_attribute_is_used(
    method: str, seeds: dict[str, dict[str, Seed]]
) -> None:
    """The control of the test above: it can fail."""
    clean, both = (contents(seeds["natural"][name], method) for name in ("clean", "both"))
    assert clean
    assert not any(same(clean[regime], both[regime]) for regime in clean)


def test_the_poison_is_seen_by_whoever_looks_at_the_test(seeds: dict[str, dict[str, Seed]]) -> None:
    clean, dirty = (seeds["confounded"][name] for name in ("clean", "test"))
    assert not np.isclose(clean.plain.test, dirty.plain.test).all(axis=1).any()
    assert (clean.corpus.z[clean.split.test] != dirty.corpus.z[dirty.split.test]).all()


@pytest.fixture(scope="module")
def seed(seeds: dict[str, dict[str, Seed]]) -> Seed:
    return seeds["confounded"]["clean"]


def only(variants: Iterator[Variant], regime: str) -> Variant:
    return next(v for v in variants if v.regime == regime)


def means(X: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.stack([X[z == g].mean(axis=0) for g in np.unique(z)])


def test_leace_makes_the_groups_means_equal_on_its_fit_data(seed: Seed) -> None:
    a = seed.split.attribute
    y, z = seed.corpus.y[a], seed.corpus.z[a]
    gap = np.ptp(means(seed.plain.attribute, z), axis=0).max()
    erased = only(variants(seed, "leace"), "labelled").rows.attribute
    assert np.ptp(means(erased, z), axis=0).max() < 1e-4 * gap
    inside = only(variants(seed, "leace_conditional"), "labelled").rows.attribute
    for c in np.unique(y):
        assert np.ptp(means(inside[y == c], z[y == c]), axis=0).max() < 1e-4 * gap


def test_linear_leakage_on_the_fit_data_is_the_majoritys(seed: Seed) -> None:
    z = seed.corpus.z[seed.split.attribute]

    def probe(X: np.ndarray) -> tuple[float, float]:
        rows = (X - X.mean(axis=0)) / seed.plain.attribute.std(axis=0)
        model = LogisticRegression(C=1.0, max_iter=1000).fit(rows, z)
        return model.score(rows, z), log_loss(z, model.predict_proba(rows))

    plain, leace, inlp = (
        probe(only(variants(seed, name), regime).rows.attribute)
        for name, regime in (("erm", "none"), ("leace", "labelled"), ("inlp", "labelled"))
    )
    assert plain[0] > 0.7
    assert leace[1] == pytest.approx(np.log(2), abs=1e-3), "no linear probe does better than a constant"
    assert inlp[0] <= 0.5 + 0.02


def test_nothing_removed_is_erm_to_the_bit(make_seed: Make) -> None:
    selection = SelectionConfig(n_latents=0, min_cell=3)
    seed = make_seed(
        tiny_table(), debias=TINY.debias.updated(selection=selection), regimes=("none", "labelled", "concept")
    )
    frozen = frozen_heads(seed)
    erm = [row for variant in variants(seed, "erm") for row, _ in evaluate(seed, variant, frozen)]
    for variant in [*variants(seed, "ssae"), *variants(seed, "ssae_deep")]:
        assert np.array_equal(variant.rows.test, seed.plain.test)
        for (row, _), plain in zip(evaluate(seed, variant, frozen), erm, strict=True):
            assert row["cells"] == plain["cells"]
    trained = seed.sae()
    weak, strong = (seed.erased("ssae", "concept", trained, [0, 1, 2], alpha=alpha) for alpha in (0.0, 1.0))
    assert np.array_equal(weak.rows.head, seed.plain.head)
    assert not np.array_equal(strong.rows.head, seed.plain.head)


def test_one_ranking_serves_every_number_of_latents(make_seed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny_table()
    numbers: list[int | str] = [3, "auto", 5]
    fresh = []
    for n in numbers:
        seed = make_seed(table)
        fresh.append(seed.found(seed.sae(), "concept", n))
    ranked = []
    monkeypatch.setattr(
        seed_room, "rank_from_pairs", lambda *a, **k: ranked.append(1) or rank_from_pairs(*a, **k)
    )
    seed = make_seed(table)
    for n, expected in zip(numbers, fresh, strict=True):
        found = seed.found(seed.sae(), "concept", n)
        assert found.latents.tolist() == expected.latents.tolist()
        assert found.report == expected.report
    assert len(fresh[0].latents) == 3 != len(fresh[2].latents)
    assert ranked == [1]


def test_wordings_are_read_once_for_saes_that_follow_one_another(
    make_seed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        seed_room,
        "read_counterfactual_pairs",
        lambda *a, **k: read.append(k["hookpoint"]) or read_counterfactual_pairs(*a, **k),
    )
    asked = [
        (kind, hookpoint, regime)
        for hookpoint in ("embeddings", "blocks.1")
        for regime in ("concept", "concept_he_she")
        for kind in ("gsae", "ssae")
    ]
    together = make_seed(tiny_table())
    for kind, hookpoint, regime in asked:
        alone = make_seed(tiny_table())
        expected = alone.found(alone.sae(kind, hookpoint), regime, 4)
        read.clear()
        found = together.found(together.sae(kind, hookpoint), regime, 4)
        assert found.latents.tolist() == expected.latents.tolist()
        assert read == ([hookpoint] if kind == "gsae" else [])


def test_words_that_were_not_given_make_their_own_counterfactuals(seed: Seed) -> None:
    corpus = seed.corpus
    short = corpus.unlisted(corpus.concept_of("concept_he_she"))
    assert short is not None
    assert {"his", "her", "James", "Mary"} <= set(short.words)
    assert not {"he", "she"} & set(short.words)
    assert corpus.concept is not None
    whole = corpus.unlisted(corpus.concept)
    assert whole is not None
    assert {pair.section for pair in whole.pairs} == {"names"}
    named = only(variants(seed, "scrub_names"), "concept").rows
    assert len(named.counterfactuals["unlisted"].at) == 0, "nothing is left that it was not given"
    listed = named.counterfactuals["listed"]
    # they run in batches of other shapes, which changes the last bits
    assert np.allclose(listed.X, named.test[listed.at], atol=1e-5), (
        "a scrubbed text and its counterfactual are one"
    )
    assert not np.array_equal(
        seed.plain.counterfactuals["listed"].X, seed.plain.test[seed.plain.counterfactuals["listed"].at]
    )


def test_what_cannot_run_says_why(make_seed: Make, seeds: dict[str, dict[str, Seed]]) -> None:
    def reason(seed: Seed, method: str, regime: str) -> str:
        seed.skipped.clear()
        assert not any(v.regime == regime for v in variants(seed, method))
        return next(s["reason"] for s in seed.skipped if s["regime"] == regime)

    confounded = seeds["confounded"]["clean"]
    assert "one attribute value only" in reason(confounded, "group_dro", "labelled_head")
    assert "needs y" in reason(confounded, "splince", "labelled_gap")
    assert "needs y" in reason(confounded, "leace_conditional", "labelled_gap")
    bare = make_seed(
        tiny_table(("nurse", "Dr")),
        concept=None,
        bottleneck_words=(),
        regimes=("none", "labelled", "labelled_gap", "concept"),
        short_concepts={},
    )
    assert "no concept" in reason(bare, "scrub", "concept")
    assert "bottleneck_words" in reason(bare, "concept_bottleneck", "none")
    assert "no texts with attribute labels" in reason(bare, "leace", "labelled_gap")
    assert "none of its regimes" in reason(bare, "reweighting", "")
    assert [v.regime for v in variants(bare, "random_latents")] == ["labelled"]


def test_many_classes(make_seed: Make) -> None:
    """Only what is defined for two classes stands aside."""
    table = tiny_table(("nurse", "surgeon", "Dr"))
    seed = make_seed(
        table, setting="natural", regimes=("none", "labelled", "labelled_head", "labelled_all", "concept")
    )
    made = {method: list(variants(seed, method)) for method in METHODS}
    two = {"exponentiated_gradient", "threshold_optimizer"}
    assert {method for method in METHODS if not made[method]} == two
    row, predicted = next(evaluate(seed, made["ssae"][0], frozen_heads(seed)))
    assert len(row["cells"]) == 6
    assert set(predicted.y_pred) <= set(table.target)
    for head in (
        head for method in ("dfr", "group_dro", "reweighting") for v in made[method] for head in v.heads
    ):
        assert set(head.predict(seed.plain.test)) <= set(table.target)
    assert {s["method"] for s in seed.skipped} == two
    assert all("two classes" in s["reason"] for s in seed.skipped)


def test_no_general_sae_without_a_general_corpus(make_seed: Make) -> None:
    seed = make_seed(tiny_table(), regimes=("none", "labelled", "concept"))
    seed.corpus.pool = None
    for method in ("gsae", "gsae_eighth", "latent_skyline"):
        assert not list(variants(seed, method))
    assert {note["method"] for note in seed.skipped} == {"gsae", "gsae_eighth", "latent_skyline"}
    assert list(variants(seed, "ssae")), "starts from the head's own texts then"


@pytest.mark.parametrize("method", ["leace_in_model", "ssae_leace_in_model", "neuron_skyline"])
def test_erasers_in_the_model_stop_where_the_representation_comes_from(method: str, make_seed: Make) -> None:
    seed = make_seed(tiny_table(), regimes=("none", "labelled"))
    seed.corpus.encoder.layer = "blocks.1"
    (variant,) = variants(seed, method)
    assert not seed.skipped
    assert np.isfinite(variant.rows.head).all()
