"""The audit's cards of removed latents, from real debiasers of texts."""

import numpy as np

from debias_ssae import SSAEDebiaser
from debias_ssae.audit import latent_cards
from debias_ssae.audit.contexts import top_contexts


def test_cards_of_a_real_debiaser(labelled, encoder, bios, small_config) -> None:  # type: ignore[no-untyped-def]
    other = SSAEDebiaser(encoder, config=small_config, random_state=1)
    other.fit(bios.text, bios.profession, sensitive_features=bios.gender)
    contexts = top_contexts(labelled, bios.text[:80], n_latents=10)
    cards = latent_cards(labelled, contexts=contexts, others=[other], n_cards=10)
    assert [card["latent"] for card in cards] == labelled.latents_[:10].tolist()
    assert {card["toward"] for card in cards} <= {"female", "male"}
    shown = [snippet for card in cards for snippet in card["contexts"]]
    assert shown
    assert all("«" in snippet for snippet in shown)
    stability = np.array([card["stability"] for card in cards])
    assert ((stability > 0) & (stability <= 1.0001)).all()
    assert [card["score"] for card in cards] == sorted((card["score"] for card in cards), reverse=True)
