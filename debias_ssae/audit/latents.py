"""Cards of the latents a debiaser removed: what each does, how sure that is, where it fires, whether it is
stable.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError


def latent_cards(
    debiaser: Any,
    *,
    contexts: Mapping[int, Sequence[str]] | None = None,
    others: Sequence[Any] = (),
    n_cards: int = 50,
) -> list[dict[str, Any]]:
    """One card a removed latent, best first. Reads ``latents_`` and ``scores_`` of any debiaser, and
    ``sae_.W_dec``.

    ``scores_`` holds arrays over latents (score, sign, effect [n_classes, d_sae], firing_rate, mass, p_value)
    and ``values``, the attribute's two values. ``contexts``: snippets by latent, kept only when given.
    ``others``: debiasers of other seeds; stability is the mean over them of the highest cosine between this
    latent's decoder row and those they removed. Raises InputError when the debiaser is not fitted.
    """
    latents = getattr(debiaser, "latents_", None)
    if latents is None:
        raise InputError("The debiaser has no latents_; fit it before asking for its latents")
    ids = [int(i) for i in np.asarray(latents).ravel()[:n_cards]]
    scores = getattr(debiaser, "scores_", None)
    stability = _stability(debiaser, ids, others)
    return [
        {
            "latent": i,
            "rank": rank,
            **_scored(scores, i),
            "stability": None if stability is None else float(stability[rank - 1]),
            "contexts": [str(c) for c in (contexts or {}).get(i, ())],
        }
        for rank, i in enumerate(ids, 1)
    ]


def _scored(scores: Any, latent: int) -> dict[str, Any]:
    if scores is None:
        return {"toward": "", "score": None, "effect": None, "firing_rate": None, "p_value": None}
    sign, values = int(np.sign(scores.sign[latent])), tuple(scores.values)
    toward = values[1 if sign > 0 else 0] if sign and len(values) == 2 else ""
    effect = np.asarray(scores.effect, dtype=float)
    effect = effect[..., latent].ravel() if effect.ndim else effect.ravel()
    defined = effect[~np.isnan(effect)]
    return {
        "toward": str(toward),
        "score": float(scores.score[latent]),
        "effect": float(defined.mean()) if len(defined) else None,
        "firing_rate": float(scores.firing_rate[latent]),
        "p_value": float(scores.p_value[latent]),
    }


def _stability(debiaser: Any, ids: list[int], others: Sequence[Any]) -> Any:
    if not others or not ids:
        return None
    mine = _directions(debiaser, ids)
    found = []
    for other in others:
        theirs = _directions(other, [int(i) for i in np.asarray(other.latents_).ravel()])
        found.append((mine @ theirs.T).max(axis=1) if len(theirs) else np.zeros(len(mine)))
    return np.mean(found, axis=0)


def _directions(debiaser: Any, ids: list[int]) -> Any:
    weights = debiaser.sae_.W_dec
    if hasattr(weights, "detach"):
        weights = weights.detach().cpu().numpy()
    rows = np.asarray(weights, dtype=float)[ids]
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
