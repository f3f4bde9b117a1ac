"""Controls: random swaps of as many words, and random latents alike in firing rate."""

import re
from collections import Counter

import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.selection import random_swaps
from debias_ssae.selection.pairs import N_SWAPS
from debias_ssae.text import synthetic_biographies
from debias_ssae.text.concept import Concept

TEXTS = synthetic_biographies(400, correlation=1.0, n_professions=6, random_state=0).text.tolist()


def test_random_swaps_are_as_many_and_touch_no_listed_word() -> None:
    concept = Concept.load("gender")
    control = random_swaps(TEXTS, concept, random_state=0)
    counts = Counter(re.findall(r"[a-z]+", " ".join(TEXTS).casefold()))
    mine, theirs = ({w.casefold() for w in c.words} for c in (concept, control))
    assert len(control.pairs) == N_SWAPS
    assert not mine & theirs
    ratio = sum(counts[w] for w in theirs) / sum(counts[w] for w in mine)
    assert 0.2 < ratio < 5
    assert random_swaps(TEXTS, concept, random_state=0).words == control.words
    assert random_swaps(TEXTS, concept, random_state=1).words != control.words


def test_words_of_other_scripts_are_words() -> None:
    letters = "абвгдежзиклмнопрстуфхц"
    words = [a + b + "ö" for a in letters for b in letters]
    concept = Concept.from_words(["он", "она"])
    control = random_swaps([" ".join(["он", *words]), " ".join(["она", *words])], concept, random_state=0)
    assert set(control.words) <= set(words)


def test_too_few_words() -> None:
    with pytest.raises(InputError, match="too few"):
        random_swaps(["he and she walk"], Concept.load("gender"))
