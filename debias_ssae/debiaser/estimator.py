"""``SSAEDebiaser``: scikit-learn in front, no algorithm inside."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from debias_ssae.core.config import DebiasConfig
from debias_ssae.core.errors import NothingRemovedWarning
from debias_ssae.debiaser import persistence
from debias_ssae.debiaser.checks import (
    check_lengths,
    check_params,
    check_regime,
    check_saes,
    check_target,
)
from debias_ssae.debiaser.hookpoints import Sample, choose_hookpoint, draw_sample, places
from debias_ssae.debiaser.intervention import Intervention
from debias_ssae.debiaser.matrix import MATRIX, edit_matrix, learn_from_matrix
from debias_ssae.debiaser.residual import (
    LABELLED_RESIDUALS,
    Rows,
    fit_counterfactual,
    fit_labelled,
    residual_kind,
)
from debias_ssae.debiaser.settings import (
    config_for,
    config_of,
    make_encoder,
    read_concept,
    read_corpus,
    read_sae,
    seed_of,
)
from debias_ssae.erase import LatentEraser, LinearEraser
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.text.checks import check_texts
from debias_ssae.text.concept import Concept


class SSAEDebiaser(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Remove an attribute from text representations with a specialised sparse autoencoder.

    Parameters
    ----------
    encoder : str, ActivationEncoder or None, default=None
        The language model ("minilm", a directory, a hub id). With None, ``X`` is a matrix of activations.
    corpus : path or sequence of str, optional
        Texts to retrieve the subdomain from. Without it the training texts are used alone.
    sae : path or SparseAutoencoder, optional
        A general SAE to fine-tune, in any format this package reads; of several hookpoints a mapping.
    concept : str, path or Concept, optional
        Describes the attribute by words to swap; no labels are needed then.
    hookpoint : str or sequence of str, default="embeddings"
        Where the model is edited; several are edited in one pass, each with an SAE of its own. "auto" trains one at
        the embeddings, in the middle and at the output, and takes the one whose edit leaves least of the
        attribute (docs/debiaser.md).
    layer, pooling : str, default="final", "mean"
        The representation that is returned. An ActivationEncoder as ``encoder`` brings its own, and its
        max_length bounds what is learnt from as well.
    edit : {"remove", "keep"}, default="remove"
        "keep" is for an attribute that is everywhere (style, domain) and the labelled regime at hookpoint="final":
        only the latents that carry more of the target than of the attribute stay, all else goes.
    n_latents : int or "auto", default="auto"
        How many latents to remove (or keep) at most; "auto" goes by a rule (docs/debiaser.md).
    alpha : float, default=1.0
        Share of the latents' writing that is removed; 0 returns the plain representation, bit for bit.
    residual : {"auto", "counterfactual", "mean_difference", "leace", None}, default="auto"
        A linear eraser on the pooled output, after the edit: the attribute's direction in the plain model from
        counterfactuals ("counterfactual"), or from labels that one and what still differs after the edit
        ("mean_difference"), or the latter by LEACE ("leace"). "auto" is "counterfactual" with a concept that has words
        to swap, "mean_difference"
        with labels.
    cache_dir : path, optional
        Keeps embeddings, activations and SAEs between fits.
    device : str, default="auto"
    config : DebiasConfig, optional
        All other knobs.
    random_state : int, RandomState or None
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    interventions_ : dict of str to Intervention
        For each hookpoint its SAE, what was found, the eraser and the record.
    sae_, scores_, latents_, eraser_, record_ :
        Those of the first hookpoint.
    concept_ : Concept or None
        The concept as it was read.
    shift_ : ndarray or None
        Added to the output so that the training mean stays where it was (``config.recenter``; an eraser of the plain
        model's direction has a centre of its own).

    Notes
    -----
    Labelled and concept regime are never mixed: with ``concept`` the labels given to fit are not read, unless
    ``residual="leace"`` or ``"mean_difference"`` asks for them.
    """

    interventions_: dict[str, Intervention]
    concept_: Concept | None
    residual_: LinearEraser | None
    shift_: np.ndarray | None

    def __init__(
        self,
        encoder: str | ActivationEncoder | None = None,
        *,
        corpus: str | Path | Sequence[str] | None = None,
        sae: str | Path | SparseAutoencoder | Mapping[str, Any] | None = None,
        concept: str | Path | Concept | None = None,
        hookpoint: str | Sequence[str] = "embeddings",
        layer: str = "final",
        pooling: str = "mean",
        edit: str = "remove",
        n_latents: int | str = "auto",
        alpha: float = 1.0,
        residual: str | None = "auto",
        cache_dir: str | Path | None = None,
        device: str = "auto",
        config: DebiasConfig | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.corpus = corpus
        self.sae = sae
        self.concept = concept
        self.hookpoint = hookpoint
        self.layer = layer
        self.pooling = pooling
        self.edit = edit
        self.n_latents = n_latents
        self.alpha = alpha
        self.residual = residual
        self.cache_dir = cache_dir
        self.device = device
        self.config = config
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Learn what to remove.

        Parameters
        ----------
        X : texts, or a matrix ``(n, d)`` where ``encoder`` is None
        y : target ``(n,)``, optional
            The labelled regime looks for the attribute's effect inside each class.
        sensitive_features : ``(n,)`` or ``(n, k)``, optional
            Rows with a missing value, here or in ``y``, train the SAE and are left out of the selection.

        Raises
        ------
        InputError
            For unusable parameters or data, with the cure; nothing is fitted then.
        """
        self._forget()
        check_params(self)
        if y is not None:
            y = column_or_1d(y)
            check_target(y)
        if self.encoder is None:
            return self._fit_matrix(X, y, sensitive_features)
        texts = check_texts(X)
        check_lengths(len(texts), y, sensitive_features)
        concept = read_concept(self.concept)
        check_regime(self, concept, y, sensitive_features)
        if concept is not None and concept.pairs:
            concept.check_occurs(texts)  # before anything is trained
        return self._fit_texts(texts, concept, y, sensitive_features)

    def transform(self, X: Any) -> np.ndarray:
        """Return debiased representations ``(n, d)``. The attribute is never needed."""
        check_is_fitted(self)
        if self.encoder is None:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
            return self._finish(self._edit_matrix(X))
        return self._finish(self._represent(check_texts(X)))

    @property
    def edits(self) -> dict[str, LatentEraser]:
        """The erasers by hookpoint; those that change nothing are left out."""
        return {
            name: part.eraser for name, part in self.interventions_.items() if part.eraser.changes_anything
        }

    @property
    def changes_anything(self) -> bool:
        """False where transform returns the plain representation."""
        return bool(self.edits)

    @property
    def residual_kind_(self) -> str | None:
        """Which residual eraser follows the edit: what ``residual="auto"`` came to."""
        return residual_kind(self.residual, self.concept_, changes_anything=self.changes_anything)

    def save(self, directory: str | Path) -> None:
        """Write one directory of safetensors and JSON, whole or not at all."""
        check_is_fitted(self)
        persistence.save(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> "SSAEDebiaser":
        """Read what ``save`` wrote; raises InputError for anything else."""
        return persistence.load(cls, Path(directory))

    def _fit_texts(self, texts: list[str], concept: Concept | None, y: np.ndarray | None, z: Any) -> Self:
        if isinstance(self.encoder, ActivationEncoder):
            _ = self.encoder.language_model  # loaded once, for all debiasers that are given this encoder
        self.encoder_, self.concept_ = make_encoder(self), concept
        if concept is not None and concept.pairs:
            self.encoder_.language_model.check_spans()
        hookpoints, corpus = places(self.hookpoint, self.encoder_, texts), read_corpus(self.corpus)
        check_saes(self.sae, hookpoints)
        sample = None
        if self.hookpoint == "auto":  # drawn before anything is trained, since the texts may not do
            sample = draw_sample(
                texts,
                concept=concept,
                y=y,
                sensitive_features=z,
                min_cell=config_of(self).selection.min_cell,
                random_state=seed_of(self),
            )
        self.interventions_ = {
            name: self._learn_part(name, texts, corpus, concept, y, z) for name in hookpoints
        }
        if sample is not None:
            self.interventions_ = self._best_part(sample)
        return self._finish_texts(texts, z, y)

    def _best_part(self, sample: Sample) -> dict[str, Intervention]:
        best, left = choose_hookpoint(self.encoder_, self.interventions_, sample)
        part = self.interventions_[best]
        return {best: replace(part, record={**part.record, "left_by_hookpoint": left})}

    def _learn_part(
        self,
        hookpoint: str,
        texts: list[str],
        corpus: list[str] | None,
        concept: Concept | None,
        y: np.ndarray | None,
        z: Any,
    ) -> Intervention:
        return Intervention.learn(
            self.encoder_.language_model,
            hookpoint,
            texts,
            config_for(self, self.encoder_),
            corpus=corpus,
            concept=concept,
            y=y,
            sensitive_features=z,
            general=read_sae(self.sae, hookpoint),
            keep=self.edit == "keep",
            n_latents=self.n_latents,
            alpha=self.alpha,
            random_state=seed_of(self),
            cache_dir=self.cache_dir,
            progress=self.verbose,
        )

    def _forget(self) -> None:
        """Drop what an earlier fit has learnt, so that one that fails leaves nothing fitted."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_out_")  # what fit sets last

    def _fit_matrix(self, X: Any, y: np.ndarray | None, z: Any) -> Self:
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_lengths(len(X), y, z)
        check_regime(self, None, y, z)
        self.interventions_ = {MATRIX: learn_from_matrix(self, X, y, z)}
        if z is None:
            warnings.warn(
                "no sensitive_features were given, so nothing is removed; pass sensitive_features to fit",
                NothingRemovedWarning,
                stacklevel=3,
            )
        self.concept_, edited = None, self._edit_matrix(X)
        self._fit_after_edit(Rows(lambda at: X[at], lambda at: edited[at], len(X), len(X)), z, y)
        self.n_features_out_ = X.shape[1]
        return self

    def _finish_texts(self, texts: list[str], z: Any, y: np.ndarray | None) -> Self:
        self._fit_after_edit(
            Rows(
                lambda at: self.encoder_.encode([texts[i] for i in at]),
                lambda at: self._represent([texts[i] for i in at]),
                len(texts),
                config_of(self).selection.max_texts,
            ),
            z,
            y,
            texts,
        )
        self.n_features_out_ = self.encoder_.language_model.d_model
        return self

    def _fit_after_edit(self, rows: Rows, z: Any, y: np.ndarray | None, texts: Sequence[str] = ()) -> None:
        """What follows the edit: a residual eraser, and the shift where that has no centre in the plain model."""
        config, seed, keep = config_of(self), seed_of(self), self.edit == "keep"
        self.residual_, self.shift_ = None, None
        kind = self.residual_kind_
        if kind in LABELLED_RESIDUALS:
            self.residual_ = fit_labelled(
                kind, rows, z, y, keep=keep, min_cell=config.selection.min_cell, random_state=seed
            )
        elif kind == "counterfactual" and self.concept_ is not None:
            self.residual_ = fit_counterfactual(self.encoder_, texts, self.concept_, rows.limit, seed)
        has_center = kind == "counterfactual" or (kind == "mean_difference" and not keep)
        if config.recenter and self.changes_anything and not has_center:
            sample = np.random.default_rng(seed).permutation(rows.n)[: rows.limit]
            self._recenter(rows.plain(sample), rows.edited(sample))

    def _represent(self, texts: Sequence[str]) -> np.ndarray:
        """The pooled representation with the edit inside the model, before any residual eraser."""
        return self.encoder_.encode(texts, self.edits)

    def _edit_matrix(self, X: np.ndarray) -> np.ndarray:
        if not self.changes_anything:
            return X.copy()
        return edit_matrix(self.eraser_, X)

    def _recenter(self, plain: np.ndarray, edited: np.ndarray) -> None:
        """Keep the training mean in place, so that a classifier already deployed keeps its intercept."""
        self.shift_ = (plain.mean(axis=0) - self._finish(edited).mean(axis=0)).astype(plain.dtype)

    def _finish(self, x: np.ndarray) -> np.ndarray:
        """What follows the edit: the residual eraser, then the shift."""
        x = x if self.residual_ is None else self.residual_(x)
        return x if self.shift_ is None else x + self.shift_

    @property
    def _first(self) -> Intervention:
        return next(iter(self.interventions_.values()))

    sae_ = property(lambda self: self._first.sae)
    scores_ = property(lambda self: self._first.scores)
    latents_ = property(lambda self: self._first.latents)
    eraser_ = property(lambda self: self._first.eraser)
    record_ = property(lambda self: self._first.record)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if self.encoder is not None:
            tags.input_tags.string = True
            tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if self.encoder is None else []
        return tags
