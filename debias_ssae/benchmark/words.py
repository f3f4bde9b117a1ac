"""Whether a concept's words say anything of the attribute by which the groups are formed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.text.concept import Concept

LEAST = 0.1
"""Association below which words are taken for another attribute's; gender's words and the gender of biographies
reach 0.9, and what two thousand texts show by chance is 0.03."""
_MOST_TEXTS = 2_000


def association(concept: Concept, texts: Sequence[str], values: Sequence[Any] | np.ndarray) -> float:
    """Return Cramer's V, 0 to 1, of ``values`` [n] with whose words each text holds more of; 0 where none holds any.

    At most 2,000 texts are read, the same each time.
    """
    from scipy.stats.contingency import association as cramer

    rows = np.sort(np.random.default_rng(0).permutation(len(texts))[:_MOST_TEXTS])
    sides = [_majority([span.value for span in concept.swap_spans(texts[i])]) for i in rows]
    counts = pd.crosstab(np.array(sides), np.asarray(values).astype(str)[rows]).to_numpy()
    return float(cramer(counts, method="cramer")) if min(counts.shape) > 1 else 0.0


def _majority(shown: list[int]) -> int:
    """The value that most of a text's words show; -1 where there are none or two are equal."""
    counts = np.bincount(shown) if shown else np.zeros(1)
    return int(counts.argmax()) if np.sum(counts == counts.max()) == 1 and counts.max() > 0 else -1
