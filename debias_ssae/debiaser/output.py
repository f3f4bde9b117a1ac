"""The output eraser: the attribute's directions in what leaves the model, projected out after the edit.

A head that was trained on the plain representation needs it; a retrained head hardly does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from sklearn.base import clone

from debias_ssae.core.errors import InputError
from debias_ssae.erase import (
    LatentEraser,
    LinearEraser,
    fit_counterfactual,
    fit_displacement,
    fit_leace,
    fit_mean_difference,
    joined,
    sufficient_components,
)
from debias_ssae.selection.attribute import AnnotatedTexts, Encoder, FitData, Nothing, Words, members
from debias_ssae.selection.naming import cut_out, find_words, firing
from debias_ssae.selection.scores import copies, encode_labels, rows_of_every_cell
from debias_ssae.selection.select import Linear
from debias_ssae.text.checks import take
from debias_ssae.text.concept import Concept

OVERALL = "leace_overall"
FROM_LABELS: dict[str, Linear] = {
    "mean_difference": fit_mean_difference,
    "leace": fit_leace,
    OVERALL: lambda x, z, y: fit_leace(x, z),
}
"""Output erasers that are fitted on labels of the attribute: inside the classes of the target, but for the last."""
FROM_WORDS = ("counterfactual", "counterfactual_subspace")
"""Output erasers that are fitted on counterfactual pairs: the direction between them, or all in which they differ."""
KINDS = (*FROM_WORDS, "displacement", *FROM_LABELS)


PAIRS = 500
"""Counterfactual pairs that run through the model: a direction needs no more."""
ENOUGH = 150
"""Texts of a cell that run through the model, whatever the smallest cell of its class has."""


class Transformer(Protocol):
    """An output eraser of the user's own."""

    def fit(self, X: np.ndarray, y: Any = None, **options: Any) -> Any: ...

    def transform(self, X: np.ndarray) -> np.ndarray: ...


OutputEraser = LinearEraser | Transformer


def apply_output(eraser: OutputEraser | None, x: np.ndarray) -> np.ndarray:
    """Return what ``eraser`` makes of representations ``x [n, d]``."""
    if eraser is None:
        return x
    return eraser(x) if isinstance(eraser, LinearEraser) else np.asarray(eraser.transform(x))


