"""Review of a debiaser: its cards, and the same debiaser with other ticks, equal to what fit would have given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_debiaser import CONFIG, make_texts

from debias_ssae import Choices, SSAEDebiaser
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.review import Card
from debias_ssae.review.removed import removed_cards, removed_choices, with_choices

NEW = make_texts(30, seed=3)


@pytest.fixture(scope="module")
def cards(fitted: SSAEDebiaser, texts: list[str]) -> list[Card]:
    return removed_cards(fitted, texts, y=np.array(["nurse" in t for t in texts]), n_more=10)


def flipped(choices: Choices, wanted: set[int]) -> Choices:
    """The choices with the ticks of some latents turned."""
    changed = {
        hookpoint: tuple(
            card.model_copy(update={"tick": card.tick != bool(wanted & set(card.ids))}) for card in chosen
        )
        for hookpoint, chosen in choices.cards.items()
    }
    return Choices(changed, choices.saes)


def test_cards_are_the_removed_and_the_next(fitted: SSAEDebiaser, cards: list[Card]) -> None:
    ids = fitted.intervention_.selection.ids
    assert {c.latents[0] for c in cards if c.ticked} == set(ids.tolist())
    assert 0 < sum(not c.ticked for c in cards) <= 10
    assert all(c.toward in ("male", "female") for c in cards)
    for c in cards:
        assert c.effect["male"] == pytest.approx(-c.effect["female"])
        assert (c.effect[c.toward]) >= 0
        assert set(c.firing_rate) == {"True", "False"}
    scores = fitted.intervention_.selection.scores
    assert scores is not None
    assert sum(c.share for c in cards) <= 1 + 1e-6


def test_no_change_gives_the_same_bits(fitted: SSAEDebiaser, cards: list[Card], tmp_path: Path) -> None:
    removed_choices(fitted, cards).save(tmp_path / "a.yaml", with_saes=False)
    saes = {hookpoint: one.sae for hookpoint, one in fitted.interventions_.items()}
    new = with_choices(fitted, Choices.load(tmp_path / "a.yaml", saes))
    assert np.array_equal(new.transform(NEW), fitted.transform(NEW))
    assert np.array_equal(new.intervention_.selection.ids, fitted.intervention_.selection.ids)
    assert {**new.intervention_.record["review"], "date": ""} == {"date": "", "kept": [], "added": []}
    assert "review" not in fitted.intervention_.record


def test_other_ticks_are_what_fit_would_have_given(
    small_encoder: Path, texts: list[str], concept: Any
) -> None:
    """Keep the last of six: the same as fitting with five, what follows the edit included."""
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    six, five = (
        SSAEDebiaser(encoder, attribute=concept, config=CONFIG, n_latents=n, random_state=0).fit(texts)
        for n in (6, 5)
    )
    last = int(six.intervention_.selection.ids[-1])
    choices = removed_choices(six, removed_cards(six, texts, n_more=3))
    new = with_choices(six, flipped(choices, {last}), texts)
    assert new.intervention_.selection.ids.tolist() == five.intervention_.selection.ids.tolist()
    assert np.abs(new.transform(NEW) - five.transform(NEW)).max() < 1e-5
    assert np.abs(new.transform(NEW) - six.transform(NEW)).max() > 1e-4


def test_latents_that_are_not_named_stay(fitted: SSAEDebiaser, cards: list[Card]) -> None:
    choices = removed_choices(fitted, cards)
    first = Choices({h: chosen[:1] for h, chosen in choices.cards.items()}, choices.saes)
    same = with_choices(fitted, first).intervention_.selection.ids
    assert same.tolist() == fitted.intervention_.selection.ids.tolist()


def test_what_cannot_be_reviewed(fitted: SSAEDebiaser, texts: list[str], cards: list[Card]) -> None:
    with pytest.raises(InputError, match="y has 2"):
        removed_cards(fitted, texts, y=[0, 1])
    choices = removed_choices(fitted, cards)
    (sae,) = choices.saes.values()
    elsewhere = Choices({"blocks.0": choices.cards["embeddings"]}, {"blocks.0": sae})
    with pytest.raises(InputError, match=r"hookpoint blocks\.0"):
        with_choices(fitted, elsewhere)
    changed = Choices(choices.cards, {"embeddings": type(sae)(sae.cfg, random_state=9)})
    with pytest.raises(InputError, match="another SAE"):
        with_choices(fitted, changed)


def test_ticked_cards_make_a_debiaser(
    small_encoder: Path, texts: list[str], fitted: SSAEDebiaser, cards: list[Card], tmp_path: Path
) -> None:
    """Choices are what is known of the attribute: nothing is trained, and what the edit moves is projected out."""
    choices = removed_choices(fitted, cards)
    made = SSAEDebiaser(str(small_encoder), attribute=choices, random_state=0).fit(texts)
    assert made.intervention_.selection.ids.tolist() == choices.ids["embeddings"].tolist()
    assert made.output_kind_ == "displacement"
    made.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(NEW), made.transform(NEW))
    shown = removed_cards(again, texts, n_more=5)
    assert all(c.ticked for c in shown)
    assert np.isnan([c.share for c in shown]).all(), "a person's ticks are no evidence of an attribute"
