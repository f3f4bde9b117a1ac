"""What a concept's swapped words show at one hookpoint before any SAE: the same for every SAE there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from debias_ssae.absorption import TokenProbe, fit_token_probe
from debias_ssae.activations import LanguageModel
from debias_ssae.attribution import TwinRows, harvest_twins, random_swaps
from debias_ssae.concept import Concept
from debias_ssae.config import ActivationConfig, SelectionConfig
from debias_ssae.exceptions import InputError


@dataclass(frozen=True)
class Wordings:
    """Texts in both wordings, the control by random swaps, and the other tokens at which a probe of the words fires."""

    twins: TwinRows
    random: TwinRows | None
    """Rows of the randomly swapped words alone; None where none were asked for or possible."""
    n_random_pairs: int
    no_random: str
    """Why there are none."""
    probe: TokenProbe | None
    """Of the listed words; None where there are no other tokens."""
    firing: Tensor
    """Rows of tokens outside the list at which it fires ``[m, d]``."""
    n_others: int
    """Tokens outside the list."""


def read_wordings(
    model: LanguageModel,
    texts: Sequence[str],
    concept: Concept,
    config: SelectionConfig,
    *,
    hookpoint: str = "embeddings",
    random_state: int | None = None,
    progress: bool = False,
    activations: ActivationConfig | None = None,
) -> Wordings:
    """Run at most ``config.max_texts`` of the texts in both wordings, up to ``hookpoint``.

    Raises InputError where no text holds a word of the concept.
    """
    options: dict[str, Any] = {
        "max_texts": config.max_texts,
        "random_state": random_state,
        "progress": progress,
        **(activations or ActivationConfig()).limits,
    }
    twins = harvest_twins(model, texts, concept, hookpoint, **options)
    others = twins.others()
    n_others, probe = len(others), None
    if n_others > 1:
        probe = fit_token_probe(*twins.words(), others.numpy())
        others = others[torch.from_numpy(probe.fires(probe.project(others.numpy())))]
    random, n_pairs, reason = None, 0, ""
    if config.control:
        try:
            control = random_swaps(texts, concept, random_state=random_state)
            random = harvest_twins(model, texts, control, hookpoint, **options).at_words()
            n_pairs = len(control.pairs)
        except InputError as error:
            reason = str(error)
    return Wordings(twins, random, n_pairs, reason, probe, others, n_others)
