"""Directions of the attribute and of the target at a hookpoint, to lay a latent's decoder row beside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.model import Activations
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text.concept import Concept


def probe_directions(rows: Activations, labels: np.ndarray) -> np.ndarray:
    """Weights ``[k, d]`` of a logistic probe of ``labels [n_texts]`` on the texts' mean rows.

    One row for two values (pointing to the second in sorted order), else one a value. None at all where
    ``labels`` hold a single value.
    """
    x = rows.pool().numpy()
    if len(np.unique(labels)) < 2:
        return np.zeros((0, x.shape[1]))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(x, labels)
    scale = probe[0].scale_
    weights: np.ndarray = probe[1].coef_ / scale
    return weights


def concept_direction(
    encoder: ActivationEncoder, texts: Sequence[str], concept: Concept, hookpoint: str, limit: int
) -> np.ndarray:
    """Mean difference ``[1, d]`` between counterfactual pairs' mean rows, value b minus value a; of more than two
    values a row a value, towards it from the others.
    """
    counterfactuals = concept.counterfactual_pairs(texts, limit=limit)
    if not counterfactuals:
        return np.zeros((0, encoder.language_model.d_model))
    a, b = (
        encoder.rows(side, hookpoint).pool().numpy()
        for side in ([t.text_a for t in counterfactuals], [t.text_b for t in counterfactuals])
    )
    shown = np.array([t.values for t in counterfactuals])
    towards = [1] if len(concept.values) == 2 else np.unique(shown)
    signs = [(shown[:, 1] == v).astype(int) - (shown[:, 0] == v) for v in towards]
    return np.stack([(s[:, None] * (b - a))[s != 0].mean(axis=0) for s in signs])


def strongest_cosine(row: np.ndarray, directions: np.ndarray) -> float | None:
    """The cosine of largest size between ``row [d]`` and the ``directions [k, d]``, with its sign; None for k=0."""
    norms = np.linalg.norm(directions, axis=1) * np.linalg.norm(row)
    known = norms > 0
    if not known.any():
        return None
    cosines: Any = directions[known] @ row / norms[known]
    return float(cosines[np.abs(cosines).argmax()])
