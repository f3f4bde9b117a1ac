"""What is refused, is refused before anything is trained, and leaves nothing fitted."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from small_debiaser import CONFIG

from debias_ssae import Concept, SSAEDebiaser
from debias_ssae.baselines import TokenMask
from debias_ssae.core.errors import FewWordsWarning, InputError
from debias_ssae.debiaser import training
from debias_ssae.debiaser.inputs import read_fit
from debias_ssae.debiaser.output import FROM_LABELS
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.selection.attribute import Nothing


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any training fails the test."""

    def trained(*args: Any, **options: Any) -> None:
        pytest.fail("an SAE was trained")

    monkeypatch.setattr(training, "learn_ssae", trained)


@pytest.mark.parametrize(
    ("encoder", "parameters", "message"),
    [
        ({"pooling": "cls"}, {"hookpoint": "final"}, 'use pooling="mean"'),
        ({"pooling": "cls"}, {"hookpoint": "blocks.1"}, 'use pooling="mean"'),
        ({"pooling": "cls"}, {"hookpoint": ["embeddings", "final"]}, "an edit at final changes nothing"),
        ({"pooling": "middle"}, {}, "Unknown pooling"),
        ({"layer": "blocks.0"}, {"hookpoint": "blocks.1"}, "name an earlier hookpoint or a later layer"),
        ({}, {"hookpoint": "blocks.9"}, "blocks.9"),
        ({}, {"hookpoint": []}, "hookpoint is empty"),
        ({}, {"sae": {"embedding": "one"}}, "'embedding', but edited are embeddings"),
        ({}, {"hookpoint": ["embeddings", "final"], "sae": "one"}, "a mapping of hookpoint to sae"),
        ({}, {"output_eraser": "leace"}, "needs labels"),
        ({}, {"output_eraser": "leace", "alpha": 0.5}, "only the value 'f'"),
        ({}, {"output_eraser": "mean_difference"}, "needs labels"),
        ({}, {"output_eraser": "counterfactual", "attribute": None}, "needs a concept"),
        ({}, {"attribute": Concept.from_words(["zyx", "xyz"])}, "holds a word of the concept"),
        ({}, {"output_eraser": "counterfactual", "attribute": Nothing()}, "needs a concept as attribute"),
        ({}, {"alpha": float("nan")}, "alpha is nan"),
        ({}, {"alpha": -1}, "alpha is -1"),
        ({}, {"alpha": "x"}, "alpha is 'x'"),
        ({}, {"hookpoint": None}, "hookpoint is None"),
        ({}, {"config": {"d_seo": 64}}, "d_seo: unknown name; did you mean d_sae"),
        ({}, {"config": 5}, "the configuration is 5; expected a mapping"),
        ({}, {"attribute": 5}, "attribute is int; expected the name of a concept"),
        ({}, {"attribute": ["he", "she"]}, "Concept.from_words"),
        ({}, {"attribute": []}, "attribute is an empty list"),
        (
            {},
            {"config": CONFIG.updated(selection={"min_cell": 10**6}), "attribute": None},
            "1000000 rows each",
        ),
    ],
)
@pytest.mark.usefixtures("untrained")
def test_refused_before_training(
    encoder: Any, parameters: Any, message: str, small_encoder: Path, texts: list[str], concept: Concept
) -> None:
    made = ActivationEncoder(str(small_encoder), dtype="float32", **encoder)
    debiaser = SSAEDebiaser(made, **{"attribute": concept, "config": CONFIG, **parameters})
    z = None if debiaser.output_eraser in FROM_LABELS else np.arange(len(texts)) % 3 % 2
    z = np.array(["f"] * len(texts)) if debiaser.alpha == 0.5 else z
    with pytest.raises(InputError, match=message):
        debiaser.fit(texts, np.arange(len(texts)) % 2, sensitive_features=z)
    with pytest.raises(NotFittedError):
        debiaser.transform(texts)


def test_words_that_hardly_occur_are_said(small_encoder: Path, concept: Concept) -> None:
    debiaser = SSAEDebiaser(str(small_encoder), attribute=concept, config=CONFIG)
    texts = [f"works in the city for {i} years" for i in range(99)] + ["she works"]
    with pytest.warns(FewWordsWarning, match="only 1 of 100 texts"):
        read_fit(debiaser, texts, None, None, None)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"output_eraser": "counterfactual"}, "needs texts"),
        ({"output_eraser": "leace"}, "needs labels"),
        ({"attribute": "gender"}, "a concept swaps words and needs texts"),
        ({"sae": 5}, "sae is int; expected a path"),
    ],
)
def test_a_matrix_has_no_words_and_may_have_no_labels(parameters: Any, message: str) -> None:
    debiaser = SSAEDebiaser(config=CONFIG, **parameters)
    with pytest.raises(InputError, match=message):
        debiaser.fit(np.ones((9, 4)))
    with pytest.raises(NotFittedError):
        debiaser.transform(np.ones((9, 4)))


@pytest.mark.parametrize(
    ("y", "z", "message"),
    [
        (np.array([1, "a"] * 20, dtype=object), np.arange(40) % 4 // 2, "y holds values that are no labels"),
        (None, 3, "sensitive_features is int; expected an array"),
        (np.arange(40.0), np.arange(40) % 2, "no class of the target holds two attribute values with 5 rows"),
        (np.arange(40) % 2, np.arange(40), "no class of the target holds two attribute values"),
    ],
)
def test_labels_are_looked_at_before_a_matrix_trains(y: Any, z: Any, message: str) -> None:
    X = np.ones((40, 4))  # which training refuses
    with pytest.raises(InputError, match=message):
        SSAEDebiaser(config=CONFIG).fit(X, y, sensitive_features=z)
    with pytest.raises(InputError, match="do not vary"):
        SSAEDebiaser(config=CONFIG).fit(X, sensitive_features=np.arange(40) % 2)


def test_texts_without_an_encoder_name_the_parameter_that_was_forgotten(texts: list[str]) -> None:
    with pytest.raises(InputError, match="encoder is None; name one"):
        SSAEDebiaser(attribute="gender").fit(texts)


def test_a_fit_that_fails_takes_the_earlier_one_with_it(texts: list[str]) -> None:
    X = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    debiaser = SSAEDebiaser(config=CONFIG, random_state=0).fit(X, sensitive_features=X[:, 0] > 0)
    with pytest.raises(InputError, match="only the value"):
        debiaser.fit(X, sensitive_features=np.zeros(100))
    with pytest.raises(NotFittedError):
        debiaser.transform(X)


def test_a_tokenizer_without_spans_is_refused_with_words(small_encoder: Path, untrained: None) -> None:
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    slow = replace(encoder.language_model, tokenizer=SimpleNamespace(is_fast=False))
    encoder.__dict__["loaded"] = slow
    with pytest.raises(InputError, match="fast tokenizer"):
        encoder.language_model.check_spans()
    with pytest.raises(InputError, match="fast tokenizer"):
        TokenMask(encoder, "gender").transform(["he works"])
