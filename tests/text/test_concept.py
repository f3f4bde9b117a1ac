"""The concept: swapping, counterfactuals, scrubbing, file format. Sentences are made up here."""

import copy
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debias_ssae.core.errors import InputError
from debias_ssae.text.concept import Concept, SwapPair

GENDER = Concept.load("gender")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He lost his bag.", "She lost her bag."),
        ("She lost her bag.", "He lost his bag."),
        ("I told her that it rained.", "I told him that it rained."),
        ("I told him that it rained.", "I told her that it rained."),
        ("We met her.", "We met him."),
        ("The book is his.", "The book is hers."),
        ("The book is hers.", "The book is his."),
        ("A friend of his and mine called.", "A friend of hers and mine called."),
        ("Her passion is chess.", "His passion is chess."),
        ('her "late" friend', 'his "late" friend'),
        ("her 20 years of work", "his 20 years of work"),
        ("Her then-boss left.", "His then-boss left."),
        ("his or her work", "her or his work"),
        ("her/his work", "his/her work"),
        ("HE RAN. She hid HERSELF.", "SHE RAN. He hid HIMSELF."),
        ("he's here, she’s there, he'd go", "she's here, he’s there, she'd go"),
        ("Mr. Smith and Mrs. Jones", "Ms. Smith and Mr. Jones"),
        ("Mr. and Mrs. Smith", "Ms. and Mr. Smith"),
        ("Miss Jones", "Mr Jones"),
        ("the women's team", "the men's team"),
        ("her mother-in-law's house", "his father-in-law's house"),
        ("a co-chairwoman, two ex-wives", "a co-chairman, two ex-husbands"),
        ("Yes, ma'am. Yes, ma’am!", "Yes, sir. Yes, sir!"),
        ("The hostess and the actress", "The host and the actor"),
    ],
)
def test_swaps(text: str, expected: str) -> None:
    assert GENDER.counterfactual(text) == expected


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["Großvater", "Großmutter"], "Mein Großvater", "Mein Großmutter"),
        (["Maße", "Fläche"], "Maße und Masse", "Fläche und Masse"),
        (["ΟΔΌΣ", "πόλη"], "οδός, Οδός", "πόλη, Πόλη"),
    ],
)
def test_words_of_other_alphabets(words: list[str], text: str, expected: str) -> None:
    assert Concept.from_words(words).counterfactual(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The shed, the hero, there, Sherman, history and the manual",
        "s/he or (s)he",
        "I miss you. MS in physics. 5 ms later, MR scans.",
        "Miss a day and it is over.",
        "the Isle of Man, a man-made lake, ten man-hours",
        "The host was a hero.",
        "Martin Luther King, Prince Street",
        "",
        "hıs İ K",
    ],
)
def test_texts_without_a_marked_word_stay(text: str) -> None:
    assert GENDER.counterfactual(text) is None
    assert GENDER.scrub(text) == text
    assert GENDER.counterfactual_pairs([text]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He lost his bag.", "They lost their bag."),
        ("We met her. It is hers.", "We met them. It is theirs."),
        ("Mr. Smith met Ms. Jones.", "Smith met Jones."),
        ("A man and his wife", "A person and their spouse"),
        ("ACTRESS", "PERFORMER"),
        ("a female voice", "a voice"),
    ],
)
def test_scrubs(text: str, expected: str) -> None:
    assert GENDER.scrub(text) == expected
    assert GENDER.scrub(expected) == expected


WORDS = st.sampled_from(
    [*GENDER.words, "Mr. Smith", "walked", "of", "the", "work", "and", "Paris", "co-", "'s", ".", "ſhe"]
)
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([str, str.upper, str.capitalize])), max_size=12).map(
    lambda rows: " ".join(change(word) for word, change in rows)
)


