"""The neuron skyline: single coordinates of the model set to their mean, chosen with attribute labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel, harvest
from debias_ssae.selection import class_conditional_contrast, encode_attribute


@dataclass(frozen=True)
class NeuronAblation:
    """An edit of rows at one hookpoint: the neurons get their mean."""

    neurons: tuple[int, ...]
    means: Tensor
    """[n_neurons]"""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the edited rows ``[n, d]``."""
        edited = x.clone()
        edited[:, list(self.neurons)] = self.means.to(x.device, x.dtype)
        return edited

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the edit, for caches of what comes out of an edited model."""
        return "neurons:" + hashlib.sha256(f"{self.neurons}{self.means.tolist()}".encode()).hexdigest()


def ablate_neurons(
    model: LanguageModel,
    texts: Sequence[str],
    sensitive_features: Any,
    *,
    hookpoint: str = "embeddings",
    n_neurons: int = 55,
    max_length: int | None = None,
    token_budget: int = 2048,
    progress: bool = False,
) -> NeuronAblation:
    """Choose the coordinates whose text means tell the attribute best, and set them to their mean over rows.

    The neuron skyline of SHIFT (Marks et al. 2024, arXiv 2403.19647, section 4), with the contrast of this
    package in place of attribution patching. Raises InputError for fewer than one or more neurons than there are.
    """
    if not 1 <= n_neurons <= model.d_model:
        raise InputError(f"n_neurons is {n_neurons}; expected 1 to {model.d_model}, the model's width")
    z, values = encode_attribute(sensitive_features, len(texts))
    options: dict[str, Any] = {"max_length": max_length, "token_budget": token_budget, "progress": progress}
    rows = harvest(model, texts, hookpoint, **options)
    always = np.ones(model.d_model)
    scores = class_conditional_contrast(rows.pool().numpy(), always, z, values, min_cell=1)
    chosen = np.argsort(-scores.score, kind="stable")[:n_neurons]
    neurons = tuple(int(i) for i in chosen)
    return NeuronAblation(neurons, torch.as_tensor(rows.x[:, list(neurons)]).mean(dim=0))
