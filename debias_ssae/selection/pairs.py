"""What a concept's swapped words show at one hookpoint before any SAE: the same for every SAE there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from debias_ssae.core.config import ActivationConfig, SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel
from debias_ssae.selection import PairActivations, SwappedWords, harvest_pairs, random_swaps
from debias_ssae.selection.absorption import TokenProbe, fit_token_probe
from debias_ssae.text.concept import Concept


class Others(NamedTuple):
    """Tokens outside the list, of which only those count at which the listed words' probe fires."""

    probe: TokenProbe
    firing: Tensor
    """Their rows ``[m, d]``."""
    n: int
    """How many there are in all."""


@dataclass(frozen=True)
class CounterfactualPairs:
    """Texts in both versions, what else stands in them, and the control by random swaps."""

    counterfactuals: PairActivations
    others: Others | None
    """None where there are no others, no word in both versions, or more than two values: its probe has two ends."""
    random: SwappedWords | str
    """Randomly swapped words; else why there are none, which is empty where none were asked for."""


def read_counterfactual_pairs(
    model: LanguageModel,
    texts: Sequence[str],
    concept: Concept,
    config: SelectionConfig,
    *,
    hookpoint: str = "embeddings",
    random_state: int | None = None,
    progress: bool = False,
    activations: ActivationConfig | None = None,
) -> CounterfactualPairs:
    """Run at most ``config.max_texts`` of the texts in both versions, up to ``hookpoint``.

    Raises InputError where no text holds a word of the concept.
    """
    model.check_spans()
    options: dict[str, Any] = {
        "max_texts": config.max_texts,
        "random_state": random_state,
        "progress": progress,
        **(activations or ActivationConfig()).limits,
    }
    counterfactuals = harvest_pairs(model, texts, concept, hookpoint, **options)
    random: SwappedWords | str = ""
    if config.control:
        try:
            control = random_swaps(texts, concept, random_state=random_state)
            random = harvest_pairs(model, texts, control, hookpoint, **options).words
            random.check()
        except InputError as error:
            random = str(error)
    return CounterfactualPairs(counterfactuals, _others(counterfactuals), random)


def _others(counterfactuals: PairActivations) -> Others | None:
    rows, (words_a, words_b) = counterfactuals.others(), counterfactuals.words.means()
    if len(counterfactuals.values) > 2 or len(rows) < 2 or not len(words_a):
        return None
    probe = fit_token_probe(words_a, words_b, rows.numpy())
    fires = probe.fires(probe.project(rows.numpy()))
    return Others(probe, rows[torch.from_numpy(fires)], len(rows))
