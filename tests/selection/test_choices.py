"""Choices: what is written is read again, hand edits count, anything doubtful is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from debias_ssae import Choices
from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.choices import Choice, choices_file

SAE = SparseAutoencoder(SAEConfig(d_in=6, d_sae=16, k=4), random_state=0)
CARDS = (
    Choice(tick=True, name="she · her", ids=(3, 1), toward="nurse", words={"she": 0.7, "her": 0.3}),
    Choice(tick=False, name="no", ids=(5,), toward="no", words={"1e5": 0.5, '\x85"': 0.25, "😀": 0.2}),
    Choice(tick=True, name="he", ids=(7, 3), toward="surgeon", words={"he": 0.9}),
)


@pytest.fixture
def choices() -> Choices:
    return Choices({"embeddings": CARDS}, {"embeddings": SAE})


@pytest.fixture
def file(choices: Choices, tmp_path: Path) -> Path:
    choices.save(tmp_path / "found.yaml")
    return tmp_path / "found.yaml"


def test_what_is_written_is_read_again(choices: Choices, file: Path) -> None:
    again = Choices.load(file)
    assert again.cards == choices.cards
    assert again.saes["embeddings"].fingerprint() == SAE.fingerprint()
    assert again.to_yaml() == choices.to_yaml()
    assert Choices.load(file, {"embeddings": SAE}).saes["embeddings"] is SAE


def test_ids_are_those_ticked_in_order_and_once(choices: Choices) -> None:
    assert {h: ids.tolist() for h, ids in choices.ids.items()} == {"embeddings": [3, 1, 7]}
    assert choices.names == ["she · her", "he"]
    assert choices.select(None, "embeddings", SAE, None).ids.tolist() == [3, 1, 7]
    assert choices.select(None, "blocks.1", SAE, None).ids.tolist() == []


def test_ticks_by_hand_count(file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace("tick: false", "tick: true"))
    assert Choices.load(file).ids["embeddings"].tolist() == [3, 1, 5, 7]


def test_pieces_filled_with_ticks_are_the_file(choices: Choices) -> None:
    pieces = choices.pieces("a.yaml")
    assert len(pieces) == 4
    assert pieces[0] + "true" + pieces[1] + "false" + pieces[2] + "true" + pieces[3] == choices.to_yaml(
        "a.yaml"
    )


def test_the_later_choice_counts(choices: Choices) -> None:
    later = Choices({"embeddings": (Choice(tick=False, ids=(3,)), Choice(tick=True, ids=(9,)))}, choices.saes)
    assert (choices | later).ids["embeddings"].tolist() == [1, 7, 9]
    assert (Choices({}, {}) | choices).cards == choices.cards
    other = SparseAutoencoder(SAE.cfg, random_state=1)
    with pytest.raises(InputError, match="two different SAEs"):
        _ = choices | Choices({"embeddings": ()}, {"embeddings": other})


def test_words_are_paired_by_what_the_latents_write() -> None:
    rows = np.zeros((4, 6), np.float32)
    rows[0, 0] = rows[1, 1] = 1
    rows[2, [1, 2]] = rows[3, [0, 3]] = 1
    sae = SparseAutoencoder(SAEConfig(d_in=6, d_sae=4, k=2), random_state=0)
    sae.W_dec.data.copy_(sae.W_dec.data.new_tensor(rows))
    words = ["she", "her", "his", "he"]
    cards = tuple(
        Choice(
            tick=True,
            ids=(i,),
            toward="nurse" if i < 2 else "surgeon",
            words={word: 0.9, ".": 0.1, "rare": 0.1},
        )
        for i, word in enumerate(words)
    )
    concept = Choices({"embeddings": cards}, {"embeddings": sae}).to_concept()
    pairs = {frozenset((pair.words[0], pair.words[1])) for pair in concept.pairs}
    assert pairs == {frozenset(("she", "he")), frozenset(("her", "his"))}
    assert set(concept.values) == {"nurse", "surgeon"}
    with pytest.raises(InputError, match="write the pairs yourself"):
        Choices({"embeddings": cards[:2]}, {"embeddings": sae}).to_concept()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tick: true", "tick: perhaps", "parts.0.cards.0.tick"),
        ("tick: true", "tick: 1", "parts.0.cards.0.tick"),
        ("format: 2", "format: 7", "format 7"),
        ("parts:", "pieces:", "no file of choices: parts"),
        ("toward:", "towards:", "towards"),
        ("ids: [3, 1]", "ids: []", "parts.0.cards.0.ids"),
        ("ids: [5]", "ids: [99]", "the SAE has 16"),
        ("ids: [5]", "ids: [3]", "both tick latent 3"),
        ("hookpoint: embeddings", "hookpoint: blocks.1", "blocks.1"),
        ("hookpoint: embeddings", "hookpoint: ../found.sae/embeddings", "match pattern"),
        ("sae: ", "sae: f", "another SAE"),
        ("parts:", "- [", "YAML"),
    ],
)
def test_wrong_files_are_named(file: Path, old: str, new: str, message: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        Choices.load(file)
    assert "found" in str(caught.value)


def test_a_file_away_from_its_sae_says_where_it_belongs(choices: Choices, file: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    moved = file.rename(tmp_path / "downloads" / "found.yaml")
    with pytest.raises(
        InputError, match=r"must lie beside the SAE.*move it over the choices\.yaml of the folder"
    ):
        Choices.load(moved)
    choices.save(tmp_path / "choices.yaml")
    (tmp_path / "shortcuts.html").touch()
    assert Choices.load(tmp_path).cards == choices.cards
    for given in (tmp_path / "shortcuts.html", tmp_path / "downloads"):
        with pytest.raises(InputError, match=r"give the file that the page's button saves: .*choices\.yaml"):
            Choices.load(given)


def test_missing_files_are_named(tmp_path: Path, choices: Choices) -> None:
    with pytest.raises(InputError, match="nowhere"):
        Choices.load(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="no SAE for it"):
        Choices(choices.cards, {})


def test_names_that_no_file_can_have_are_no_choices(tmp_path: Path) -> None:
    assert choices_file("x" * 5000) is None
    assert choices_file("a\0b") is None
    file = tmp_path / "c.yaml"
    file.write_text(
        "format: 2\nparts:\n- hookpoint: %s\n  sae: a\n  cards:\n  - tick: true\n    name: a\n    ids: [1]\n"
        "    toward: b\n    words: {a: 1.0}\n" % ("x" * 5000)
    )
    with pytest.raises(InputError, match="must lie beside the SAE"):
        Choices.load(file)
