"""The concept: swapping, counterfactuals, scrubbing, file format. Sentences are made up here."""

import copy
import doctest
import json
import re
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import parse_yaml
from debias_ssae.text.concept import Concept, WordRow, concept_usage
from debias_ssae.text.concept.matching import CounterfactualPair

GENDER = Concept.load("gender")
RELIGION = Concept.load("religion")
FAITHS = Concept.from_words(
    [("christian", "muslim", "jewish"), ("church", "mosque", "synagogue", "hall"), ("pew", "rug", "bench")],
    values=("c", "m", "j"),
)


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


def check_pair(concept: Concept, text: str, pair: CounterfactualPair) -> None:
    """Aligned spans hold the words of a and of b; the text's own word stands in the version of its value."""
    spans = concept.find(text)
    assert len(pair.spans_a) == len(pair.spans_b) == len(pair.sides) == len(spans)
    a, b = pair.values
    assert a < b
    for span, side, (a0, a1), (b0, b1) in zip(spans, pair.sides, pair.spans_a, pair.spans_b, strict=True):
        assert side == (span.value == b) - (span.value == a)
        own = text[span.start : span.end]
        assert side >= 0 or pair.text_a[a0:a1] == own
        assert side <= 0 or pair.text_b[b0:b1] == own
        assert pair.text_a[a0:a1].lower() in {word.lower() for word in listed(concept, a)}
        assert pair.text_b[b0:b1].lower() in {word.lower() for word in listed(concept, b)}
    if not concept.a_an:
        assert _without(pair.text_a, pair.spans_a) == _without(pair.text_b, pair.spans_b)
    whole = [pair.text_a if side < 0 else pair.text_b for side in set(pair.sides) if side]
    assert (text in whole) == (set(pair.sides) in ({1}, {-1}))


def _without(text: str, spans: tuple[tuple[int, int], ...]) -> list[str]:
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


def listed(concept: Concept, value: int) -> set[str]:
    words = {row.words[value] for row in concept.pairs}
    return words | {word.replace("'", "’") for word in words}


@given(TEXTS)
def test_counterfactuals_hold_both_wordings_at_aligned_spans(text: str) -> None:
    records = GENDER.counterfactual_pairs([text])
    assert bool(records) == bool(GENDER.find(text)) == (GENDER.counterfactual(text) is not None)
    for record in records:
        check_pair(GENDER, text, record)


@given(TEXTS)
def test_spans_are_sorted_apart_and_replaced(text: str) -> None:
    spans = GENDER.find(text)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    counterfactual = GENDER.counterfactual(text)
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], span.said(1 - span.value, text)]
        at = span.end
        assert span.value in (0, 1)
    assert (counterfactual or text) == "".join([*pieces, text[at:]])


@given(TEXTS)
def test_the_neutral_pronouns_hold_no_word_of_the_list(text: str) -> None:
    pronouns = GENDER.subset("pronouns")
    assert pronouns.find(pronouns.scrub(text)) == []


def test_counterfactuals_index_limit_and_original() -> None:
    texts = ["nothing", "He ran.", "She ran.", "He met his wife."]
    records = GENDER.counterfactual_pairs(texts)
    assert [t.index for t in records] == [1, 2, 3]
    assert [t.sides for t in records] == [(-1,), (1,), (-1, -1, 1)]
    assert records[2].text_a == "He met his husband."
    assert records[2].text_b == "She met her wife."
    assert [t.index for t in GENDER.counterfactual_pairs(texts, limit=1)] == [1]


def test_neutral_words_are_no_cues() -> None:
    neutral = {pair.neutral for pair in GENDER.pairs if pair.neutral}
    assert not [word for word in neutral if GENDER.find(word)]


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
    assert pronouns.scrub("She met her") == "They met them"
    with pytest.raises(InputError, match="no section"):
        GENDER.subset("weather")


def test_from_words() -> None:
    two = Concept.from_words(["he", "she"], values=("m", "f"))
    assert two.words == ("he", "she")
    assert two.counterfactual("He or she") == "She or he"
    assert two.scrub("so he ran") == "so ran"
    more = Concept.from_words([("good", "bad"), ("great", "awful", "plain")])
    assert more.scrub("a great, good day") == "a plain, day"
    bads: list[Any] = [
        [], ["he"], ["he", "she", "it", "they"], [("he",)], ["he", ("a", "b")], "he", {"he", "she"}, [{"he", "she"}], 5,
    ]  # fmt: skip
    for bad in bads:
        with pytest.raises(InputError, match="two words or a list of pairs"):
            Concept.from_words(bad)
    for bad in ([" he", "she"], ["he", ""], ["he", "she\n"]):
        with pytest.raises(InputError, match=r"spaces around|different words"):
            Concept.from_words(bad)
    with pytest.raises(InputError, match="'values' must be a list, got 'mf'"):
        Concept.from_words(["he", "she"], values="mf")
    with pytest.raises(InputError, match="takes 3 words or a list of rows"):
        Concept.from_words(["he", "she"], values=("a", "b", "c"))


