"""The concept contrast on MiniLM's embeddings: what changes between counterfactuals, in context."""

import numpy as np
import pytest
import torch

from debias_ssae.core.config import SAEConfig, SelectionConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel, harvest
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.sae.training import shuffled_batches, train_sae
from debias_ssae.selection.pairs import harvest_pairs
from debias_ssae.selection.scores import pooled_latents
from debias_ssae.selection.select import select_from_concept
from debias_ssae.text import synthetic_biographies
from debias_ssae.text.concept import Concept, WordRow

TEXTS = synthetic_biographies(200, correlation=1.0, n_professions=2, random_state=0).text.tolist()


@pytest.fixture(scope="module")
def sae(minilm: LanguageModel) -> SparseAutoencoder:
    x = harvest(minilm, TEXTS).x
    config = SAEConfig(d_in=x.shape[1], d_sae=256, k=16)
    return train_sae(
        shuffled_batches(x, 512, 0), config, TrainConfig(n_steps=60, batch_size=512), random_state=0
    ).sae


def test_scores_equal_a_direct_computation(minilm: LanguageModel, sae: SparseAutoencoder) -> None:
    concept = Concept.from_words([("he", "she"), ("his", "her")], values=("male", "female"))
    texts = ["He runs his clinic.", "A clinic.", "Today she sang."]
    pairs = [("He runs his clinic.", "She runs her clinic."), ("Today he sang.", "Today she sang.")]
    changes = []
    for a, b in pairs:
        rows = [harvest(minilm, [text]) for text in (a, b)]
        words = (0, 2) if a.startswith("He") else (1,)
        with torch.no_grad():
            f = [sae.encode(r.x).numpy() for r in rows]
        changes += [f[1][w] - f[0][w] for w in words]
    expected = np.mean(changes, axis=0)
    scores = harvest_pairs(minilm, texts, concept).contrast(sae)
    assert np.allclose(scores.effect[0], expected, atol=1e-4)
    assert np.allclose(scores.score, np.abs(expected), atol=1e-4)
    assert scores.values == ("male", "female")


def test_reversing_the_concept_reverses_the_signs(minilm: LanguageModel, sae: SparseAutoencoder) -> None:
    he_she = Concept.from_words(["he", "she"], values=("m", "f"))
    she_he = Concept.from_words(["she", "he"], values=("f", "m"))
    a, b = (harvest_pairs(minilm, TEXTS, c, random_state=0).contrast(sae) for c in (he_she, she_he))
    assert np.allclose(a.score, b.score, atol=1e-5)
    assert np.allclose(a.effect, -b.effect, atol=1e-5)


def test_top_latents_answer_to_gender_more_than_others(minilm: LanguageModel, sae: SparseAutoencoder) -> None:
    gender = Concept.load("gender")
    scores = harvest_pairs(minilm, TEXTS, gender, random_state=0).contrast(sae)
    latents, _ = pooled_latents(sae, harvest(minilm, TEXTS))
    female = np.array([" she " in f" {text.lower()} " or " her " in text.lower() for text in TEXTS])
    gap = np.abs(latents[female].mean(0) - latents[~female].mean(0))
    assert gap[scores.top(5)].mean() > 5 * np.median(gap)
    wording_a = [counterfactual.text_a for counterfactual in gender.counterfactual_pairs(TEXTS)]
    assert np.allclose(scores.firing_rate, pooled_latents(sae, harvest(minilm, wording_a))[1], atol=1e-3)


def test_a_concept_that_does_not_occur(minilm: LanguageModel) -> None:
    with pytest.raises(InputError, match="none of the 1 texts"):
        harvest_pairs(minilm, ["nothing here"], Concept.from_words(["king", "queen"]))


def test_pooled_latents_are_means_over_a_text(minilm: LanguageModel, sae: SparseAutoencoder) -> None:
    rows = harvest(minilm, ["she runs a clinic", "", "surgery"])
    latents, firing = pooled_latents(sae, rows)
    with torch.no_grad():
        f = sae.encode(rows.x).numpy()
    assert np.allclose(latents[0], f[rows.text_ids.numpy() == 0].mean(0), atol=1e-5)
    assert not latents[1].any()
    assert np.allclose(firing, (f > 0).mean(0))


FAITHS = Concept.from_words(
    [("christian", "muslim", "jewish"), ("church", "mosque", "synagogue")],
    values=("c", "m", "j"),
    name="faiths",
)
FAITHFUL = [
    f"The {who} nurse {does} near the {where} in {town}."
    for who, where in (("Christian", "church"), ("Muslim", "mosque"), ("Jewish", "synagogue"))
    for does in ("lives", "works", "sings", "reads", "prays")
    for town in ("Leeds", "York", "Bath", "Derby", "Hull", "Ripon")
]


def test_of_many_values_the_largest_change_towards_one_counts(
    minilm: LanguageModel, sae: SparseAutoencoder
) -> None:
    scores = harvest_pairs(minilm, FAITHFUL, FAITHS, random_state=0).contrast(sae)
    rng = np.random.default_rng(0)
    pairs = FAITHS.counterfactual_pairs([FAITHFUL[i] for i in rng.permutation(len(FAITHFUL))])
    towards: list[list[np.ndarray]] = [[], [], []]
    for pair in pairs:
        means = []
        for text, spans in ((pair.text_a, pair.spans_a), (pair.text_b, pair.spans_b)):
            rows = harvest(minilm, [text])
            with torch.no_grad():
                f = sae.encode(rows.x).numpy()
            offsets = rows.offsets.numpy()
            at = [(offsets[:, 0] < end) & (offsets[:, 1] > start) for start, end in spans]
            means.append([f[where].mean(axis=0) for where in at])
        for a, b in zip(*means, strict=True):
            towards[pair.values[1]].append(b - a)
            towards[pair.values[0]].append(a - b)
    each = np.stack([np.mean(changes, axis=0) for changes in towards])
    assert np.allclose(scores.score, np.abs(each).max(axis=0), atol=1e-4)
    assert scores.values == ("c", "m", "j")
    best = scores.top(3)
    assert (np.abs(each[:, best]).max(axis=0) > 0.05).all()
    assert np.array_equal(scores.sign[best], np.sign(each[np.abs(each).argmax(axis=0), np.arange(256)])[best])


def test_a_concept_of_two_values_written_as_a_table_scores_alike(
    minilm: LanguageModel, sae: SparseAutoencoder
) -> None:
    pair = Concept.from_words(["he", "she"], values=("m", "f"))
    table = Concept(pairs=(WordRow(("he", "she")),), values=("m", "f"))
    a, b = (harvest_pairs(minilm, TEXTS, c, random_state=0).contrast(sae) for c in (pair, table))
    assert np.array_equal(a.score, b.score)
    assert np.array_equal(a.effect, b.effect)


def test_many_values_are_selected_for_without_the_probe_of_two(
    minilm: LanguageModel, sae: SparseAutoencoder
) -> None:
    config = SelectionConfig(max_texts=90)
    selection, without = (
        select_from_concept(minilm, sae, FAITHFUL, FAITHS, settings, random_state=0)
        for settings in (config, config.updated(propagate=False))
    )
    assert len(selection.ids) > 0
    assert selection.ids.tolist() == without.ids.tolist()
