"""Discovery from end to end on a small model: what is planted leads, what is ticked goes, rounds accumulate."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from small_debiaser import WORDS, make_texts

from debias_ssae import Choices, NothingRemovedWarning, SSAEDebiaser, discover
from debias_ssae.core.config import DebiasConfig, SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.erase import LatentEraser
from debias_ssae.model import harvest
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.review import Shortcuts, word_list_judge
from debias_ssae.review.cards import FUNCTION, MARKS, SMALL, TARGET, numbered
from debias_ssae.review.hints import (
    HARD,
    LARGE,
    LEADS,
    SLICES,
    UNRELATED,
    hard_examples,
    hinted,
    link,
)
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import as_attribute

CONFIG: dict[str, Any] = {"discovery": {"n_texts": 60, "n_what_if": 60, "steps": 2}}


@pytest.fixture(scope="module")
def encoder(small_encoder: Path) -> ActivationEncoder:
    return ActivationEncoder(str(small_encoder), dtype="float32")


@pytest.fixture(scope="module")
def sae(encoder: ActivationEncoder) -> SparseAutoencoder:
    """One latent a word: it fires where the row is nearest to the word's mean row."""
    rows = harvest(encoder.language_model, WORDS, "embeddings").x
    around = harvest(encoder.language_model, make_texts(200, seed=5), "embeddings")
    owners = torch.tensor([int(i) for i in around.token_ids])
    unit = torch.stack([around.x[owners == i].mean(0) for i in owners.unique()])
    center = around.x.mean(0)
    unit = torch.nn.functional.normalize(unit - center, dim=1)
    made = SparseAutoencoder(
        SAEConfig(d_in=rows.shape[1], d_sae=len(unit), k=1, architecture="topk"), random_state=0
    )
    with torch.no_grad():
        made.W_enc.copy_(unit)
        made.W_dec.copy_(unit)
        made.b_dec.copy_(center)
    return made


TEXTS = [t for t in make_texts(900, seed=2) if len({"she", "he"} & set(t.split())) == 1][:300]
Y = np.array(["nurse" if "she" in t.split() else "surgeon" for t in TEXTS])


@pytest.fixture(scope="module")
def found(encoder: ActivationEncoder, sae: SparseAutoencoder) -> Shortcuts:
    options = {
        "class_words": {"nurse": "nurse clinic", "surgeon": "surgeon"},
        "config": CONFIG,
        "other_sae": sae,
    }
    return discover(TEXTS, Y, encoder=encoder, sae=sae, random_state=0, **options)  # type: ignore[arg-type]


def test_what_the_labels_hang_on_leads(found: Shortcuts) -> None:
    first = found.cards[:2]
    assert {card.name for card in first} == {"she", "he"}
    assert {card.name: card.toward for card in first} == {"she": "nurse", "he": "surgeon"}
    assert found.accuracy > 0.8
    for card in found.cards:
        assert card.recurrence == pytest.approx(1.0, abs=1e-5)
        assert card.what_if is not None
        assert set(card.effect) == {"nurse", "surgeon"}


def test_what_if_is_what_the_model_gives_without_the_card(found: Shortcuts, sae: SparseAutoencoder) -> None:
    card, study = found.cards[0], found.study
    rng_texts = [TEXTS[i] for i in study.read]
    edits = {"embeddings": LatentEraser.from_sae(sae, card.latents)}
    before = found.head.codes(study.encoder.encode(rng_texts))
    after = found.head.codes(study.encoder.encode(rng_texts, edits))
    assert card.what_if is not None
    assert card.what_if.changed == pytest.approx((before != after).mean(), abs=0.1)
    assert card.share > 0.05


def test_rounds_accumulate_and_what_was_removed_is_gone(found: Shortcuts) -> None:
    first = found.choose(word_list_judge(["she"]))
    assert first.names == ["she"]
    second = found.next_round(first)
    assert second.round == 2
    assert second.accuracy < found.accuracy
    assert not set(second.choices.ids["embeddings"]) & {i for card in second.cards for i in card.latents}
    both = second.choose(word_list_judge(["he"]))
    assert both.names == ["she", "he"]
    third = second.next_round(both)
    assert third.accuracy < 0.75, "nothing else tells the classes apart"
    started = discover(
        TEXTS,
        Y,
        encoder=found.study.encoder,
        sae=found.study.saes,
        config=CONFIG,
        random_state=0,
        choices=first,
    )
    other = SparseAutoencoder(found.study.saes["embeddings"].cfg, random_state=1)
    with pytest.raises(InputError, match="two different SAEs"):
        discover(TEXTS, Y, encoder=found.study.encoder, sae=other, choices=first)
    assert [c.latents for c in started.cards] == [c.latents for c in second.cards]


