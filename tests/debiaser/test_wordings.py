"""What is read of a concept's wordings once serves every SAE of the hookpoint."""

import pytest
import torch

from debias_ssae.absorption import fill_holes
from debias_ssae.activations import LanguageModel, harvest
from debias_ssae.attribution import SwappedWords
from debias_ssae.concept import Concept
from debias_ssae.config import ActivationConfig, SAEConfig, SelectionConfig, TrainConfig
from debias_ssae.datasets import synthetic_biographies
from debias_ssae.debiaser.finding import rank_from_concept, rank_from_wordings
from debias_ssae.debiaser.wordings import Wordings, read_wordings
from debias_ssae.exceptions import InputError
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.sae.trainer import shuffled_batches, train_sae

TABLE = synthetic_biographies(300, correlation=0.9, n_professions=2, random_state=0)
TEXTS, Y = TABLE.text.tolist(), TABLE.profession.to_numpy()
GENDER, CONFIG = Concept.load("gender"), SelectionConfig(max_texts=200)


@pytest.fixture(scope="module")
def saes(minilm: LanguageModel) -> list[SparseAutoencoder]:
    x = harvest(minilm, TEXTS).x
    config, train = SAEConfig(d_in=x.shape[1], d_sae=128, k=8), TrainConfig(n_steps=40, batch_size=256)
    return [
        train_sae(shuffled_batches(x, 256, seed), config, train, random_state=seed).sae for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def wordings(minilm: LanguageModel) -> Wordings:
    return read_wordings(minilm, TEXTS, GENDER, CONFIG, random_state=0)


def test_every_sae_finds_what_it_finds_alone(
    minilm: LanguageModel, saes: list[SparseAutoencoder], wordings: Wordings
) -> None:
    found = []
    for sae in saes:
        alone = rank_from_concept(minilm, sae, TEXTS, GENDER, CONFIG, y=Y, random_state=0)("auto")
        after = rank_from_wordings(sae, wordings, CONFIG, y=Y, random_state=0)("auto")
        assert len(alone.latents)
        assert alone.latents.tolist() == after.latents.tolist()
        assert alone.report == after.report
        found.append(alone.latents.tolist())
    assert found[0] != found[1]


def test_the_tokens_kept_are_those_at_which_the_probe_fires(wordings: Wordings) -> None:
    assert wordings.others is not None
    probe, firing, n = wordings.others
    rows = wordings.twins.others()
    fires = probe.fires(probe.project(rows.numpy()))
    assert torch.equal(firing, rows[torch.from_numpy(fires)])
    assert n == len(rows) > fires.sum() > 0


def test_holes_are_counted_over_all_tokens(saes: list[SparseAutoencoder], wordings: Wordings) -> None:
    """The rate at which a latent is active elsewhere comes from counts, and must be that of all other tokens."""
    sae, config = saes[0], CONFIG.updated(absorption=False)
    chosen = rank_from_wordings(sae, wordings, config)(10)
    found = rank_from_wordings(sae, wordings, CONFIG)(10)
    assert wordings.others is not None
    rows = wordings.twins.others()
    with torch.no_grad():
        latents = sae.encode(rows).numpy()
    W_dec = sae.W_dec.detach().numpy()
    direct = fill_holes([(rows.numpy(), latents)], W_dec, wordings.others.probe, chosen.latents)
    assert found.report["absorption"] == direct.to_dict()


def test_without_a_control_none_is_read(
    minilm: LanguageModel, saes: list[SparseAutoencoder], wordings: Wordings
) -> None:
    def said(wordings: Wordings) -> object:
        return rank_from_wordings(saes[0], wordings, CONFIG)(5).report.get("random_swaps")

    assert isinstance(wordings.random, SwappedWords)
    assert isinstance(said(wordings), dict)
    without = read_wordings(minilm, TEXTS, GENDER, CONFIG.updated(control=False), random_state=0)
    assert without.random == ""
    assert said(without) is None
    few = read_wordings(minilm, ["He is here.", "She is here."], GENDER, CONFIG, random_state=0)
    assert "too few" in str(said(few))


def test_words_that_are_all_cut_off_are_said_to_be(
    minilm: LanguageModel, saes: list[SparseAutoencoder]
) -> None:
    late = [f"{'word ' * 40}{pronoun} sang." for pronoun in ("he", "she")]
    limits = ActivationConfig(max_length=16)
    assert read_wordings(minilm, late, GENDER, CONFIG, activations=limits).others is None
    with pytest.raises(InputError, match="raise max_length"):
        rank_from_concept(minilm, saes[0], late, GENDER, CONFIG, activations=limits)