@given(TEXTS)
def test_counterfactuals_hold_both_wordings_at_aligned_spans(text: str) -> None:
    spans = GENDER.swap_spans(text)
    records = GENDER.counterfactual_pairs([text])
    assert bool(records) == bool(spans) == (GENDER.counterfactual(text) is not None)
    for counterfactuals in records:
        assert (
            len(counterfactuals.spans_a)
            == len(counterfactuals.spans_b)
            == len(counterfactuals.sides)
            == len(spans)
        )
        for span, (a0, a1), (b0, b1) in zip(
            spans, counterfactuals.spans_a, counterfactuals.spans_b, strict=True
        ):
            own, other = text[span.start : span.end], span.replacement
            expected = (own, other) if span.value == 0 else (other, own)
            assert (counterfactuals.text_a[a0:a1], counterfactuals.text_b[b0:b1]) == expected
        assert _without(counterfactuals.text_a, counterfactuals.spans_a) == _without(
            counterfactuals.text_b, counterfactuals.spans_b
        )
        whole = [
            counterfactuals.text_a if side < 0 else counterfactuals.text_b
            for side in set(counterfactuals.sides)
        ]
        assert (text in whole) == (counterfactuals.original != "mixed")


def _without(text: str, spans: tuple[tuple[int, int], ...]) -> list[str]:
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


@given(TEXTS)
def test_spans_are_sorted_apart_and_replaced(text: str) -> None:
    spans = GENDER.swap_spans(text)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    counterfactual = GENDER.counterfactual(text)
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], span.replacement]
        at = span.end
        assert span.value in (0, 1)
    assert (counterfactual or text) == "".join([*pieces, text[at:]])


@given(TEXTS)
def test_the_neutral_pronouns_hold_no_word_of_the_list(text: str) -> None:
    pronouns = GENDER.subset("pronouns")
    assert pronouns.swap_spans(pronouns.scrub(text)) == []


def test_counterfactuals_index_limit_and_original() -> None:
    texts = ["nothing", "He ran.", "She ran.", "He met his wife."]
    records = GENDER.counterfactual_pairs(texts)
    assert [t.index for t in records] == [1, 2, 3]
    assert [t.original for t in records] == ["a", "b", "mixed"]
    assert records[2].text_a == "He met his husband."
    assert records[2].text_b == "She met her wife."
    assert [t.index for t in GENDER.counterfactual_pairs(texts, limit=1)] == [1]


def test_neutral_words_are_no_cues() -> None:
    neutral = {pair.neutral for pair in GENDER.pairs if pair.neutral}
    assert not [word for word in neutral if GENDER.swap_spans(word)]


def test_names_are_used_when_asked_for() -> None:
    assert GENDER.counterfactual("Robert slept") is None
    named = Concept.load("gender", optional=("names",))
    assert named.counterfactual("Robert slept") == "Jennifer slept"
    assert named.scrub("Jennifer slept") == "Alex slept"
    assert named.sha256 != GENDER.sha256
    assert named.name == "gender+names"
    with pytest.raises(InputError, match="no optional section"):
        GENDER.with_optional("pets")


def test_subset_keeps_rules_and_neutral_words() -> None:
    pronouns = GENDER.subset("pronouns")
    assert set(pronouns.words) == {
        "he", "she", "his", "her", "him", "hers", "himself", "herself",
    }  # fmt: skip
    assert pronouns.counterfactual("She told her wife") == "He told his wife"
    pair = GENDER.subset(words=["he", "she"])
    assert pair.scrub("She met her") == "They met her"
    assert GENDER.subset("pronouns", words=["he", "she"]).pairs == pair.pairs
    with pytest.raises(InputError, match="no section"):
        GENDER.subset("weather")
    with pytest.raises(InputError, match="no pair made of"):
        GENDER.subset(words=["she"])


def test_from_words() -> None:
    two = Concept.from_words(["he", "she"], values=("m", "f"))
    assert two.words == ("he", "she")
    assert two.counterfactual("He or she") == "She or he"
    assert two.scrub("so he ran") == "so ran"
    more = Concept.from_words([("good", "bad"), ("great", "awful", "plain")])
    assert more.scrub("a great, good day") == "a plain, day"
    for bad in ([], ["he"], ["he", "she", "it", "they"], [("he",)], ["he", ("a", "b")]):
        with pytest.raises(InputError, match="two words or a list of pairs"):
            Concept.from_words(bad)