def test_cards_are_chosen_by_the_number_that_is_shown_or_by_name(found: Shortcuts) -> None:
    first, second = found.cards[:2]
    assert [card.number for card in found.cards] == found.to_frame().index.tolist()
    assert first.number == 1
    for given in (1, [1], first.name, [first.name.upper()], np.array([1]), {1: "", first.name: ""}):
        assert found.choose(given).names == [first.name]
    chosen = found.choose([second.number, first.name])
    assert chosen.names == [first.name, second.name]
    assert [card.number for card in chosen.cards["embeddings"]] == [card.number for card in found.cards]
    later = replace(found, choices=chosen).choose([]).cards["embeddings"]
    assert [card.number for card in later] == [card.number for card in found.cards]
    n = len(found.cards)
    for strange in (0, n + 1, -1, True, 1.0, None, "nobody"):
        with pytest.raises(InputError, match=f"there is no card .*{strange}.*number from 1 to {n}"):
            found.choose(strange)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"did you mean \d, '(she|he)'"):
        found.choose("shee")


def test_names_that_repeat_are_told_apart(found: Shortcuts) -> None:
    card = replace(found.cards[0], name="a phrase", words={"she": 0.9})
    again = numbered([card, card, replace(card, name="A phrase"), replace(card, name="she"), card])
    names = ["a phrase", "a phrase (she)", "A phrase (she) #2", "she", "a phrase (she) #3"]
    assert [one.name for one in again] == names
    assert [one.number for one in again] == [1, 2, 3, 4, 5]
    assert numbered(again) == again


def test_few_texts_are_said_and_too_few_refused(found: Shortcuts) -> None:
    rows = np.concatenate([np.flatnonzero(name == Y)[:12] for name in ("nurse", "surgeon")])
    texts, options = [TEXTS[i] for i in rows], {"encoder": found.study.encoder, "sae": found.study.saes}
    with pytest.warns(UserWarning, match=r"only 12 texts of 'nurse'.* give 40 or more of each"):
        few = discover(texts, Y[rows], config=CONFIG, random_state=0, **options)  # type: ignore[arg-type]
    assert few.verdict.startswith("There are only 12 texts of 'nurse'")
    with pytest.raises(InputError, match=r"2 texts of 2 classes, .*fewer than 10 texts; give more texts$"):
        discover([texts[0], texts[-1]], Y[rows][[0, -1]], **options)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_cards(found: Shortcuts) -> None:
    study = found.study
    again = discover(
        TEXTS, Y, encoder=study.encoder, sae=study.saes, class_words=study.class_words, config=CONFIG, random_state=0,
        other_sae=study.others,
    )  # fmt: skip
    assert again.to_frame().equals(found.to_frame())


@pytest.mark.parametrize("kind", ["exact", "distilled", "predictions", "scores"])
def test_the_users_head(found: Shortcuts, kind: str) -> None:
    encoder, saes = found.study.encoder, found.study.saes
    X = encoder.encode(TEXTS)
    y = np.where(Y == "nurse", "nurse", "aa surgeon") if kind == "exact" else Y
    linear = LogisticRegression(max_iter=2000).fit(X, y)
    heads: dict[str, Any] = {
        "exact": linear,
        "distilled": KNeighborsClassifier().fit(X, y),
        "predictions": linear.predict(X),
        "scores": linear.decision_function(X),
    }
    given = None if kind == "predictions" else y
    seen = discover(TEXTS, given, encoder=encoder, sae=saes, head=heads[kind], config=CONFIG, random_state=0)
    assert seen.head.kind == ("exact" if kind == "exact" else "distilled")
    assert seen.fidelity == 1.0 if kind == "exact" else 0.7 < seen.fidelity <= 1
    assert {card.name for card in seen.cards[:4]} >= {"she", "he"}
    after = seen.next_round(seen.choose(word_list_judge(["she", "he"])))
    assert np.array_equal(after.head.weights, seen.head.weights), "a given head is not trained again"
    assert after.accuracy < seen.accuracy


def test_several_hookpoints(found: Shortcuts, sae: SparseAutoencoder) -> None:
    other = SparseAutoencoder(SAEConfig(d_in=32, d_sae=32, k=4, architecture="relu"), random_state=0)
    seen = discover(
        TEXTS, Y, encoder=found.study.encoder, sae={"embeddings": sae, "blocks.0": other},
        hookpoint=["blocks.0", "embeddings"], config=CONFIG, random_state=0,
    )  # fmt: skip
    assert {card.hookpoint for card in seen.cards} == {"embeddings", "blocks.0"}
    choices = seen.choose(lambda card: card.name in ("she", "he"))
    assert seen.next_round(choices).accuracy < seen.accuracy


