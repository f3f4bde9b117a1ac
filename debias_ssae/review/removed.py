"""Review of a fitted debiaser: cards of what it removes and of the next candidates, and the same with other ticks."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.review.cards import Card, Scored, make_cards, numbered, to_choices
from debias_ssae.selection.choices import Choices
from debias_ssae.selection.naming import find_words, firing
from debias_ssae.selection.scores import LatentScores
from debias_ssae.text.checks import check_texts


def removed_cards(
    debiaser: SSAEDebiaser,
    texts: Any,
    *,
    y: Any = None,
    n_more: int = 40,
    max_texts: int = 2000,
) -> list[Card]:
    """Return a card for each latent that ``debiaser`` removes (ticked), and for the ``n_more`` next ones by score.

    At most ``max_texts`` of ``texts`` are read; with ``y [n]`` the cards say how often they fire in each class.
    Raises InputError for a debiaser of a matrix, and for labels of another length.
    """
    encoder = debiaser.text_encoder_
    kept = check_texts(texts)
    if y is not None and len(y) != len(kept):
        raise InputError(f"there are {len(kept)} texts, but y has {len(y)}; they must agree")
    order = np.sort(np.random.default_rng(0).permutation(len(kept))[:max_texts])
    sample = [kept[i] for i in order]
    codes, names = (None, ()) if y is None else pd.factorize(np.asarray(y)[order])
    cards: list[Card] = []
    for hookpoint, one in debiaser.interventions_.items():
        sae, ids = one.sae, [int(i) for i in one.selection.ids]
        scored = _scored(one.selection.scores, sae.cfg.d_sae, ids)
        best = np.argsort(-scored.score, kind="stable")[: len(ids) + n_more]
        ids += [int(i) for i in best if scored.score[i] > 0 and i not in set(ids)][:n_more]
        worded = find_words(sample, encoder.rows(sample, hookpoint))
        found = make_cards(
            hookpoint,
            ids,
            scored,
            firing(sae, worded.rows.x, ids),
            worded,
            labels=codes,
            classes=tuple(map(str, names)),
            merge=False,
            ticked=one.selection.ids.tolist(),
        )
        if one.selection.scores is None:  # a person ticked them: nothing was measured of an attribute
            found = [replace(card, share=float("nan"), kind="") for card in found]
        cards += found
    return numbered(cards)


def removed_choices(debiaser: SSAEDebiaser, cards: Sequence[Card]) -> Choices:
    """The cards as choices, those that are removed ticked."""
    saes = {hookpoint: one.sae for hookpoint, one in debiaser.interventions_.items()}
    return to_choices(cards, [card.ticked for card in cards], saes)


def with_choices(
    debiaser: SSAEDebiaser,
    choices: Choices,
    texts: Any = None,
    *,
    y: Any = None,
    sensitive_features: Any = None,
) -> SSAEDebiaser:
    """Return a copy of ``debiaser`` that removes what is ticked; latents that the choices do not name stay as they are.

    ``texts``, ``y`` and ``sensitive_features`` are as in ``SSAEDebiaser.with_latents``, which says when they are
    needed. The record of each hookpoint tells of the review. Raises InputError as that does, and for choices of another
    SAE.
    """
    latents, reviews = {}, {}
    for hookpoint, cards in choices.cards.items():
        if hookpoint not in debiaser.interventions_:
            known = ", ".join(debiaser.interventions_)
            raise InputError(f"the choices are of the hookpoint {hookpoint}, but this debiaser edits {known}")
        one = debiaser.interventions_[hookpoint]
        if choices.saes[hookpoint].fingerprint() != one.sae.fingerprint():
            raise InputError(f"the choices at {hookpoint} are of another SAE than the debiaser's")
        ticks = {i: card.tick for card in cards for i in card.ids}
        before = one.selection.ids.tolist()
        added = [i for i, tick in ticks.items() if tick and i not in set(before)]
        latents[hookpoint] = [i for i in before if ticks.get(i, True)] + added
        kept = [i for i in before if not ticks.get(i, True)]
        reviews[hookpoint] = {"date": datetime.now(UTC).date().isoformat(), "kept": kept, "added": added}
    new = copy.copy(debiaser.with_latents(latents, texts, y, sensitive_features=sensitive_features))
    new.interventions_ = {
        name: replace(one, record={**one.record, "review": reviews[name]}) if name in reviews else one
        for name, one in new.interventions_.items()
    }
    return new


def _scored(scores: LatentScores | None, d_sae: int, ids: list[int]) -> Scored:
    """The selection's scores; where there are none (ticked cards), what keeps the order of the ids."""
    if scores is None:
        score = np.zeros(d_sae)
        score[ids] = np.linspace(1.0, 0.5, len(ids)) if ids else 0.0
        return Scored(score, np.zeros((0, d_sae)), ("",), np.full(d_sae, -1))
    values = tuple(scores.values)
    if len(values) != 2:
        return Scored(scores.score, np.zeros((0, d_sae)), values, np.full(d_sae, -1))
    sign = np.sign(scores.sign)
    toward = np.where(sign == 0, -1, (sign > 0).astype(int))
    defined = np.atleast_2d(scores.effect)
    counts = np.maximum((~np.isnan(defined)).sum(axis=0), 1)
    mean = np.nansum(defined, axis=0) / counts
    return Scored(scores.score, np.stack([-mean, mean]), values, toward)