def test_another_concept_from_a_file(tmp_path: Path) -> None:
    content = {
        "name": "spelling",
        "values": ["british", "american"],
        "pairs": [["colour", "color", "hue"], {"a": "lift", "b": "elevator"}],
        "seed_texts": {"british": ["Mind the gap."], "american": ["Take the subway."]},
    }
    for name, text in (("c.json", json.dumps(content)), ("c.yaml", json.dumps(content))):
        path = tmp_path / name
        path.write_text(text)
        concept = Concept.load(path)
        assert concept.counterfactual("The colour of the Elevator") == "The color of the Lift"
        assert concept.seed_texts["american"] == ("Take the subway.",)
        assert concept.values == ("british", "american")
        assert concept.sections == ("words",)


def test_seed_texts_alone_make_a_concept() -> None:
    concept = Concept.from_dict({"name": "tone", "seed_texts": {"happy": ["Yay!"], "sad": ["Alas."]}})
    assert concept.values == ("happy", "sad")
    assert (concept.swap_spans("Yay"), concept.counterfactual("Yay"), concept.scrub("Yay")) == (
        [],
        None,
        "Yay",
    )


def test_round_trip_copies_and_hash() -> None:
    for concept in (GENDER, Concept.load("gender", optional=("names",)), GENDER.subset("kinship")):
        again = Concept.from_dict(json.loads(json.dumps(concept.to_dict())))
        assert again == concept
        assert again.sha256 == concept.sha256
        assert hash(again) == hash(concept)
        assert copy.deepcopy(concept) == concept
    assert len({GENDER.sha256, GENDER.subset("pronouns").sha256, GENDER.subset("titles").sha256}) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- he", "expected a mapping"),
        ("pairs: [[he, she]]\ncolour: red", "unknown ['colour']"),
        ("pairs: he", "list of pairs"),
        ("pairs: [he]", "is not a pair"),
        ("pairs: [[he]]", "is not a pair"),
        ("pairs: [[he, 5]]", "is not a pair"),
        ("pairs: [[he, she, they, title]]", "is not a pair"),
        ("pairs: [{a: he, b: she, case: loud}]", "is not a pair"),
        ("pairs: [{a: he, b: she, mood: good}]", "is not a pair"),
        ("pairs: [5]", "is not a pair"),
        ("pairs: [{a: he, b: she, when: rainy}]", "possessive or title"),
        ("pairs: [{a: he, b: she, only: c}]", "'only' a or b"),
        ("pairs: [[he, he]]", "two different words"),
        ("pairs: [[he, '']]", "two different words"),
        ("pairs: [[he, she], [she, it]]", "both sides"),
        ("values: [a]\npairs: [[he, she]]", "two different values"),
        ("values: male\npairs: [[he, she]]", "must be a list"),
        ("name: empty", "is empty"),
        ("values: [a, b]\npairs: [[he, she]]\nseed_texts: {c: [x]}", "seed texts for ['c']"),
        ("pairs: [[he, she]]\nseed_texts: [x]", "must map each value"),
        ("{", "as YAML"),
    ],
)
def test_faulty_files_are_told_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        Concept.load(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_word_alone_is_no_pair() -> None:
    for bad in (("he", "she"), (("he",),)):
        with pytest.raises(InputError, match="not a pair of words"):
            Concept(pairs=bad)  # type: ignore[arg-type]


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: gender"):
        Concept.load("species")
    with pytest.raises(InputError, match="There is no file"):
        Concept.load(tmp_path / "none.yaml")


def test_only_one_side_of_a_pair_counts() -> None:
    concept = Concept(
        pairs=(SwapPair("host", "hostess", "host", only="b"), SwapPair("don", "lady", only="a"))
    )
    assert concept.words == ("don", "hostess")
    assert (
        concept.counterfactual("the host, the hostess, the don, the lady")
        == "the host, the host, the lady, the lady"
    )


def test_ten_thousand_texts_take_seconds() -> None:
    text = "He told her that the report was written with care by a team of several doctors in the city. " * 3
    start = time.process_time()
    GENDER.counterfactual_pairs([text] * 10_000)
    assert time.process_time() - start < 10
