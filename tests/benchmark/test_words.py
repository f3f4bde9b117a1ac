"""Words of another attribute than the one that is judged are noticed."""

import numpy as np

from debias_ssae.benchmark.words import LEAST, association
from debias_ssae.text.concept import Concept

GENDER = Concept.load("gender")
TEXTS = [
    "He is a surgeon.",
    "She is a nurse.",
    "They work here.",
    "He and his wife; she is a nurse, her job.",
] * 50


def test_the_attributes_own_words_go_with_it() -> None:
    assert association(GENDER, TEXTS, ["m", "f", "m", "f"] * 50) > 0.7
    assert association(GENDER, TEXTS, [0, 1, 2, 1] * 50) > 0.9


def test_another_attributes_do_not() -> None:
    values = np.random.default_rng(0).choice(["black, Latin", "white", "other"], 3000)
    texts = [TEXTS[i] for i in np.random.default_rng(1).integers(0, 4, 3000)]
    assert association(GENDER, texts, values) < LEAST
    assert association(GENDER, ["nothing", "here"], ["a", "b"]) == 0.0
    assert association(GENDER, TEXTS, ["one"] * len(TEXTS)) == 0.0
