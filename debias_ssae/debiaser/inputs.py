"""What the constructor's parameters and the arguments of ``fit`` stand for, read and checked before any training."""

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import column_or_1d

from debias_ssae.core.cache import cache_directory
from debias_ssae.core.config import DebiasConfig, load_config
from debias_ssae.core.device import pick_device
from debias_ssae.core.errors import FewWordsWarning, InputError, check_seed
from debias_ssae.core.steps import Steps, to_stderr
from debias_ssae.debiaser.matrix import MATRIX, MatrixEncoder
from debias_ssae.debiaser.output import (
    FROM_LABELS,
    check_evidence,
    check_output,
    output_kind,
)
from debias_ssae.debiaser.pipeline import Spec
from debias_ssae.model import embed
from debias_ssae.model.encoder import ActivationEncoder, as_encoder
from debias_ssae.model.language_model import check_hookpoints
from debias_ssae.retrieval import unsaid
from debias_ssae.sae.formats import load_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import (
    AnnotatedTexts,
    FitData,
    Nothing,
    Several,
    Words,
    as_attribute,
    members,
)
from debias_ssae.selection.select import Linear
from debias_ssae.text import load_corpus
from debias_ssae.text.checks import check_labels, check_texts, column, table_of
from debias_ssae.text.concept import Concept

if TYPE_CHECKING:
    from debias_ssae.debiaser.estimator import SSAEDebiaser

PROBED = 1000
"""Characters of the text on which it is tried whether an edit reaches the representation."""


def read_fit(
    debiaser: "SSAEDebiaser", X: Any, y: Any, sensitive_features: Any, exclude: Any
) -> tuple[Spec, FitData]:
    """Return what ``fit`` is to do, and with what. Raises InputError, with the cure, for anything unusable."""
    check_params(debiaser)
    config, attribute = load_config(DebiasConfig, debiaser.config), as_attribute(debiaser.attribute)
    if y is not None:
        column(y, "y")
        y = column_or_1d(y)
        check_labels(y, "y")
    X = X if debiaser.encoder is None else check_texts(X)
    _check_lengths(len(X), y, sensitive_features)
    if debiaser.encoder is None:
        return _read_matrix(debiaser, X, y, sensitive_features, exclude, config, attribute)
    excluded = [] if exclude is None else check_texts(exclude, name="exclude", may_be_empty=True)
    X, y, sensitive_features = _without(excluded, X, y, sensitive_features)
    attribute = _resolved(attribute, X, y, sensitive_features, excluded)
    for one in members(attribute):
        if isinstance(one, AnnotatedTexts):
            one.check(config.selection.min_cell)
        elif isinstance(one, Words):
            _check_words(one.concept, X, config.selection.min_cell)
    encoder = make_encoder(debiaser, config)
    data = FitData(
        X,
        y,
        trained_on(encoder, config),
        sensitive_features=sensitive_features,
        exclude=excluded,
        n_latents=debiaser.n_latents,
        random_state=seed_of(debiaser.random_state),
        steps=Steps(to_stderr),
    )
    check_evidence(debiaser.output_eraser, attribute, data)
    hookpoints = _hookpoints(debiaser.hookpoint, attribute, encoder, X)
    if any(isinstance(one, Words) for one in members(attribute)):
        encoder.language_model.check_spans()
    spec = Spec(
        encoder=encoder,
        attribute=attribute,
        hookpoints=hookpoints,
        corpus=read_corpus(debiaser.corpus),
        saes=read_saes(debiaser.sae, hookpoints, encoder.language_model.name),
        output_eraser=debiaser.output_eraser,
        alpha=debiaser.alpha,
        cache_dir=cache_directory(debiaser.cache_dir),
    )
    return spec, data


def _read_matrix(
    debiaser: "SSAEDebiaser",
    X: np.ndarray,
    y: np.ndarray | None,
    z: Any,
    exclude: Any,
    config: DebiasConfig,
    attribute: Any,
) -> tuple[Spec, FitData]:
    if exclude is not None:
        raise InputError("exclude= compares texts, but X is a matrix; leave the rows out of X instead")
    for one in members(attribute):
        if isinstance(one, Words):
            raise InputError(
                "a concept swaps words and needs texts; name an encoder=, or pass sensitive_features to fit"
            )
    if attribute is None:
        attribute = Nothing() if z is None else AnnotatedTexts(X, z, y)
    for one in members(attribute):
        if isinstance(one, AnnotatedTexts):
            one.check(config.selection.min_cell)
    saes = read_saes(debiaser.sae, (MATRIX,))
    kind = output_kind(debiaser.output_eraser, attribute, edits=True)
    follows: Linear | None = FROM_LABELS.get(kind) if isinstance(kind, str) else None
    data = FitData(
        X,
        y,
        _trained_on(debiaser.device, config),
        sensitive_features=z,
        n_latents=debiaser.n_latents,
        follows=follows,
        random_state=seed_of(debiaser.random_state),
    )
    check_evidence(debiaser.output_eraser, attribute, data)
    encoder = MatrixEncoder.of(X, as_they_are=bool(saes))
    return Spec(encoder, attribute, (MATRIX,), None, saes, debiaser.output_eraser, debiaser.alpha, None), data