def test_the_steps_are_said_with_the_time_left(small_encoder: Path) -> None:
    said: list[str] = []
    small = {"d_sae": 64, "k": 8, "general": {"n_steps": 5}, "special": {"n_steps": 5}, **CONFIG}
    shown = discover(TEXTS, Y, encoder=str(small_encoder), config=small, random_state=0, say=said.append)
    assert [line.split("]")[0] for line in said] == [f"[{i + 1}/6" for i in range(6)]
    assert all(" left)" in line for line in said)
    assert "Shortcuts(round 1" in repr(shown)


def test_recurrence_comes_from_one_more_training(small_encoder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    small = {"d_sae": 64, "k": 8, "general": {"n_steps": 5}, "special": None}
    once = {**CONFIG["discovery"], "n_tried": 4}
    for recurrence in (False, True):
        config = {**small, "discovery": {**once, "recurrence": recurrence}}
        shown = discover(
            TEXTS,
            Y,
            encoder=str(small_encoder),
            config=config,
            cache_dir=tmp_path,
            random_state=0,
            say=said.append,
        )
        assert all((card.recurrence is not None) == recurrence for card in shown.cards)
    assert [line.partition("] ")[2].partition(" (")[0] for line in said if "autoencoder" in line] == [
        *["sparse autoencoder at embeddings"] * 2,
        "sparse autoencoder at embeddings, another start",
    ]


def test_training_happens_where_the_encoder_is(small_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def learn(model: Any, texts: Any, name: str, settings: DebiasConfig, **options: Any) -> Any:
        seen.append((settings.general.device, model.limit))
        raise InputError("enough")

    monkeypatch.setattr("debias_ssae.review.discovery.learn_ssae", learn)
    monkeypatch.setattr("debias_ssae.debiaser.inputs.pick_device", lambda: torch.device("cuda"))
    encoder = ActivationEncoder(str(small_encoder), device="cpu", dtype="float32", max_length=9)
    with pytest.raises(InputError, match="enough"):
        discover(TEXTS, Y, encoder=encoder)
    assert seen == [("cpu", 9)]


def test_table_and_notebook(found: Shortcuts) -> None:
    table = found.to_frame()
    assert len(table) == len(found.cards)
    assert {"name", "share", "toward", "accuracy without", "predictions changed", "hints", "latents"} <= set(
        table
    )
    assert table["share"].abs().is_monotonic_decreasing
    shown = replace(found, cards=[replace(found.cards[0], words={"<b>": 1.0})])
    assert "&lt;b&gt; 100%" in shown._repr_html_()


def test_choices_with_their_sae_travel(found: Shortcuts, tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="the page comes from the extra report")
    found.save(tmp_path)
    with pytest.warns(NothingRemovedWarning, match="no card of the choices is ticked"):
        SSAEDebiaser(found.study.encoder, attribute=tmp_path).fit(TEXTS[:20])
    assert Choices.load(tmp_path / "choices.yaml").ids == {}
    text = (tmp_path / "choices.yaml").read_text()
    (tmp_path / "choices.yaml").write_text(text.replace("tick: false", "tick: true", 1))
    ids = Choices.load(tmp_path / "choices.yaml").ids["embeddings"]
    assert ids.tolist() == list(found.cards[0].latents)
    for given in (tmp_path, str(tmp_path / "choices.yaml")):
        assert as_attribute(given).ids["embeddings"].tolist() == ids.tolist()
    started = discover(TEXTS, Y, encoder=found.study.encoder, config=CONFIG, random_state=0, choices=tmp_path)
    assert started.study.saes["embeddings"].fingerprint() == found.study.saes["embeddings"].fingerprint()
    assert started.choices.names == [found.cards[0].name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "y is missing"),
        ({"y": None, "head": np.linspace(0, 1, len(TEXTS))}, "scores, which do not say"),
        ({"y": None, "head": np.full((len(TEXTS), 2), 0.5)}, "scores, which do not say"),
        ({"y": np.array(["dentist", *Y[1:]])}, "dentist.* have fewer than 10 texts.* or leave"),
        ({"y": np.linspace(0, 1, len(TEXTS))}, "give classes in place of numbers"),
        ({"y": Y[:3]}, "y has shape"),
        ({"y": np.array([None, *Y[1:]], dtype=object)}, "1 missing values"),
        ({"y": np.full(len(TEXTS), "nurse")}, "two classes"),
        ({"texts": "she"}, "single string"),
        ({"hookpoint": "blocks.9"}, "blocks.9"),
        ({"sae": 3}, "expected a path or a SparseAutoencoder"),
        ({"head": object()}, "expected a fitted"),
        ({"head": np.array(["nurse", "dentist"] * 150)}, "dentist"),
    ],
)
def test_unusable_input(found: Shortcuts, change: dict[str, Any], message: str) -> None:
    given = {
        "texts": TEXTS,
        "y": Y,
        "encoder": found.study.encoder,
        "sae": found.study.saes,
        "config": CONFIG,
    }
    with pytest.raises(InputError, match=message):
        discover(**{**given, **change})


