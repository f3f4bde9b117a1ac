"""Methods that start from texts: scrubbing, augmentation, token mask, counterfactual subspace."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from debias_ssae.baselines import (
    HOSPITAL_WORDS,
    AugmentedHead,
    ConceptBottleneck,
    CounterfactualSubspace,
    LogisticHead,
    TextScrubber,
    TokenMask,
    augment_with_counterfactuals,
)
from debias_ssae.core.errors import InputError
from debias_ssae.erase import fit_counterfactual, sufficient_components
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text import synthetic_biographies
from debias_ssae.text.concept import Concept

GENDER = Concept.load("gender")
SHORT = [
    "He finished his work.",
    "She met her friends in the park.",
    "The bridge was closed because of fog.",
    "Mr. Jones told the actress that Ms. Smith had left.",
]


def test_scrubber_takes_names_only_when_asked() -> None:
    texts = ["Mary gave her book away."]
    assert TextScrubber().fit(texts).transform(texts) == ["Mary gave their book away."]
    assert TextScrubber(optional=("names",)).transform(texts) == ["Alex gave their book away."]
    assert TextScrubber(GENDER.subset("kinship")).fit(texts).transform(texts) == texts
    assert make_pipeline(TextScrubber()).fit_transform(texts) == ["Mary gave their book away."]


def test_text_methods_tell_scikit_learn_that_they_take_strings(encoder: ActivationEncoder) -> None:
    for estimator in (TextScrubber(), TokenMask(encoder)):
        tags = get_tags(estimator).input_tags
        assert (tags.string, tags.two_d_array) == (True, False)


def test_augmentation_adds_the_swapped_copies() -> None:
    texts, y = augment_with_counterfactuals(SHORT, [0, 1, 2, 3], GENDER)
    assert texts[:4] == SHORT
    assert texts[4:6] == ["She finished her work.", "He met his friends in the park."]
    assert y.tolist() == [0, 1, 2, 3, 0, 1, 3]
    with pytest.raises(InputError, match="must agree"):
        augment_with_counterfactuals(SHORT, [0], GENDER)
    with pytest.raises(InputError, match="none of the 1 texts"):
        augment_with_counterfactuals(SHORT[2:3], [0], GENDER)


def test_an_augmented_head_does_not_see_which_version_a_text_is(encoder: ActivationEncoder) -> None:
    table = synthetic_biographies(120, correlation=1.0, n_professions=2, random_state=0)
    test = synthetic_biographies(60, correlation=0.0, n_professions=2, random_state=1)
    plain = make_pipeline(encoder, LogisticHead()).fit(table.text.tolist(), table.profession)
    augmented = AugmentedHead(encoder).fit(table.text.tolist(), table.profession)

    def worst(predicted: np.ndarray) -> float:
        return (predicted == test.profession).groupby([test.profession, test.gender]).mean().min()

    assert worst(augmented.predict(test.text.tolist())) > worst(plain.predict(test.text.tolist())) + 0.2


def test_token_mask_makes_counterfactuals_equal_and_leaves_other_texts_alone(
    encoder: ActivationEncoder,
) -> None:
    pairs = ["He finished his work.", "She finished her work."]
    plain, masked = encoder.encode(pairs), TokenMask(encoder, GENDER).transform(pairs)
    assert np.abs(plain[0] - plain[1]).max() > 0.01
    np.testing.assert_allclose(masked[0], masked[1], atol=1e-5)
    np.testing.assert_array_equal(
        TokenMask(encoder, GENDER).transform(SHORT[2:3]), encoder.encode(SHORT[2:3])
    )
    np.testing.assert_array_equal(encoder.encode(pairs), plain)  # nothing stays behind in the model


def test_token_mask_agrees_with_a_reference_forward_pass(encoder: ActivationEncoder) -> None:
    model, text = encoder.language_model, "Mr. Jones told the actress that she had left."
    tokens = model.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    vectors = model.module.get_input_embeddings().weight
    embedded = vectors[tokens["input_ids"][0]].clone()
    for i, (start, end) in enumerate(tokens["offset_mapping"][0].tolist()):
        if text[start:end].lower() in ("mr", "actress", "she"):
            embedded[i] = vectors.mean(0)
    with torch.no_grad():
        states = model.module(inputs_embeds=embedded[None], attention_mask=tokens["attention_mask"])
    expected = states.last_hidden_state[0, 1:-1].mean(0)
    plain = encoder.copy().set_params(pooling="mean")
    np.testing.assert_allclose(TokenMask(plain, GENDER).transform([text])[0], expected.numpy(), atol=1e-4)


def test_token_mask_tells_texts_with_equal_tokens_apart(encoder: ActivationEncoder) -> None:
    texts = [
        "Ms Smith runs.",
        "ms Smith runs.",
    ]  # one sequence for an uncased model; only the first holds a title
    masked, plain = TokenMask(encoder, GENDER).transform(texts), encoder.encode(texts)
    np.testing.assert_allclose(plain[0], plain[1], atol=1e-6)
    assert np.abs(masked[0] - plain[0]).max() > 1e-3
    np.testing.assert_allclose(masked[1], plain[1], atol=1e-6)


def test_token_mask_takes_the_mean_of_the_texts_it_was_fitted_on(encoder: ActivationEncoder) -> None:
    fitted = TokenMask(encoder, "gender").fit(["fog"])
    fog = encoder.language_model.tokenizer("fog")["input_ids"][1]
    np.testing.assert_allclose(
        fitted.mean_.numpy(),
        encoder.language_model.module.get_input_embeddings().weight[fog].numpy(),
        atol=1e-6,
    )
    other = TokenMask(encoder, GENDER).fit(["fog"]).transform(SHORT[:1])
    np.testing.assert_allclose(other, fitted.transform(SHORT[:1]), atol=1e-6)
    assert np.abs(other - TokenMask(encoder, GENDER).transform(SHORT[:1])).max() > 1e-4


def test_token_mask_means_are_of_what_the_layer_gives(encoder: ActivationEncoder, monkeypatch: Any) -> None:
    """Gemma and BART scale their rows inside the embedding layer."""
    layer = encoder.language_model.module.get_input_embeddings()
    plain = TokenMask(encoder, "gender").fit(["fog"]).mean_
    handle = layer.register_forward_hook(lambda module, args, output: 3 * output)
    try:
        scaled = TokenMask(encoder, "gender").fit(["fog"]).mean_
    finally:
        handle.remove()
    np.testing.assert_allclose(scaled.numpy(), 3 * plain.numpy(), rtol=1e-5)


def make_pair(n: int = 400, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two versions that differ in a plane, by a shift whose size depends on the text."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d))
    return a, a + np.abs(rng.normal(size=(n, 1)) + 2) * np.eye(d)[0] + rng.normal(size=(n, 1)) * np.eye(d)[1]


def test_counterfactual_directions_find_the_plane_and_make_versions_equal() -> None:
    a, b = make_pair()
    n, accuracies = sufficient_components(a, b, 0)
    probe = LogisticRegression(C=100.0)
    both, version = np.vstack([a, b]), np.repeat([0, 1], len(a))
    assert probe.fit(both, version).score(both, version) > 0.7
    assert accuracies[n] < 0.55
    two = fit_counterfactual(a, b, 2)
    np.testing.assert_allclose(two(a), two(b), atol=1e-8)
    np.testing.assert_allclose(two(both).mean(axis=0), both.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(two(two(a)), two(a), atol=1e-8)
    assert np.linalg.matrix_rank(two(a) - a, tol=1e-8) == 2
    with pytest.raises(InputError, match="no counterfactual differs"):
        fit_counterfactual(a, a)


def test_the_most_components_where_none_is_enough() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 6))
    n, accuracies = sufficient_components(np.tile(a, 2), np.tile(a, 2) * 3 + 5, 0)
    assert max(accuracies) == n


@pytest.mark.parametrize("n_components", [0, "all"])
def test_numbers_of_components_that_are_none(encoder: ActivationEncoder, n_components: Any) -> None:
    with pytest.raises(InputError, match="positive integer"):
        CounterfactualSubspace(encoder, n_components=n_components).fit(SHORT)


def test_counterfactual_subspace_from_texts(encoder: ActivationEncoder) -> None:
    texts = synthetic_biographies(40, correlation=0.0, n_professions=2, random_state=0)["text"].tolist()
    eraser = CounterfactualSubspace(encoder, n_components=10, max_texts=30, random_state=0).fit(texts)
    pairs = GENDER.counterfactual_pairs(texts[:10])
    sides = [[getattr(pair, side) for pair in pairs] for side in ("text_a", "text_b")]
    (a, b), (plain_a, plain_b) = map(eraser.transform, sides), map(encoder.encode, sides)
    assert np.linalg.norm(a - b) / np.linalg.norm(plain_a - plain_b) < 0.6
    with pytest.raises(InputError, match="need two"):
        CounterfactualSubspace(encoder).fit(SHORT[2:3])


def test_bottleneck_gives_one_cosine_a_word(encoder: ActivationEncoder) -> None:
    texts = ["A surgical technique for transplants.", "Home care and medication."]
    X = encoder.encode([*texts, *SHORT])
    bottleneck = ConceptBottleneck(encoder).fit(X)
    out = bottleneck.transform(X)
    assert out.shape == (6, len(HOSPITAL_WORDS)) == (6, 20)
    assert np.abs(out).max() <= 1 + 1e-5
    assert out[1, HOSPITAL_WORDS.index("home care")] > out[0, HOSPITAL_WORDS.index("home care")]
    assert len(bottleneck.get_feature_names_out()) == 20
    with pytest.raises(InputError, match="columns"):
        ConceptBottleneck(encoder).fit(X[:, :5])