def test_another_concept_from_a_file(tmp_path: Path) -> None:
    content = {
        "name": "spelling",
        "values": ["british", "american"],
        "pairs": [["colour", "color", "hue"], {"a": "lift", "b": "elevator"}],
    }
    for name, text in (("c.json", json.dumps(content)), ("c.yaml", json.dumps(content))):
        path = tmp_path / name
        path.write_text(text)
        concept = Concept.load(path)
        assert concept.counterfactual("The colour of the Elevator") == "The color of the Lift"
        assert concept.values == ("british", "american")
        assert concept.sections == ("words",)


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
        ("pairs: he", "'pairs' must be a list, got 'he'"),
        ("pairs: [he]", "is not a pair"),
        ("pairs: [[he]]", "is not a pair"),
        ("pairs: [[he, 5]]", "is not a pair"),
        ("pairs: [[he, she, they, title]]", "is not a pair"),
        ("pairs: [{a: he, b: she, case: loud}]", "is not a pair"),
        ("pairs: [{a: he, b: she, mood: good}]", "is not a pair"),
        ("pairs: [5]", "is not a pair"),
        (
            "pairs: [{a: he, b: she, when: rainy}]",
            "'title' or 'person' (got 'rainy')",
        ),
        ("pairs: [{a: he, b: she, only: c}]", "is not a pair"),
        ("pairs: [[he, he]]", "two different words"),
        ("pairs: [[he, '']]", "two different words"),
        ("pairs: [[he, she], [she, it]]", "both sides"),
        ("values: [a]\npairs: [[he, she]]", "two different values"),
        ("values: male\npairs: [[he, she]]", "must be a list"),
        ("name: empty", "is empty"),
        (
            "seed_texts: {a: [x], b: [y]}",
            "give them as AnnotatedTexts(texts, sensitive_features), or --annotated",
        ),
        ("{", "as YAML"),
        ("pairs: [[he, she]]\nignore: isle of man", "'ignore' must be a list, got 'isle of man'"),
        ("pairs: [[he, she]]\nnot_possessed: the", "'not_possessed' must be a list"),
        ("pairs: [[he, she]]\npersons: man", "'persons' must be a list"),
        ("pairs: [[he, she]]\nignore: [5]", "'ignore' must hold strings, got 5"),
        ("pairs: [[he, she]]\nignore: [' a man']", "spaces around it"),
        ("pairs: [[he, she]]\nvalues: [1, true]", "'values' must hold strings"),
        ("pairs: [[he, she]]\nvalues: [a, a]", "two different values"),
        ("pairs: [[he, she]]\nname: [x]", "'name' must be a string"),
        ("pairs: [[he, ' she']]", "' she' is no word"),
        ("pairs: [[he, 'the  girl']]", "doubled inside"),
        ("pairs: [[he, she, ' they']]", "' they' is no word"),
        ("pairs: [[he, she]]\npairs: [[him, her]]", "given twice"),
        ("pairs: [[he, she]]\na_an: 5", "'a_an' true or false"),
        ("pairs: [[he, she]]\nvalues: []", "two different values"),
        ("pairs: [{a: black, b: white, when: person}]", "give the list 'persons'"),
        ("values: [a, b, c]\npairs: [[he, she]]", "write a 'table'"),
        ("values: [a, b, c]\ntable: [[he, she]]", "is not a row of words; expected a list of 3 words"),
        ("values: [a, b, c]\ntable: [[he, she, it, one, us]]", "is not a row"),
        ("values: [a, b, c]\ntable: [{words: [he, she, it], only: d}]", "is not a row"),
        ("values: [a, b, c]\ntable: [{words: [he, she]}]", "is not a row"),
        ("values: [a, b, c]\ntable: [{words: [he, she, it], tone: low}]", "is not a row"),
        ("values: [a, b, c]\ntable: [{words: [he, she, 3]}]", "is not a row"),
        ("values: [a, b, c]\ntable: [{words: [x, y, z], when: now}]", "when: Input should be"),
        ("values: [a, b, c]\ntable: [{words: [~, ~, ~]}]", "no word that counts"),
        ("values: [a, b, c]\ntable: [{words: [~, y, z], only: a}]", "no word that counts"),
        ("values: [a, b, c]\ntable: [[x, y, z], [p, x, q]]", "['x'] stand on the side of several values"),
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
    for bad in (("he", "she"), (("he",),), ({"he": "she"},), (5,)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="not a pair of words"):
            Concept(pairs=bad)  # type: ignore[arg-type]


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"known: .*gender.*or give a \.yaml"):
        Concept.load("species")
    with pytest.raises(InputError, match="There is no file"):
        Concept.load(tmp_path / "none.yaml")


