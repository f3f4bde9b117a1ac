"""The latents that a person may want to look at: those removed, and the next ones by score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.debiaser.pipeline import Intervention
from debias_ssae.model import Activations
from debias_ssae.review.contexts import Context, read_latent
from debias_ssae.review.directions import concept_direction, probe_directions, strongest_cosine
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection import LatentScores, encode_attribute
from debias_ssae.text.checks import check_texts

CHUNK = 8192


@dataclass(frozen=True)
class Candidate:
    """What is known of one latent."""

    hookpoint: str
    latent: int
    rank: int
    """Place among all latents of its SAE by score, from 1."""
    removed: bool
    score: float
    toward: str
    """The attribute's value with which it rises; "" where that is not one of two."""
    effect: float | None
    """Signed, mean over classes, in activation units."""
    firing_rate: float
    mass: float
    p_value: float
    attribute_cosine: float | None
    """Of its decoder row with the attribute's direction; None where that is not known."""
    attribute_pole: str
    """The value that plus points to; "" where there are not two."""
    target_cosine: float | None
    words: tuple[str, ...]
    contexts: tuple[Context, ...]


def candidates(
    debiaser: SSAEDebiaser,
    texts: Sequence[str],
    *,
    y: Any = None,
    sensitive_features: Any = None,
    n_more: int = 40,
    n_contexts: int = 5,
    max_texts: int = 2000,
    random_state: int = 0,
) -> list[Candidate]:
    """Return the removed latents and the ``n_more`` next ones of each hookpoint, best first.

    At most ``max_texts`` of ``texts`` are read. The attribute's direction comes from ``sensitive_features``
    (a probe) or else from the debiaser's concept (counterfactuals); the target's from ``y`` (a probe).

    Raises InputError for a debiaser of a matrix or without scores, and for labels of another length.
    """
    check_reviewable(debiaser)
    kept = check_texts(texts)
    order = np.sort(np.random.default_rng(random_state).permutation(len(kept))[:max_texts])
    sample = [kept[i] for i in order]
    labelled = None
    if sensitive_features is not None:
        codes, values = encode_attribute(sensitive_features, len(kept))
        labelled = codes[order], values
    if y is not None and len(y) != len(kept):
        raise InputError(f"there are {len(kept)} texts, but y has {len(y)}; they must agree")
    labels = None if y is None else np.asarray(y)[order]
    found: list[Candidate] = []
    for hookpoint, part in debiaser.interventions_.items():
        sae, scores = part.sae, scores_of(part)
        rows = debiaser.text_encoder_.rows(sample, hookpoint)
        attribute, pole = _attribute(debiaser, rows, sample, labelled, hookpoint)
        target = np.zeros((0, sae.cfg.d_in)) if labels is None else _target(rows, labels)
        ids = _shown(scores, part.selection.ids, n_more)
        fired = _fired(sae, rows, ids)
        w_dec = sae.W_dec.detach().cpu().numpy()
        ranks = np.argsort(np.argsort(-scores.score, kind="stable"))
        removed = {int(i) for i in part.selection.ids}
        for column, i in enumerate(ids):
            readings = read_latent(sample, rows, fired[:, column], n_contexts=n_contexts)
            found.append(
                Candidate(
                    hookpoint=hookpoint,
                    latent=i,
                    rank=int(ranks[i]) + 1,
                    removed=i in removed,
                    **_scored(scores, i),
                    attribute_cosine=strongest_cosine(w_dec[i], attribute),
                    attribute_pole=pole,
                    target_cosine=strongest_cosine(w_dec[i], target),
                    words=readings.words,
                    contexts=readings.contexts,
                )
            )
    return found


def check_reviewable(debiaser: SSAEDebiaser) -> None:
    """Raise InputError for a debiaser whose removed latents a person cannot look at."""
    if debiaser.encoder is None:
        raise InputError(
            "this debiaser works on a matrix, whose rows have no words to show; review needs texts"
        )


def scores_of(part: Intervention) -> LatentScores:
    """The scores of a part. Raises InputError where nothing was looked for."""
    if part.selection.scores is None:
        raise InputError(
            "this debiaser was fitted without a way to find latents, so there is nothing to review"
        )
    return part.selection.scores


def _shown(scores: LatentScores, latents: np.ndarray, n_more: int) -> list[int]:
    """The removed latents as they are ordered, then the best of the others that have any evidence."""
    removed = [int(i) for i in latents]
    others = [int(i) for i in scores.top(len(removed) + n_more) if int(i) not in set(removed)]
    return removed + others[:n_more]


def _attribute(
    debiaser: SSAEDebiaser,
    rows: Activations,
    texts: list[str],
    labelled: tuple[np.ndarray, tuple[str, ...]] | None,
    hookpoint: str,
) -> tuple[np.ndarray, str]:
    """The attribute's directions, and the value that they point to: the debiaser's second, if it is the same two."""
    scores, concept = debiaser.intervention_.selection.scores, debiaser.concept_
    if labelled is not None:
        codes, values = labelled
        known = np.flatnonzero(codes >= 0)
        turned = scores is not None and tuple(scores.values) == values[::-1]
        pole = values[0 if turned else 1] if len(values) == 2 else ""
        return probe_directions(_only(rows, known), codes[known]) * (-1 if turned else 1), pole
    if concept is None:
        return np.zeros((0, rows.x.shape[1])), ""
    pole = concept.values[1] if len(concept.values) == 2 else ""
    return concept_direction(debiaser.text_encoder_, texts, concept, hookpoint, limit=500), pole


def _target(rows: Activations, labels: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(~pd.isna(labels))
    return probe_directions(_only(rows, known), labels[known])


def _only(rows: Activations, texts: np.ndarray) -> Activations:
    """The rows of some texts, which are numbered anew."""
    place = torch.full((rows.n_texts,), -1)
    place[torch.from_numpy(texts)] = torch.arange(len(texts))
    mine = place[rows.text_ids]
    kept = mine >= 0
    return Activations(rows.x[kept], mine[kept], rows.token_ids[kept], rows.offsets[kept], len(texts))


def _fired(sae: SparseAutoencoder, rows: Activations, ids: list[int]) -> np.ndarray:
    """Activations of the latents ``ids`` on all rows ``[n_rows, len(ids)]``."""
    out = np.zeros((len(rows.x), len(ids)), np.float32)
    with torch.no_grad():
        for start in range(0, len(rows.x), CHUNK):
            x = rows.x[start : start + CHUNK]
            chosen = torch.tensor(ids, dtype=torch.long)
            f = sae.encode_rows(x, chosen) if sae.is_elementwise else sae.encode(x)[:, chosen]
            out[start : start + CHUNK] = f.cpu().numpy()
    return out


def _scored(scores: LatentScores, i: int) -> dict[str, Any]:
    sign, effect = int(np.sign(scores.sign[i])), np.atleast_2d(scores.effect)[:, i]
    defined = effect[~np.isnan(effect)]
    return {
        "score": float(scores.score[i]),
        "toward": str(scores.values[sign > 0]) if sign and len(scores.values) == 2 else "",
        "effect": float(defined.mean()) if len(defined) else None,
        "firing_rate": float(scores.firing_rate[i]),
        "mass": float(scores.mass[i]),
        "p_value": float(scores.p_value[i]),
    }
