"""Where to edit: the hookpoint whose edit leaves least of the attribute in the output."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from debias_ssae.activations import LanguageModel
from debias_ssae.attribution import encode_attribute, removal_score
from debias_ssae.concept import Concept
from debias_ssae.debiaser.part import Part
from debias_ssae.encoder import ActivationEncoder


def candidates(model: LanguageModel) -> list[str]:
    """The embeddings (words), the block in the middle (phrases), and the output (whole texts)."""
    return ["embeddings", f"blocks.{max(0, model.n_blocks // 2 - 1)}", "final"]


def choose_hookpoint(
    encoder: ActivationEncoder,
    parts: Mapping[str, Part],
    texts: Sequence[str],
    *,
    concept: Concept | None = None,
    y: np.ndarray | None = None,
    sensitive_features: Any = None,
    max_texts: int = 500,
    min_cell: int = 20,
    random_state: int | None = None,
) -> tuple[str, dict[str, float]]:
    """Return the hookpoint of ``parts`` to edit, and what each leaves.

    What is left is the share of variance that a cross-fitted linear probe of the edited output explains: of the
    attribute inside each class of ``y``, or, with a ``concept``, of which wording a text has. Of those within
    one standard error of the least the first is taken. At most ``max_texts`` training texts are read.
    """
    order = np.random.default_rng(random_state).permutation(len(texts))
    if concept is not None and concept.pairs:
        twins = concept.twins([texts[i] for i in order], limit=max_texts)
        sample = [t.text_a for t in twins] + [t.text_b for t in twins]
        z, y, groups = np.repeat([0, 1], len(twins)), None, np.tile(np.arange(len(twins)), 2)
    else:
        codes, _ = encode_attribute(sensitive_features, len(texts))
        rows = [i for i in order if codes[i] >= 0][:max_texts]
        sample, z, groups = [texts[i] for i in rows], codes[rows], np.arange(len(rows))
        y = None if y is None else y[rows]
    left: dict[str, np.ndarray] = {}
    for hookpoint, part in parts.items():
        edits = {hookpoint: part.eraser} if part.eraser.changes_anything else {}
        X = encoder.encode(sample, edits)
        nothing = np.zeros((len(X), 1))
        score = removal_score(
            X, nothing, np.zeros((1, X.shape[1])), z, y, groups=groups, min_cell=min_cell, random_state=0
        )
        left[hookpoint] = score(np.array([], dtype=int))
    means = {name: float(folds.mean()) for name, folds in left.items()}
    least = min(means, key=means.__getitem__)
    error = left[least].std(ddof=1) / np.sqrt(len(left[least]))
    return next(name for name, mean in means.items() if mean <= means[least] + error), means