def test_only_one_side_of_a_pair_counts() -> None:
    concept = Concept(
        pairs=(WordRow(("host", "hostess"), "host", only=(1,)), WordRow(("don", "lady"), only=(0,)))
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


def test_strings_are_not_taken_for_lists() -> None:
    with pytest.raises(InputError, match="'optional' must be a list"):
        Concept.load("gender", optional="names")
    with pytest.raises(InputError, match="one string"):
        GENDER.counterfactual_pairs("he and she")
    with pytest.raises(InputError, match="'pairs' must be a list"):
        Concept(pairs={("he", "she"), ("dad", "mum")})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="named by a string or a path, got 5"):
        Concept.load(5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="indices of values"):
        Concept(pairs=(WordRow(("x", "y"), only=(3,)),))
    for told in ({"words": "xy"}, {"words": ("x", "y"), "only": "a"}, {"words": {"x", "y"}}):
        with pytest.raises(InputError, match="Input should be a valid tuple"):
            WordRow(**told)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is not a row of words; expected a list of 3 words"):
        Concept(pairs=(("x", "y"),), values=("a", "b", "c"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one is NoneType"):
        GENDER.counterfactual_pairs(["he", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="'ignore' must be a list"):
        Concept(pairs=(("man", "woman"),), ignore="isle of man")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ more than two values


def test_each_word_is_said_for_the_value_asked_for() -> None:
    text = "A Jewish nurse prays at the SYNAGOGUE."
    assert FAITHS.counterfactual(text, to="m") == "A Muslim nurse prays at the MOSQUE."
    assert FAITHS.counterfactual(text, to="c") == "A Christian nurse prays at the CHURCH."
    assert FAITHS.counterfactual(text, to="j") == text
    assert FAITHS.counterfactual("A nurse.", to="m") is None
    assert FAITHS.scrub(text) == "A nurse prays at the HALL."
    assert [FAITHS.values[span.value] for span in FAITHS.find(text)] == ["j", "j"]
    assert FAITHS.words_of("m") == ("muslim", "mosque", "rug")
    with pytest.raises(InputError, match="no value 'x'"):
        FAITHS.counterfactual(text, to="x")
    assert GENDER.counterfactual("He met his wife", to="male") == "He met his husband"


SAID = st.lists(
    st.tuples(
        st.sampled_from([*FAITHS.words, "nurse", "prays", "the", "--"]),
        st.sampled_from([str.lower, str.upper, str.capitalize]),
    ),
    max_size=10,
).map(lambda rows: " ".join(change(word) for word, change in rows))


@given(SAID, st.sampled_from(FAITHS.values))
def test_the_counterfactual_of_a_counterfactual_is_the_text(text: str, to: str) -> None:
    values = {FAITHS.values[span.value] for span in FAITHS.find(text)}
    there = FAITHS.counterfactual(text, to=to)
    if there is None:
        assert not values
        return
    assert {FAITHS.values[span.value] for span in FAITHS.find(there)} == {to}
    if len(values) == 1:
        assert FAITHS.counterfactual(there, to=values.pop()) == text


@given(TEXTS)
def test_swapping_one_to_one_words_twice_gives_the_text(text: str) -> None:
    rows = [("he", "she"), ("father", "mother"), ("father-in-law", "mother-in-law")]
    kinship = Concept.from_words(rows)
    there = kinship.counterfactual(text)
    assert there is None or kinship.counterfactual(there) == text


@given(SAID, st.permutations(FAITHS.pairs))
def test_the_order_of_rows_changes_nothing(text: str, rows: list[WordRow]) -> None:
    other = replace(FAITHS, pairs=tuple(rows))
    assert other.counterfactual(text) == FAITHS.counterfactual(text)
    assert other.scrub(text) == FAITHS.scrub(text)
    assert other.counterfactual_pairs([text]) == FAITHS.counterfactual_pairs([text])


RELIGIOUS = st.lists(
    st.sampled_from([*RELIGION.words, "a", "an", "The", "nurse", ".", "Hans Christian", "Christmas Island"]),
    max_size=8,
).map(" ".join)


@given(RELIGIOUS)
def test_spans_scrubbing_and_pairs_of_a_shipped_table(text: str) -> None:
    spans = RELIGION.find(text)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    for span in spans:
        word = " ".join(text[span.start : span.end].split()).lower()
        assert word in {word.lower() for word in RELIGION.words_of(RELIGION.values[span.value])}
    scrubbed = RELIGION.scrub(text)
    assert RELIGION.scrub(scrubbed) == scrubbed
    assert not RELIGION.find(scrubbed)
    for pair in RELIGION.counterfactual_pairs([text]):
        check_pair(RELIGION, text, pair)


def test_a_gap_leaves_a_text_without_that_counterfactual() -> None:
    concept = Concept(
        pairs=(WordRow(("church", "mosque", "temple")), WordRow(("", "halal", "kosher"))),
        values=("c", "m", "j"),
    )
    assert concept.counterfactual("halal at the mosque", to="j") == "kosher at the temple"
    assert concept.counterfactual("halal at the mosque", to="c") is None
    assert concept.counterfactual("halal at the mosque") == "kosher at the temple"
    assert concept.counterfactual_pairs(["halal"])[0].values == (1, 2)
    alone = Concept(pairs=(WordRow(("", "halal"), "fit"),), values=("c", "m"))
    assert (alone.counterfactual("halal"), alone.scrub("Halal"), alone.counterfactual_pairs(["halal"])) == (
        None, "Fit", [],
    )  # fmt: skip
    with pytest.raises(InputError, match="fill the gaps"):
        alone.check_occurs(["halal"])
    texts = ["the church", "nothing", "a mosque", "the temple"]
    assert [concept.check_occurs(texts, enough) for enough in (1, 2, 9)] == [1, 2, 3]


def test_only_restricts_the_cues_of_a_row() -> None:
    concept = Concept(
        pairs=(WordRow(("church", "mosque", "temple"), only=(0, 1)),), values=("c", "m", "j"), name="places"
    )
    assert concept.words == ("church", "mosque")
    assert concept.counterfactual("the mosque and the temple", to="j") == "the temple and the temple"
    assert Concept.from_dict(concept.to_dict()) == concept
    assert concept.to_dict()["table"] == {
        "words": [{"words": ["church", "mosque", "temple"], "only": ["c", "m"]}]
    }


def test_the_other_value_is_drawn_in_balance_and_by_the_seed() -> None:
    texts = ["the church"] * 30 + ["the mosque", "a pew", "the bench"] * 30 + ["a mosque, a mosque, a church"]
    pairs = FAITHS.counterfactual_pairs(texts)
    assert Counter(pair.values for pair in pairs[:30]) == {(0, 1): 15, (0, 2): 15}
    assert Counter(pair.values for pair in pairs[:-1]) == {(0, 1): 40, (0, 2): 40, (1, 2): 40}
    assert all(1 in pair.values for pair in pairs[30:-1:3])
    assert FAITHS.counterfactual_pairs(texts) == pairs
    assert FAITHS.counterfactual_pairs(texts, random_state=1) != pairs
    assert set(pairs[-1].sides) not in ({1}, {-1})
    assert 1 in pairs[-1].values
    each = Counter(FAITHS.counterfactual(f"the church of {i}") for i in range(100))
    kinds = Counter(str(text).split()[1] for text in each)
    assert set(kinds) == {"mosque", "synagogue"}
    assert min(kinds.values()) > 30


@pytest.mark.parametrize(
    ("name", "text", "to", "expected"),
    [
        ("nationality", "An American surgeon", "french", "A French surgeon"),
        ("nationality", "a European from France, AN INDIAN", "italian", "a European from Italy, AN INDIAN"),
        ("nationality", "in the U.S. and the US Army", "german", "in Germany and the German Army"),
        ("nationality", "Germany has towns, and Germany", "american",
         "The United States has towns, and the United States"),
        ("nationality", "She speaks French in Paris", "british", "She speaks French in London"),
        ("ethnicity", "an Asian woman in a black dress", "black", "a black woman in a black dress"),
        ("ethnicity", "an African American nurse", "white", "a European American nurse"),
        ("ethnicity", "Asian markets, a white wall", "black", None),
        ("age", "an old man and his old friend", "young", "a young man and his old friend"),
        ("age", "an 18-year-old nurse", "old", "a 68-year-old nurse"),
        ("religion", "Hans Christian met an imam.", "christian", "Hans Christian met a priest."),
        ("religion", "the temple", "muslim", None),
        ("disability", "a blind man in a blind spot", "nondisabled", "a sighted man in a blind spot"),
        ("sexual_orientation", "a straight line, a straight couple", "gay", "a straight line, a gay couple"),
        ("gender_es", "La profesora vive en la casa del señor García.", None,
         "El profesor vive en la casa de la señora García."),
        ("gender_es", "La dentista y el médico; el personal médico", None,
         "El dentista y la médica; el personal médico"),
        ("gender_de", "Der Arzt gab seiner Frau ein Buch.", None, "Die Ärztin gab ihrer Mann ein Buch."),
        ("gender_de", "Herr Müller half einer Lehrerin.", None, "Frau Müller half einem Lehrer."),
        ("gender_de", "Das kann sein und sie kommt.", None, None),
    ],
)  # fmt: skip
def test_shipped_concepts(name: str, text: str, to: str | None, expected: str | None) -> None:
    found = Concept.load(name).counterfactual(text, to=to)
    assert found == expected


@pytest.mark.parametrize("name", Concept.shipped())
def test_every_shipped_concept_is_sound(name: str) -> None:
    concept = Concept.load(name)
    concept = concept.with_optional(*sorted({row.section for row in concept.optional}))
    assert Concept.from_dict(json.loads(json.dumps(concept.to_dict()))) == concept
    neutral = {row.neutral for row in concept.pairs if row.neutral}
    assert not [word for word in neutral if concept.find(word)]
    head = Concept.path(name).read_text(encoding="utf-8").split("name:")[0].replace("\n# ", " ")
    assert "general knowledge" in head
    assert "Limits." in head
    for value in concept.values:
        assert concept.words_of(value)
        for word in concept.words_of(value):
            row = next(row for row in concept.pairs if word in row.words)
            after = {"": "", "person": f" {min(concept.persons, default='')}", "title": " Smith"}.get(
                row.when, " work"
            )
            spans = concept.find(word + after)
            assert not spans or concept.values[spans[0].value] == value


def test_accents_in_one_character_or_two() -> None:
    concept = Concept.from_words(["fiancé", "fiancée"])
    assert concept.counterfactual("her fiance\u0301 left") == "her fiancée left"
    assert Concept.from_words(["fiance", "x"]).counterfactual("her fiance\u0301 left") is None
    assert Concept.from_words(["ma’am", "sir"]).counterfactual("Yes, ma'am") == "Yes, sir"


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("gender_es", ["La profesora habló con el abuelo de la niña.", "Los niños y él esperan al médico."]),
        ("gender_de", ["Die Ärztin half dem Großvater.", "Herr Öztürk ist ein Schüler; die Männer und er."]),
    ],
)
def test_spans_meet_the_tokens_of_a_multilingual_tokenizer(name: str, texts: list[str]) -> None:
    """A byte-level tokenizer cuts accented letters; the tokens at a span must spell its word and no other."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=300)
    concept = Concept.load(name)
    for pair in concept.counterfactual_pairs(texts):
        outside = []
        for text, spans in ((pair.text_a, pair.spans_a), (pair.text_b, pair.spans_b)):
            offsets = tokenizer.encode(text).offsets
            at = [any(first < end and last > start for start, end in spans) for first, last in offsets]
            for start, end in spans:
                own = [(a, b) for a, b in offsets if a < end and b > start]
                assert text[min(a for a, _ in own) : max(b for _, b in own)].strip() == text[start:end]
            outside.append([text[a:b] for (a, b), inside in zip(offsets, at, strict=True) if not inside])
        assert outside[0] == outside[1]


def test_usage_counts_words_values_and_gaps() -> None:
    concept = Concept(
        pairs=(
            WordRow(("church", "mosque", "temple")),
            WordRow(("", "halal", "")),
            WordRow(("Pew", "x", "y"), case="exact"),
        ),
        values=("c", "m", "j"),
    )
    usage = concept_usage(concept, ["the church, a pew", "halal", "a church and a mosque", "nothing", "Pew"])
    assert (usage.n_texts, usage.n_marked, usage.n_mixed, usage.n_without_counterfactual) == (5, 4, 1, 1)
    assert usage.texts_of == {"c": 3, "m": 2, "j": 0}
    assert usage.texts_of["j"] == 0
    words = {word.word: word for word in usage.words}
    assert (words["church"].n, words["mosque"].n, words["temple"].n) == (2, 1, 0)
    assert (words["Pew"].n, words["Pew"].passed_over) == (1, 1)
    assert usage.swapped == (0, 2, 4)


@pytest.mark.realdata
def test_seven_identities_of_hatecheck(data_dir: Path) -> None:
    """Its cases of one template differ in the identity alone: a table of three rows writes one from the other."""
    table = pd.read_parquet(data_dir / "hatecheck" / "data.parquet").dropna(subset="identity")
    people = (
        "women",
        "trans people",
        "gay people",
        "black people",
        "disabled people",
        "Muslims",
        "immigrants",
    )
    one = ("woman", "trans person", "gay person", "black person", "disabled person", "Muslim", "immigrant")
    kind = ("female", "trans", "gay", "black", "disabled", "Muslim", "immigrant")
    # Muslim and immigrant are nouns and adjectives, so as cues they stand for the noun
    rows = (WordRow(people), WordRow(one), WordRow(kind, only=(0, 1, 2, 3, 4)))
    concept = Concept(pairs=rows, values=people, a_an=True)
    cases = {(row.template, row.identity): row.text for row in table.itertuples()}
    told = [
        (identity, concept.counterfactual(text, to=other) == cases[template, other])
        for (template, identity), text in cases.items()
        if concept.find(text)
        for other in people
        if other != identity and (template, other) in cases
    ]
    assert len(told) > 15_000
    assert np.mean([right for identity, right in told if identity not in people[5:]]) > 0.99
    assert np.mean([right for _, right in told]) > 0.97


PAGE = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_give_what_it_shows() -> None:
    parser, told = doctest.DocTestParser(), []
    runner = doctest.DocTestRunner(verbose=False)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        test = parser.get_doctest(block, names, "docs/concepts.md", None, 0)
        runner.run(test, out=told.append, clear_globs=False)
        names = test.globs
    assert runner.summarize(verbose=False).attempted >= 18
    assert not told, "".join(told)


def test_the_files_of_the_page_are_concepts() -> None:
    sentiment, continent = (
        Concept.from_dict(parse_yaml(block, "the page"))
        for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    )
    assert sentiment.counterfactual("a good host, a hostess") == "a bad host, a host"
    assert continent.counterfactual("An Asian artist in Tokyo", to="european") == "A European artist in Paris"
    assert continent.scrub("the steppe of Asia") == "the grassland of the continent"
    table = re.findall(r"\| `(\w+)` \| (\d+) \| (\d+) \|", PAGE)
    loaded = [Concept.load(name) for name in Concept.shipped()]
    assert sorted(table) == [(c.name, str(len(c.values)), str(len(c.pairs))) for c in loaded]


def test_the_commands_of_the_page_exist() -> None:
    for command in re.findall(r"^debias-ssae (concept \w+) (.*)$", PAGE, re.MULTILINE):
        shown = CliRunner().invoke(main, [*command[0].split(), "--help"]).output
        assert "Usage" in shown
        assert all(option in shown for option in re.findall(r"--\w+", command[1]))


KEYS = [
    "name", "values", "pairs", "table", "optional", "ignore", "not_possessed", "persons", "a_an", "seed_texts",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.sampled_from(["a", "b", "he", "she", " x"]),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "words", "neutral", "when", "only", "case", 5]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
ROWS = st.lists(ANYTHING | st.just(["he", "she"]) | st.just({"a": "him", "b": "her"}), max_size=3)


@given(
    st.dictionaries(
        st.sampled_from(KEYS), ANYTHING | ROWS | st.just(["a", "b"]) | st.just(["a", "b", "c"]), max_size=4
    )
)
def test_any_mapping_is_a_concept_or_one_clear_line(content: dict[str, Any]) -> None:
    concept, told = None, ""
    try:
        concept = Concept.from_dict(content, source="file.yaml")
    except InputError as error:
        told = str(error)
    if concept is None:
        assert told.startswith("file.yaml")
        assert "\n" not in told
        return
    assert Concept.from_dict(json.loads(json.dumps(concept.to_dict()))) == concept
    concept.counterfactual_pairs(["he saw her", "a b"])
    assert concept.scrub(concept.scrub("he saw her")) == concept.scrub("he saw her")