@dataclass(frozen=True)
class Samples:
    """Texts (or rows of a matrix) with what is known of them, and their representations once they are asked for."""

    encoder: Encoder
    edits: Mapping[str, LatentEraser]
    X: Any
    z: np.ndarray | None = None
    """Codes of the attribute, or of a counterfactual pair's version ``[n]``."""
    y: np.ndarray | None = None
    groups: np.ndarray | None = None
    """Number of the counterfactual pair that each belongs to ``[n]``; None where there are no pairs."""
    weights: np.ndarray | None = None
    """For how many of the labelled texts each stands ``[n]``; None where they were not drawn evenly."""

    @classmethod
    def drawn(cls, encoder: Encoder, edits: Mapping[str, LatentEraser], data: FitData) -> "Samples":
        """At most ``selection.max_texts`` of the training texts; all rows of a matrix, which cost nothing."""
        n, limit = len(data.X), data.config.selection.max_texts
        if not isinstance(data.X, list):
            return cls(encoder, edits, data.X)
        order = np.random.default_rng(data.random_state).permutation(n)[:limit]
        return cls(encoder, edits, take(data.X, order), y=None if data.y is None else data.y[order])

    @classmethod
    def pairs(
        cls, concept: Concept, encoder: Encoder, edits: Mapping[str, LatentEraser], data: FitData
    ) -> "Samples":
        """Both versions of at most PAIRS training texts that hold a word of ``concept``."""
        concept.check_occurs(data.X)
        order = np.random.default_rng(data.random_state).permutation(len(data.X))
        found = concept.counterfactual_pairs(
            [data.X[i] for i in order], limit=min(PAIRS, data.config.selection.max_texts)
        )
        n, source = len(found), order[[pair.index for pair in found]]
        y = None if data.y is None else np.tile(data.y[source], 2)
        texts = [pair.text_a for pair in found] + [pair.text_b for pair in found]
        values = np.concatenate([[pair.values[side] for pair in found] for side in (0, 1)])
        return cls(encoder, edits, texts, values, y, np.tile(np.arange(n), 2))

    def unedited(self) -> "Samples":
        """The same without the edit."""
        kept = Samples(self.encoder, {}, self.X, self.z, self.y, self.groups, self.weights)
        kept.__dict__["plain"] = self.plain
        return kept

    def at(self, rows: np.ndarray) -> "Samples":
        """These samples alone, with the representations that are known already."""
        known = (None if a is None else a[rows] for a in (self.z, self.y, self.groups, self.weights))
        kept = Samples(self.encoder, self.edits, take(self.X, rows), *known)
        kept.__dict__.update({k: vars(self)[k][rows] for k in ("plain", "edited") if k in vars(self)})
        return kept

    @property
    def together(self) -> np.ndarray:
        """Number of what must stay in one fold ``[n]``: copies of a sample, and the versions of a pair."""
        alike = copies(self.plain)
        if self.groups is None:
            return alike
        first, pair = np.unique(self.groups, return_index=True, return_inverse=True)[1:]
        return np.asarray(alike[first][pair])

    def some(self, n: int, rng: np.random.Generator) -> "Samples":
        """At most about ``n`` of these, in order, pairs whole."""
        if len(self.X) <= n:
            return self
        if self.groups is None:
            return self.at(np.sort(rng.permutation(len(self.X))[:n]))
        return self.at(np.flatnonzero(self.groups < n // 2))

    @cached_property
    def plain(self) -> np.ndarray:
        """Representations of the model as it is ``[n, d]``."""
        return self.encoder.encode(self.X)

    @cached_property
    def edited(self) -> np.ndarray:
        """Representations with the edit inside the model ``[n, d]``."""
        return self.encoder.encode(self.X, self.edits) if self.edits else self.plain


def output_kind(asked: Any, attribute: Any, *, edits: bool) -> Any:
    """What ``output_eraser=asked`` comes to.

    "auto" is the direction between counterfactual pairs where there are words of two values, all directions
    in which the pairs differ where there are more values, the groups' mean difference where there are labels, and the
    displacement by the edit where neither is known; None where nothing is edited.
    Of several attributes each goes by its own kind.
    """
    if not (isinstance(asked, str) and asked == "auto"):
        return asked
    if not edits:
        return None
    kinds = [_auto(one) for one in members(attribute)]
    return kinds[0] if len(kinds) == 1 else "auto"


def _auto(attribute: Any) -> str | None:
    if isinstance(attribute, Words):
        return "counterfactual" if len(attribute.concept.values) == 2 else "counterfactual_subspace"
    if isinstance(attribute, AnnotatedTexts):
        return "mean_difference"
    return None if isinstance(attribute, Nothing) else "displacement"


def has_center(kind: Any) -> bool:
    """Whether no shift is to follow: this output eraser has a centre in the plain model, or is the user's own."""
    return not isinstance(kind, str | None) or kind in (*FROM_WORDS, "mean_difference")


def fit_output(
    kind: Any,
    attribute: Any,
    encoder: Encoder,
    edits: Mapping[str, LatentEraser],
    data: FitData,
    samples: Samples | None = None,
) -> tuple[OutputEraser | None, dict[str, Samples]]:
    """Fit the output eraser that ``output_kind`` named; also return what each attribute can be measured on, by name.

    ``samples`` stand in for those of a single attribute where they are at hand. Raises InputError where the eraser
    has nothing to learn from.
    """
    if samples is not None and isinstance(kind, str | None):
        return (None if kind is None else fit_eraser(kind, samples)), {"attribute": samples}
    if kind is not None and not isinstance(kind, str):
        return _fit_transformer(kind, attribute, encoder, edits, data)
    found: list[LinearEraser] = []
    evidence: dict[str, Samples] = {}
    for number, one in enumerate(members(attribute), 1):
        own = _auto(one) if kind == "auto" else kind
        samples = samples_of(own, one, encoder, edits, data)
        if samples is not None:
            several = len(members(attribute)) > 1
            name = one.concept.name if several and isinstance(one, Words) else "attribute"
            # what is measured beside them is called "target"
            if several and name in {*evidence, "attribute", "target"}:
                name = f"{name} {number}"
            evidence[name] = samples
        if own is not None and samples is not None:
            found.append(fit_eraser(own, samples))
        if own == "displacement":
            break  # it is of the whole edit, whatever the attributes are
    if len(found) < 2:
        return (found[0] if found else None), evidence
    return joined(found, Samples.drawn(encoder, edits, data).plain), evidence


def samples_of(
    kind: str | None, attribute: Any, encoder: Encoder, edits: Mapping[str, LatentEraser], data: FitData
) -> Samples | None:
    """What an output eraser of this kind is fitted on; without one, what the attribute is measured on."""
    if kind == "displacement":
        return Samples.drawn(encoder, edits, data)
    if isinstance(attribute, Words) and kind not in FROM_LABELS:
        return Samples.pairs(attribute.concept, encoder, edits, data)
    labelled = labels_for_output(attribute, data)
    return (
        None if labelled is None else _labelled_samples(labelled, encoder, edits, data, even=kind != "leace")
    )


def check_evidence(kind: Any, attribute: Any, data: FitData) -> None:
    """Raise InputError, before any training, where an output eraser of this kind has nothing to learn from."""
    for one in members(attribute):
        if kind in FROM_WORDS and not isinstance(one, Words):
            raise InputError(
                f'output_eraser="{kind}" needs a concept as attribute=; with labels use '
                '"mean_difference" or "leace", otherwise "displacement" or None'
            )
        if kind not in FROM_LABELS:
            continue
        labelled = labels_for_output(one, data)
        if labelled is None:
            raise InputError(
                f'output_eraser="{kind}" needs labels: pass sensitive_features to fit, or AnnotatedTexts as '
                'attribute=; without labels use "counterfactual", "displacement" or None'
            )
        labelled.check(1)


def is_of_training_texts(attribute: Any, data: FitData) -> bool:
    """Whether the attribute's labels are those of the training texts."""
    labelled = labels_for_output(attribute, data)
    return labelled is not None and labelled.texts is data.X


def is_of_other_texts(attribute: Any, data: FitData) -> bool:
    """Whether labels come from texts of another kind, which have no target: their centre is not that of ``data``."""
    return any(
        isinstance(one, AnnotatedTexts) and one.y is None and one.texts is not data.X
        for one in members(attribute)
    )


def fit_eraser(kind: str, samples: Samples) -> LinearEraser:
    """Fit one of KINDS on ``samples``. Raises InputError where they leave nothing to learn from."""
    if kind == "displacement":
        moved = fit_displacement(samples.plain, samples.edited)
        if not isinstance(samples.X, list):
            return moved
        return joined([moved, *_by_cutting(samples)], samples.plain)
    z = np.asarray(samples.z)
    if kind in FROM_WORDS:
        # of the plain model, since after the edit little is left of the listed words: the direction is there to
        # catch what the list does not name
        a, b = np.split(samples.plain, 2)
        n = len(np.unique(z)) - 1 if kind == "counterfactual" else sufficient_components(a, b, 0)[0]
        return fit_counterfactual(a, b, n)
    if kind == "leace":
        return fit_leace(samples.edited, z, samples.y)
    if kind == OVERALL:
        return fit_leace(samples.edited, z, weights=samples.weights)
    eraser = fit_mean_difference(samples.plain, z, samples.y, edited=samples.edited)
    n_values, d = len(np.unique(z)), samples.plain.shape[1]
    if n_values > 2 and len(eraser.read) >= d:
        raise InputError(
            f"the means of {n_values} attribute values differ in all {d} dimensions, so "
            'output_eraser="mean_difference" would leave nothing; merge values, or use output_eraser=None'
        )
    return eraser


def _by_cutting(samples: Samples) -> list[LinearEraser]:
    """The directions between texts and the same texts without the words on which the removed latents fire.

    The edit takes single words out. What they say together, as in the name of a place, is in the other words'
    activations too, and goes with these directions (docs/decisions/0013). None where no word is left to be cut out.
    """
    texts, fired = samples.X, []
    for hookpoint, eraser in samples.edits.items():
        rows = samples.encoder.rows(texts, hookpoint)
        ids = range(len(eraser.latents)) if eraser.sae.is_elementwise else eraser.latents
        fired.append(firing(eraser.sae, rows.x, ids).sum(axis=1))
    cut = cut_out(find_words(texts, rows), np.sum(fired, axis=0))
    changed = [i for i, text in enumerate(cut) if text and text != texts[i]][:PAIRS]
    if not changed:
        return []
    without = samples.plain.copy()
    without[changed] = samples.encoder.encode([cut[i] for i in changed])
    return [fit_displacement(samples.plain, without)]


def labels_for_output(attribute: Any, data: FitData) -> AnnotatedTexts | None:
    """The labels that an output eraser may read: the attribute's own, else those that were given to ``fit``."""
    if isinstance(attribute, AnnotatedTexts):
        return attribute
    if data.sensitive_features is None:
        return None
    return AnnotatedTexts(data.X, data.sensitive_features, data.y)


def _labelled_samples(
    labelled: AnnotatedTexts,
    encoder: Encoder,
    edits: Mapping[str, LatentEraser],
    data: FitData,
    *,
    even: bool,
) -> Samples:
    """The texts of known attribute; with ``even``, as many of every cell as can be of those large enough.

    Values with fewer than ``min_cell`` texts are left out where two others remain: their means are noise, and each
    value costs a direction.
    """
    config = data.config.selection
    y = None if labelled.y is None else np.asarray(labelled.y)
    codes, _, y = encode_labels(labelled.sensitive_features, y, len(labelled))
    rows = np.flatnonzero(codes >= 0)
    if even:
        common = np.bincount(codes[codes >= 0]) >= config.min_cell
        if common.sum() > 1:
            codes = np.where((codes >= 0) & common[codes], codes, -1)
        order = np.random.default_rng(data.random_state).permutation(len(codes))
        limit, enough = (config.max_texts, ENOUGH) if isinstance(labelled.texts, list) else (len(codes), None)
        rows = rows_of_every_cell(order, codes, y, limit, enough=enough)
        if not len(rows):
            raise InputError(
                'output_eraser="mean_difference" needs a class of the target that holds two attribute values; give '
                "labelled texts of both, or use output_eraser=None"
            )
    chosen = take(labelled.texts, rows)
    samples = Samples(encoder, edits, chosen, codes[rows], None if y is None else y[rows])
    if y is None:
        return samples
    cells = pd.factorize(y)[0] * (codes.max() + 1) + codes
    sizes, drawn = np.bincount(cells[codes >= 0]), np.bincount(cells[rows])
    return replace(samples, weights=sizes[cells[rows]] / drawn[cells[rows]])


def _fit_transformer(
    transformer: Any, attribute: Any, encoder: Encoder, edits: Mapping[str, LatentEraser], data: FitData
) -> tuple[Transformer, dict[str, Samples]]:
    """Fit a copy of the user's transformer on edited representations, with labels where there are any."""
    fitted: Transformer = clone(transformer)
    labels = [one for one in (labels_for_output(a, data) for a in members(attribute)) if one is not None]
    if labels:
        samples = _labelled_samples(labels[0], encoder, edits, data, even=False)
        fitted.fit(samples.edited, samples.y, sensitive_features=samples.z)
    else:
        samples = Samples.drawn(encoder, edits, data)
        fitted.fit(samples.edited)
    return fitted, {"attribute": samples}


def check_output(asked: Any) -> None:
    """Raise InputError for an ``output_eraser=`` that is none."""
    if asked is None or (isinstance(asked, str) and asked in ("auto", *KINDS)):
        return
    if isinstance(asked, str) or not all(hasattr(asked, name) for name in ("fit", "transform")):
        raise InputError(
            f"output_eraser is {asked!r}; expected one of 'auto', {', '.join(map(repr, KINDS))}, None, or a "
            "transformer with fit(X, y, sensitive_features=) and transform(X)"
        )