def _resolved(attribute: Any, X: list[str], y: np.ndarray | None, z: Any, excluded: list[str]) -> Any:
    """The attribute with the labels given to ``fit`` where no other is named, without excluded texts."""
    if attribute is None:
        if z is None:
            raise InputError(
                "nothing says what to remove: pass sensitive_features to fit, or set attribute= (a concept such as "
                '"gender", AnnotatedTexts, or Choices); debias_ssae.discover finds a shortcut that nobody named'
            )
        return AnnotatedTexts(X, z, y)
    if not excluded:
        return attribute
    found = tuple(
        one.without(~unsaid(check_texts(one.texts), excluded)) if isinstance(one, AnnotatedTexts) else one
        for one in members(attribute)
    )
    return Several(found) if isinstance(attribute, Several) else found[0]


def _check_words(concept: Concept, texts: list[str], enough: int) -> None:
    """Warn where so few texts hold words of the concept that what differs between them may be anything."""
    n = concept.check_occurs(texts, enough)
    if n < enough and n < len(texts) / 2:
        warnings.warn(
            f"only {n} of {len(texts)} texts have a counterfactual by the concept {concept.name!r}, so the latents "
            "that are found may stand for something else; `debias-ssae concept check` says which words occur",
            FewWordsWarning,
            stacklevel=4,
        )


def _without(
    excluded: list[str], texts: list[str], y: np.ndarray | None, z: Any
) -> tuple[list[str], np.ndarray | None, Any]:
    kept = unsaid(texts, excluded)
    if kept.all():
        return texts, y, z
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise InputError("exclude= names every text of X, so none is left to fit on")
    if z is not None:
        z = table_of(z, "sensitive_features").iloc[rows]
    return [texts[i] for i in rows.tolist()], None if y is None else y[rows], z


def check_params(debiaser: "SSAEDebiaser") -> None:
    """Raise InputError for a constructor parameter that cannot be."""
    n = debiaser.n_latents
    if not (isinstance(n, str) and n == "auto") and (
        isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0
    ):
        raise InputError(f'n_latents is {n!r}; expected "auto" or a whole number, 0 or more')
    alpha = debiaser.alpha
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= float(alpha) < math.inf:
        raise InputError(f"alpha is {alpha!r}; expected a number, 0 or more: 1 removes all")
    check_output(debiaser.output_eraser)
    _check_hookpoint(debiaser.hookpoint, debiaser.sae)
    if hasattr(debiaser.corpus, "__next__"):
        raise InputError(
            "corpus is a one-shot iterator; pass a list or a path, since it is read more than once"
        )
    if debiaser.encoder is None and debiaser.output_eraser == "counterfactual":
        raise InputError(
            'output_eraser="counterfactual" swaps words and needs texts; name an encoder=, or use "leace" or None'
        )


def _check_hookpoint(hookpoint: Any, sae: Any) -> None:
    if not isinstance(hookpoint, str | Sequence):
        raise InputError(f"hookpoint is {hookpoint!r}; expected a name or several")
    if not len(hookpoint):
        raise InputError("hookpoint is empty, so nothing would be edited; name at least one")
    if (
        not isinstance(hookpoint, str)
        and len(hookpoint) > 1
        and sae is not None
        and not isinstance(sae, Mapping)
    ):
        raise InputError(
            "one sae is given for several hookpoints, but an SAE reads the activations of one; give a mapping of "
            "hookpoint to sae, or name the hookpoint that it was trained at"
        )