def test_hints_follow_their_definitions(found: Shortcuts) -> None:
    card = replace(found.cards[0], toward="nurse", share=0.08, firing_rate={"nurse": 0.8, "surgeon": 0.1})
    y = np.repeat([0, 1], 40)
    parts = np.tile([0, 1], 40)
    steady = y == 0
    turning = (y == 0) == (parts == 0)
    cards = hinted(
        [card] * 3, ("nurse", "surgeon"),
        active=np.stack([steady, steady, turning]), y=y, parts=parts,
        active_hard=np.stack([steady, ~steady, steady]), y_hard=y, relation=np.array([0.5, 0.5, 0.1]),
    )  # fmt: skip
    assert [c.hints for c in cards] == [(), (HARD,), (SLICES, UNRELATED)]
    assert np.isnan(link(steady[:12], y[:12], 0)), "one class alone tells nothing"
    quiet = [replace(card, kind=TARGET), replace(card, kind=FUNCTION), replace(card, share=SMALL / 2)]
    cards = hinted(
        quiet, ("nurse", "surgeon"), active=np.stack([steady] * 3), y=y, parts=parts,
        active_hard=np.stack([~steady] * 3), y_hard=y, relation=np.zeros(3),
    )  # fmt: skip
    assert not any(c.hints for c in cards)
    rivals = [replace(card, kind=TARGET, share=0.1), replace(card, share=0.12), replace(card, share=0.09)]
    cards = hinted(
        rivals, ("nurse", "surgeon"), active=np.stack([steady] * 3), y=y, parts=parts,
        active_hard=np.stack([steady] * 3), y_hard=y, relation=None,
    )  # fmt: skip
    assert [c.hints for c in cards] == [(), (LEADS,), ()]
    large = [replace(card, share=0.4, kind=kind) for kind in ("", FUNCTION, TARGET)]
    cards = hinted(
        [*large, *(replace(one, toward="") for one in large)], ("nurse", "surgeon"), active=np.stack([steady] * 6), y=y,
        parts=parts, active_hard=np.stack([steady] * 6), y_hard=y, relation=None,
    )  # fmt: skip
    expected = [True, True, False, True, False, False]  # function words only where a class goes with them
    assert [LARGE in c.hints for c in cards] == [c.stands_out for c in cards] == expected
    everywhere = {"nurse": 1.0, "surgeon": 0.1}
    marks = [replace(card, share=share, kind=FUNCTION, firing_rate=everywhere) for share in (-0.2, 0.001)]
    marks += [replace(marks[0], kind=TARGET), replace(marks[0], firing_rate={"nurse": 1.0, "surgeon": 0.3})]
    cards = hinted(
        marks, ("nurse", "surgeon"), active=np.stack([steady] * 4), y=y, parts=parts,
        active_hard=np.stack([steady] * 4), y_hard=y, relation=None,
    )  # fmt: skip
    expected = [True, True, False, False]
    assert [MARKS in c.hints for c in cards] == [c.stands_out for c in cards] == expected


def test_verdict_adds_up_what_carries_a_hint(found: Shortcuts) -> None:
    rates = {"nurse": 0.2, "surgeon": 0.01}
    card = replace(found.cards[0], hints=(), kind="", share=0.04, toward="nurse", firing_rate=rates)
    everywhere, rare = (
        replace(card, firing_rate={"nurse": a, "surgeon": b}) for a, b in ((0.2, 0.1), (0.1, 0))
    )
    for cards, begins in (
        ([replace(card, share=0.3, hints=(HARD,))], "Look first at"),
        ([card] * 4, "No card stands out by itself, but 4 that fire in texts of one class alone hold 16%"),
        ([card] * 11, r"No card stands out by itself, but 11 .* and 1 more\. See "),
        ([card] * 2, "Nothing stands out"),
        (
            [everywhere, rare, replace(card, kind=TARGET), replace(card, share=-0.04)] * 4,
            "Nothing stands out",
        ),
    ):
        assert re.match(begins, replace(found, cards=cards).verdict)


def test_hard_examples_are_the_errors() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    X = rng.normal(size=(120, 3)) + 6 * y[:, None]
    X[[0, 1, 60, 61]] = X[[60, 61, 0, 1]].copy()
    assert sorted(hard_examples(X, y, 2, 0.1, 0)) == [0, 1, 60, 61]


def test_texts_that_their_length_tells_apart_are_said_to_be(found: Shortcuts) -> None:
    study = found.study
    assert "shorter" not in found.verdict
    by_class = [
        f"{text} {text} {text}" if code else text for text, code in zip(study.texts, study.y, strict=True)
    ]
    longer = replace(found, study=replace(study, texts=by_class))
    assert f"The texts of '{study.classes[0]}' are shorter than the rest" in longer.verdict
