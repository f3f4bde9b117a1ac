"""Where to edit: the hookpoint whose edit leaves least of the attribute in the output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.intervention import Intervention
from debias_ssae.model import LanguageModel, embed
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.model.language_model import check_hookpoints
from debias_ssae.selection import encode_attribute, encode_labels, removal_score, rows_of_every_cell
from debias_ssae.text.concept import Concept

PROBED = 1000
"""Characters of the text on which a hookpoint is tried."""


def places(hookpoint: str | Sequence[str], encoder: ActivationEncoder, texts: Sequence[str]) -> list[str]:
    """The hookpoints to learn: those named, or of "auto" the candidates that an edit can be made at.

    Raises InputError for a hookpoint the model has not, and for one from which no edit reaches the representation.
    """
    model = encoder.language_model
    named = [hookpoint] if isinstance(hookpoint, str) else list(hookpoint)
    names = candidates(model) if hookpoint == "auto" else named
    check_hookpoints([*names, encoder.layer], model.hookpoints)
    reaching = [name for name in names if _reaches(encoder, name, max(texts, key=len)[:PROBED])]
    if hookpoint == "auto" and reaching:
        return reaching
    lost = [name for name in names if name not in reaching]
    if lost:
        cure = (
            'use pooling="mean"' if encoder.pooling == "cls" else "name an earlier hookpoint or a later layer"
        )
        raise InputError(
            f"an edit at {lost[0]} changes nothing in what is returned (layer={encoder.layer!r}, "
            f"pooling={encoder.pooling!r}); {cure}"
        )
    return names


def candidates(model: LanguageModel) -> list[str]:
    """The embeddings (words), the block in the middle (phrases), and the output (whole texts)."""
    return ["embeddings", f"blocks.{max(0, model.n_blocks // 2 - 1)}", "final"]


def _reaches(encoder: ActivationEncoder, hookpoint: str, text: str) -> bool:
    """Whether an edit at ``hookpoint`` reaches the representation: tried on one text, which must not be blank.

    Edits change real tokens only, and "cls" reads a special one, so that some attention must lie between.
    """
    model = encoder.language_model
    if model.hookpoints.index(hookpoint) > model.hookpoints.index(encoder.layer):
        return False
    options: dict[str, Any] = {"layer": encoder.layer, "pooling": encoder.pooling}
    plain, edited = (
        embed(model, [text], edits=edits, max_length=encoder.max_length, **options)
        for edits in ({}, {hookpoint: torch.neg})
    )
    return not text.strip() or not np.array_equal(plain, edited)


@dataclass(frozen=True)
class Sample:
    """Texts with what a probe of their representation is to tell apart."""

    texts: list[str]
    z: np.ndarray
    """Codes of the attribute, or of the version [n]."""
    y: np.ndarray | None
    groups: np.ndarray
    """Texts of one group share a fold [n]."""
    min_cell: int


def draw_sample(
    texts: Sequence[str],
    *,
    concept: Concept | None = None,
    y: np.ndarray | None = None,
    sensitive_features: Any = None,
    max_texts: int = 500,
    min_cell: int = 20,
    random_state: int | None = None,
) -> Sample:
    """Draw the texts on which hookpoints are compared: counterfactuals, seed texts, or labelled texts of every cell.

    A cell (class of ``y`` x attribute value) gives ``min_cell`` texts or its share of ``max_texts``, whichever is
    more; smaller cells give none. Raises InputError where nothing is left to tell apart.
    """
    order = np.random.default_rng(random_state).permutation(len(texts))
    if concept is not None and concept.pairs:
        counterfactuals = concept.counterfactual_pairs([texts[i] for i in order], limit=max_texts)
        n = len(counterfactuals)
        if n < 2:
            raise InputError(
                f'hookpoint="auto" compares edits on texts that hold a word of the concept {concept.name!r}; there '
                f"are {n}, two are needed: name a hookpoint, or give a concept whose words occur in the texts"
            )
        both = [t.text_a for t in counterfactuals] + [t.text_b for t in counterfactuals]
        return Sample(both, np.repeat([0, 1], n), None, np.tile(np.arange(n), 2), min_cell=1)
    if concept is not None:
        seeds, labels = concept.labelled_seed_texts()
        return Sample(seeds, encode_attribute(labels, len(seeds))[0], None, np.arange(len(seeds)), min_cell=1)
    codes, _, y = encode_labels(sensitive_features, y, len(texts))
    rows = rows_of_every_cell(order, codes, y, max_texts, min_cell)
    if not len(rows):
        raise InputError(
            f'hookpoint="auto" needs a class of the target that holds two attribute values with {min_cell} texts '
            "each; name a hookpoint, or give more labelled texts"
        )
    picked = [texts[i] for i in rows]
    return Sample(picked, codes[rows], None if y is None else y[rows], np.arange(len(rows)), min_cell)


def choose_hookpoint(
    encoder: ActivationEncoder, parts: Mapping[str, Intervention], sample: Sample
) -> tuple[str, dict[str, float]]:
    """Return the hookpoint of ``parts`` to edit, and what each leaves.

    What is left is the share of variance that a cross-fitted linear probe of the edited output explains: of the
    attribute inside each class, or of which version a text has. Of those within one standard error of the least
    the first is taken.
    """
    left: dict[str, np.ndarray] = {}
    for hookpoint, part in parts.items():
        edits = {hookpoint: part.eraser} if part.eraser.changes_anything else {}
        X = encoder.encode(sample.texts, edits)
        score = removal_score(
            X,
            np.zeros((len(X), 1)),
            np.zeros((1, X.shape[1])),
            sample.z,
            sample.y,
            groups=sample.groups,
            n_folds=min(10, len(np.unique(sample.groups))),
            min_cell=sample.min_cell,
            random_state=0,
        )
        left[hookpoint] = score(np.array([], dtype=int))
    means = {name: float(folds.mean()) for name, folds in left.items()}
    least = min(means, key=means.__getitem__)
    error = left[least].std(ddof=1) / np.sqrt(len(left[least]))
    return next(name for name, mean in means.items() if mean <= means[least] + error), means
