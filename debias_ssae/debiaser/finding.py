"""From an SAE and texts to the latents that are to be removed at one hookpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from debias_ssae.activations import Activations, LanguageModel
from debias_ssae.attribution import (
    LatentScores,
    class_conditional_contrast,
    counterfactual_contrast,
    encode_attribute,
    pooled_latents,
)
from debias_ssae.concept import Concept
from debias_ssae.config import SelectionConfig
from debias_ssae.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class Found:
    """What is to be removed at one hookpoint, and why."""

    scores: LatentScores
    latents: np.ndarray
    """Ids, best first."""
    report: dict[str, Any] = field(default_factory=dict)
    """What each step of the selection did; JSON."""


def find_from_concept(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    concept: Concept,
    config: SelectionConfig,
    *,
    hookpoint: str = "embeddings",
    n_latents: int | str = "auto",
    random_state: int | None = None,
    progress: bool = False,
) -> Found:
    """Concept regime: no attribute labels; raises InputError where no text holds a word of the concept."""
    scores = counterfactual_contrast(
        model,
        sae,
        texts,
        concept,
        hookpoint=hookpoint,
        max_texts=config.max_texts,
        random_state=random_state,
        progress=progress,
    )
    return Found(scores, scores.top(_count(n_latents, config)))


def find_from_labels(
    sae: SparseAutoencoder,
    rows: Activations,
    y: np.ndarray | None,
    sensitive_features: Any,
    config: SelectionConfig,
    *,
    n_latents: int | str = "auto",
    random_state: int | None = None,
) -> Found:
    """Labelled regime, on the rows of the hookpoint; texts with an unknown attribute are left out."""
    codes, values = encode_attribute(sensitive_features, rows.n_texts)
    latents, firing_rate = pooled_latents(sae, rows)
    scores = class_conditional_contrast(latents, firing_rate, codes, values, y, min_cell=config.min_cell)
    return Found(scores, scores.top(_count(n_latents, config)))


def _count(n_latents: int | str, config: SelectionConfig) -> int:
    return config.n_latents if n_latents == "auto" else int(n_latents)
