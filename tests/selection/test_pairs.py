"""What is read of a concept's pairs, and what is selected from it."""

import numpy as np
import pytest
import torch

from debias_ssae.core.config import SAEConfig, SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.pairs import PairActivations, harvest_pairs
from debias_ssae.selection.select import select_from_concept
from debias_ssae.text import synthetic_biographies
from debias_ssae.text.concept import Concept

TABLE = synthetic_biographies(300, correlation=0.9, n_professions=2, random_state=0)
TEXTS = TABLE.text.tolist()
GENDER, CONFIG = Concept.load("gender"), SelectionConfig(max_texts=200)


@pytest.fixture(scope="module")
def pairs(minilm: LanguageModel) -> PairActivations:
    return harvest_pairs(minilm, TEXTS, GENDER, max_texts=200, random_state=0)


def test_the_tokens_kept_are_those_at_which_the_probe_fires(pairs: PairActivations) -> None:
    assert pairs.others is not None
    probe, firing = pairs.others
    rows = pairs.unlisted()
    fires = probe.fires(probe.project(rows.numpy()))
    at = np.flatnonzero(~pairs.listed)
    fires &= [pairs.is_whole_word(row) for row in at.tolist()]
    assert torch.equal(firing, rows[torch.from_numpy(fires)])
    assert len(rows) > fires.sum() > 0


def test_a_piece_of_a_word_is_no_word(minilm: LanguageModel) -> None:
    """The tokenizer cuts *meniscus* into *men* and *##iscus*: neither speaks of men."""
    texts = ["She mended a meniscus, and many men cheered."]
    read = harvest_pairs(minilm, texts, Concept.from_words([("he", "she")]))
    rows, text = read.a, read.texts[0]
    words = [
        text[start:end] for row, (start, end) in enumerate(rows.offsets.tolist()) if read.is_whole_word(row)
    ]
    assert {"men", "many", "cheered"} <= set(words)
    assert not {"iscus", "meniscus"} & set(words)
    assert words.count("men") == 1


def test_words_that_are_all_cut_off_are_said_to_be(minilm: LanguageModel) -> None:
    late = [f"{'word ' * 40}{pronoun} sang." for pronoun in ("he", "she")]
    short = minilm.with_limits(16)
    sae = SparseAutoencoder(SAEConfig(d_in=minilm.d_model, d_sae=64, k=4), random_state=0)
    assert harvest_pairs(short, late, GENDER).others is None
    with pytest.raises(InputError, match="raise max_length"):
        select_from_concept(short, sae, late, GENDER, CONFIG)


def test_latents_that_fire_elsewhere_are_left_out(minilm: LanguageModel, pairs: PairActivations) -> None:
    """Of two latents along the words' probe, one fires beyond its limit and one on every token."""
    assert pairs.others is not None
    probe = pairs.others.probe
    direction = torch.from_numpy(probe.direction).float()
    beyond = float(probe.center @ probe.direction) + probe.limits[1]
    sae = SparseAutoencoder(SAEConfig(d_in=len(direction), d_sae=2, k=2, architecture="relu"), random_state=0)
    with torch.no_grad():
        sae.b_dec.zero_()
        sae.W_enc.copy_(torch.stack([direction, 10 * direction]))
        sae.W_dec.copy_(sae.W_enc)
        everywhere = float((pairs.a.x @ direction).min())
        sae.b_enc.copy_(torch.tensor([10 - everywhere, -10 * beyond]))
    bare = CONFIG.updated(propagate=False)
    chosen = select_from_concept(minilm, sae, TEXTS, GENDER, bare, random_state=0)
    assert chosen.ids.tolist() == [1], chosen.report
    assert (chosen.report["impure"], chosen.report["purity"]) == (1, [1.0])
    bare = bare.updated(purity=0.0)
    chosen = select_from_concept(minilm, sae, TEXTS, GENDER, bare, random_state=0)
    assert sorted(chosen.ids.tolist()) == [0, 1]