def _hookpoints(
    hookpoint: str | Sequence[str], attribute: Any, encoder: ActivationEncoder, texts: Sequence[str]
) -> tuple[str, ...]:
    """The hookpoints to edit. Raises InputError for one from which no edit reaches the representation."""
    names = [hookpoint] if isinstance(hookpoint, str) else list(hookpoint)
    if chosen := getattr(attribute, "saes", None):
        names = list(chosen)  # a choice of latents says where they are
    model = encoder.language_model
    check_hookpoints([*names, encoder.layer], model.hookpoints)
    for name in names:
        if not _reaches(encoder, name, max(texts, key=len)[:PROBED]):
            cure = (
                'use pooling="mean"'
                if "cls" in encoder.readout.modes
                else "name an earlier hookpoint or a later layer"
            )
            raise InputError(
                f"an edit at {name} changes nothing in what is returned (layer={encoder.layer!r}, "
                f"pooling={encoder.pooling!r}); {cure}"
            )
    return tuple(names)


def _reaches(encoder: ActivationEncoder, hookpoint: str, text: str) -> bool:
    """Whether an edit at ``hookpoint`` reaches the representation: tried on one text, which must not be blank.

    Edits change real tokens only, and "cls" reads a special one, so that some attention must lie between.
    """
    model = encoder.language_model
    if model.hookpoints.index(hookpoint) > model.hookpoints.index(encoder.layer):
        return False
    options: dict[str, Any] = {"layer": encoder.layer, "pooling": encoder.pooling}
    plain, edited = (embed(model, [text], edits=edits, **options) for edits in ({}, {hookpoint: torch.neg}))
    return not text.strip() or not np.array_equal(plain, edited)


def trained_on(encoder: ActivationEncoder, config: DebiasConfig) -> DebiasConfig:
    """The settings with the encoder's device wherever they leave that of training open."""
    where = encoder.language_model.device
    return _trained_on("auto" if where.type == pick_device().type else str(where), config)


def _trained_on(device: str, config: DebiasConfig) -> DebiasConfig:
    """The settings with ``device`` wherever they leave the device of training open."""
    changes = {
        name: train.updated(device=device)
        for name, train in (("general", config.general), ("special", config.special))
        if train is not None and train.device == "auto" and device != "auto"
    }
    return config.model_copy(update=changes)


def seed_of(state: Any) -> int | None:
    """A number from ``random_state``; a RandomState gives the next one."""
    if isinstance(state, np.random.RandomState):
        return int(state.randint(2**31 - 1))
    return check_seed(state)


def make_encoder(debiaser: "SSAEDebiaser", config: DebiasConfig) -> ActivationEncoder:
    """The encoder to work with; of an ActivationEncoder a copy, which later changes of that one do not reach."""
    if isinstance(debiaser.encoder, ActivationEncoder):
        _ = debiaser.encoder.loaded  # loaded once, for all debiasers that are given this encoder
    in_memory = not isinstance(debiaser.encoder, str | Path)
    return as_encoder(
        debiaser.encoder,
        layer=debiaser.layer,
        pooling=debiaser.pooling,
        # what every text becomes is kept where that was asked for, not by default
        cache_dir=None if debiaser.cache_dir == "auto" else debiaser.cache_dir,
        **config.activations.model_dump(),
        **({} if in_memory else {"device": debiaser.device}),
    )


def read_corpus(corpus: Any) -> list[str] | None:
    """The texts to retrieve from, read where a path names them."""
    if corpus is None:
        return None
    return load_corpus(corpus) if isinstance(corpus, str | Path) else check_texts(corpus)


def read_saes(sae: Any, hookpoints: Sequence[str], model: str | None = None) -> dict[str, SparseAutoencoder]:
    """The general SAEs by hookpoint, read where paths name them; warned of where those say another origin."""
    if sae is None:
        return {}
    given = sae if isinstance(sae, Mapping) else {hookpoints[0]: sae}
    strange = sorted(set(given) - set(hookpoints))
    if strange:
        raise InputError(f"sae names {', '.join(map(repr, strange))}, but edited are {', '.join(hookpoints)}")
    found = {}
    for hookpoint, one in given.items():
        if not isinstance(one, str | Path | SparseAutoencoder):
            raise InputError(f"sae is {type(one).__name__}; expected a path or a SparseAutoencoder")
        if not isinstance(one, SparseAutoencoder):
            one = load_sae(one, model=model, hookpoint=None if model is None else hookpoint)
        found[hookpoint] = one
    return found


def _check_lengths(n: int, y: Any, z: Any) -> None:
    """Raise InputError where labels and samples differ in number."""
    for name, values in (("y", y), ("sensitive_features", z)):
        try:
            differs = values is not None and len(values) != n
        except TypeError as error:
            raise InputError(
                f"{name} is {type(values).__name__}; expected an array with a value for each of the {n} samples"
            ) from error
        if differs:
            raise InputError(f"X has {n} samples, but {name} has {len(values)}; they must agree")
