"""What is known of the attribute, and how each kind of knowledge selects latents.

``SSAEDebiaser(attribute=)`` takes any of these, a list of them, or an object of your own with ``select``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from debias_ssae.core.config import DebiasConfig
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import Steps
from debias_ssae.model import Activations, LanguageModel
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.choices import Choices, choices_file
from debias_ssae.selection.scores import encode_labels, rows_of_every_cell
from debias_ssae.selection.select import Linear, Selection, select_from_concept, select_from_labels
from debias_ssae.text.checks import column, table_of, take
from debias_ssae.text.concept import Concept


class Encoder(Protocol):
    """What selection needs of a model: activations at a hookpoint, and pooled representations under edits."""

    @property
    def language_model(self) -> LanguageModel: ...

    def rows(self, X: Any, hookpoint: str) -> Activations: ...

    def encode(self, X: Any, edits: Mapping[str, Any] | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class FitData:
    """What ``fit`` was given, checked; excluded texts are gone."""

    X: Any
    """Texts, or a matrix ``[n, d]``."""
    y: np.ndarray | None
    config: DebiasConfig
    sensitive_features: Any = None
    exclude: Sequence[str] = ()
    n_latents: int | str = "auto"
    follows: Linear | None = None
    """The linear eraser that follows on the very activations that are edited (a matrix); None elsewhere."""
    random_state: int | None = None
    steps: Steps = field(default_factory=Steps)
    """Says what fit is doing."""


class Attribute(Protocol):
    """Selects the latents that carry an attribute."""

    def select(
        self, model: Encoder, hookpoint: str, sae: SparseAutoencoder, data: FitData
    ) -> Selection | Sequence[int] | np.ndarray:
        """Return a ``Selection``, or the ids of the latents to remove, best first."""
        ...


@dataclass(frozen=True, eq=False)
class AnnotatedTexts:
    """Texts whose attribute is known: labels of *other* texts, which train neither the SAE nor a classifier.

    Parameters
    ----------
    texts : sequence of str ``(n,)``, or a matrix ``(n, d)`` for a debiaser without an encoder
    sensitive_features : ``(n,)`` or ``(n, k)``
        Several columns are crossed; rows with a missing value are left out.
    y : ``(n,)``, optional
        The target: the attribute's effect is then looked for inside each class.
    """

    texts: Any
    sensitive_features: Any
    y: Any = None

    def __len__(self) -> int:
        return len(self.texts)

    def check(self, min_cell: int) -> None:
        """Raise InputError, before anything is trained, where labels cannot tell the attribute from the target."""
        codes, _, y = encode_labels(self.sensitive_features, self._y, len(self))
        known = codes >= 0
        if y is not None and _same_partition(y[known], codes[known]):
            raise InputError(
                "sensitive_features equals y on every labelled row, so the attribute cannot be told from the target; "
                'give a labelled set that holds both values in every class, or name a concept: attribute="gender"'
            )
        cells = pd.crosstab(np.zeros(known.sum()) if y is None else y[known], codes[known]).to_numpy()
        rest = cells.sum(axis=1, keepdims=True) - cells
        if not ((cells >= min_cell) & (rest >= min_cell)).any():
            raise InputError(
                f"no class of the target holds two attribute values with {min_cell} rows each, so the attribute "
                "cannot be told from the target; give a labelled set that holds more of both, or set "
                "selection.min_cell lower"
            )

    def without(self, unwanted: np.ndarray) -> "AnnotatedTexts":
        """The same less the rows ``unwanted`` (bool ``[n]``)."""
        if not unwanted.any():
            return self
        kept = np.flatnonzero(~unwanted)
        table = table_of(self.sensitive_features, "sensitive_features").iloc[kept]
        y = None if self.y is None else np.asarray(self.y)[kept]
        return AnnotatedTexts(take(self.texts, kept), table, y)

    def select(self, model: Encoder, hookpoint: str, sae: SparseAutoencoder, data: FitData) -> Selection:
        """Select the latents that differ between attribute values inside each class of ``y``."""
        texts, codes, values, y = self.drawn(data)
        return select_from_labels(
            sae,
            model.rows(texts, hookpoint),
            y,
            np.array(values)[codes],
            data.config.selection,
            n_latents=data.n_latents,
            output_eraser=data.follows,
            random_state=data.random_state,
        )

    def drawn(self, data: FitData) -> tuple[Any, np.ndarray, tuple[str, ...], np.ndarray | None]:
        """At most about ``max_labelled`` rows of known attribute, evenly from the cells: texts, codes, values, y."""
        codes, values, y = encode_labels(self.sensitive_features, self._y, len(self))
        rows, config = np.flatnonzero(codes >= 0), data.config.selection
        if len(rows) > config.max_labelled:
            order = np.random.default_rng(data.random_state).permutation(len(codes))
            rows = np.sort(rows_of_every_cell(order, codes, y, config.max_labelled, config.min_cell))
        return take(self.texts, rows), codes[rows], values, None if y is None else y[rows]

    @property
    def _y(self) -> np.ndarray | None:
        if self.y is None:
            return None
        y = column(self.y, "y")
        if y.dtype.kind in "biuf":
            return y.to_numpy()
        mixed = len({type(value) for value in y.dropna()}) > 1  # which NumPy cannot sort
        return np.array(
            [None if pd.isna(v) else str(v) if mixed else v for v in y.astype(object)] + [None], dtype=object
        )[:-1]


@dataclass(frozen=True)
class Words:
    """A concept: what changes when its words are swapped. No attribute label is read."""

    concept: Concept

    def select(self, model: Encoder, hookpoint: str, sae: SparseAutoencoder, data: FitData) -> Selection:
        """Select the latents that change between counterfactual pairs of the training texts."""
        return select_from_concept(
            model.language_model,
            sae,
            data.X,
            self.concept,
            data.config.selection,
            hookpoint=hookpoint,
            n_latents=data.n_latents,
            random_state=data.random_state,
        )


@dataclass(frozen=True, eq=False)
class Several:
    """Several attributes: each selects for itself, and all that was selected is removed together."""

    attributes: tuple[Any, ...]

    def select(self, model: Encoder, hookpoint: str, sae: SparseAutoencoder, data: FitData) -> Selection:
        """Join the selections; a latent that two of them name is removed once."""
        found = [as_selection(a.select(model, hookpoint, sae, data), sae) for a in self.attributes]
        ids = np.array(list(dict.fromkeys(i for one in found for i in one.ids.tolist())), dtype=np.int64)
        report = {"attributes": [{"ids": one.ids.tolist(), **one.report} for one in found]}
        return Selection(found[0].scores, ids, report)


@dataclass(frozen=True)
class Nothing:
    """Nothing is known, so nothing is removed."""

    def select(self, model: Encoder, hookpoint: str, sae: SparseAutoencoder, data: FitData) -> Selection:
        """Select no latent."""
        return Selection(None, np.array([], dtype=np.int64))


def as_attribute(given: Any) -> Any:
    """Return what ``attribute=given`` stands for; None stays None. Raises InputError for anything else."""
    if given is None or isinstance(given, AnnotatedTexts | Words | Several | Choices | Nothing):
        return given
    if isinstance(given, str | Path):
        given = read_attribute(given)
    if isinstance(given, Concept):
        return Words(given)
    if isinstance(given, list | tuple):
        return _several(given)
    if callable(getattr(given, "select", None)):
        return given
    raise InputError(
        f"attribute is {type(given).__name__}; expected the name of a concept, a file of a concept or of choices, a "
        "Concept, AnnotatedTexts, Choices, an object with a select method, or a list of these"
    )


def read_attribute(given: str | Path) -> Concept | Choices:
    """Return the shipped concept of that name, or what a path holds: a concept, or choices (also a folder's)."""
    if str(given) in Concept.shipped() or (file := choices_file(given)) is None:
        return Concept.load(given)
    return Choices.load(file)


def _several(given: Sequence[Any]) -> Any:
    if not given:
        raise InputError("attribute is an empty list; name at least one attribute")
    try:
        found = tuple(as_attribute(one) for one in given)
    except InputError as error:
        if all(isinstance(one, str) for one in given):
            words = ", ".join(map(repr, given))
            raise InputError(
                f"attribute=[{words}] is read as a list of concepts: {error}. To give words, write "
                f"attribute=Concept.from_words([{words}])"
            ) from error
        raise
    return found[0] if len(found) == 1 else Several(found)


def nothing_known(attribute: Any) -> str:
    """Why ``attribute`` can remove nothing; "" where it may remove something."""
    if all(isinstance(one, Choices) and not one.ids for one in members(attribute)):
        return (
            "no card of the choices is ticked, so nothing is removed; tick cards on the page, or in the file"
        )
    if isinstance(attribute, Nothing):
        return "no sensitive_features were given, so nothing is removed; pass sensitive_features to fit"
    return ""


def members(attribute: Any) -> tuple[Any, ...]:
    """The attributes that ``attribute`` is made of."""
    return attribute.attributes if isinstance(attribute, Several) else (attribute,)


def as_selection(found: Any, sae: SparseAutoencoder) -> Selection:
    """Return what an attribute's ``select`` gave as a Selection. Raises InputError for unusable ids."""
    if isinstance(found, Selection):
        selection = found
    else:
        ids = np.asarray(found)
        if ids.ndim != 1 or (len(ids) and not np.issubdtype(ids.dtype, np.integer)):
            raise InputError(
                f"the attribute's select returned {type(found).__name__}; expected a Selection or ids of latents [m]"
            )
        selection = Selection(None, ids.astype(np.int64))
    ids = np.asarray(selection.ids, dtype=np.int64)
    if len(ids) and not (ids.min() >= 0 and ids.max() < sae.cfg.d_sae):
        raise InputError(
            f"the attribute selected latents {ids.min()} to {ids.max()}, but the SAE has {sae.cfg.d_sae}"
        )
    if len(np.unique(ids)) < len(ids):
        raise InputError("the attribute selected one latent twice; name each once")
    return replace(selection, ids=ids)


def _same_partition(y: np.ndarray, z: np.ndarray) -> bool:
    """Whether the attribute's value follows from the class alone, and the class from the value."""
    pairs = {(str(a), str(b)) for a, b in zip(y, z, strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 1
