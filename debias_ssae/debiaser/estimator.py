"""``SSAEDebiaser``: scikit-learn in front, no algorithm inside."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from debias_ssae.ablation import LatentEraser, LinearEraser
from debias_ssae.activations import Activations
from debias_ssae.concept import Concept
from debias_ssae.config import DebiasConfig
from debias_ssae.datasets import load_corpus
from debias_ssae.debiaser import persistence
from debias_ssae.debiaser.checks import check_lengths, check_params, check_regime
from debias_ssae.debiaser.finding import find_from_labels
from debias_ssae.debiaser.hookpoints import candidates, choose_hookpoint
from debias_ssae.debiaser.part import Part
from debias_ssae.debiaser.residual import fit_leace, fit_residual
from debias_ssae.debiaser.specialise import learn_from_rows
from debias_ssae.encoder import ActivationEncoder, check_texts
from debias_ssae.exceptions import InputError, NothingRemovedWarning
from debias_ssae.sae.formats import load_sae
from debias_ssae.sae.model import SparseAutoencoder

MATRIX = "matrix"
"""The one part of a debiaser without an encoder."""


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
        The representation that is returned. An ActivationEncoder as ``encoder`` brings its own.
    edit : {"remove", "keep"}, default="remove"
        "keep" is for an attribute that is everywhere (style, domain) and the labelled regime at hookpoint="final":
        only the latents that carry more of the target than of the attribute stay, all else goes.
    n_latents : int or "auto", default="auto"
        How many latents to remove (or keep) at most; "auto" goes by a rule (docs/debiaser.md).
    alpha : float, default=1.0
        Share of the latents' writing that is removed; 0 returns the plain representation, bit for bit.
    residual : {"auto", "counterfactual", "leace", None}, default="auto"
        A linear eraser on the pooled output, after the edit: "counterfactual" takes out the mean difference between
        twins in the plain model, "leace" what labels show after the edit. "auto" is "counterfactual" with a
        concept, else None.
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
    parts_ : dict of str to Part
        For each hookpoint its SAE, what was found, the eraser and the record.
    sae_, scores_, latents_, eraser_, record_ :
        Those of the first hookpoint.
    shift_ : ndarray or None
        Added to the output so that the training mean stays where it was (``config.recenter``; a residual eraser
        has a centre of its own).

    Notes
    -----
    Labelled and concept regime are never mixed: with ``concept`` the labels given to fit are not read, unless
    ``residual="leace"`` asks for them.
    """

    parts_: dict[str, Part]
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
            Rows with a missing value train the SAE and are left out of the selection.

        Raises
        ------
        InputError
            For unusable parameters or data, with the cure.
        """
        check_params(self)
        y = None if y is None else np.asarray(y)
        if self.encoder is None:
            return self._fit_matrix(X, y, sensitive_features)
        texts = check_texts(X)
        check_lengths(len(texts), y, sensitive_features)
        check_regime(self.concept, y, sensitive_features, keep=self.edit == "keep")
        return self._fit_texts(texts, y, sensitive_features)

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
        return {name: part.eraser for name, part in self.parts_.items() if part.eraser.changes_anything}

    @property
    def changes_anything(self) -> bool:
        """False where transform returns the plain representation."""
        return bool(self.edits)

    def save(self, directory: str | Path) -> None:
        """Write one directory of safetensors and JSON, whole or not at all."""
        check_is_fitted(self)
        persistence.save(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> "SSAEDebiaser":
        """Read what ``save`` wrote; raises InputError for anything else."""
        return persistence.load(cls, Path(directory))

    def _fit_texts(self, texts: list[str], y: np.ndarray | None, z: Any) -> Self:
        self.encoder_ = self._make_encoder()
        concept, corpus = self._load_concept(), self._load_corpus()
        self.parts_ = {
            hookpoint: self._learn_part(hookpoint, texts, corpus, concept, y, z)
            for hookpoint in self._hookpoints()
        }
        if self.hookpoint == "auto":
            self.parts_ = self._best_part(texts, concept, y, z)
        self.residual_, self.shift_ = None, None
        self.n_features_out_ = self.encoder_.fit(texts[:1]).n_features_out_
        self._fit_after_edit(texts, concept, z, y)
        return self

    def _best_part(
        self, texts: list[str], concept: Concept | None, y: np.ndarray | None, z: Any
    ) -> dict[str, Part]:
        best, left = choose_hookpoint(
            self.encoder_,
            self.parts_,
            texts,
            concept=concept,
            y=y,
            sensitive_features=z,
            min_cell=self._config().selection.min_cell,
            random_state=self._seed(),
        )
        part = self.parts_[best]
        return {best: replace(part, record={**part.record, "left_by_hookpoint": left})}

    def _learn_part(
        self,
        hookpoint: str,
        texts: list[str],
        corpus: list[str] | None,
        concept: Concept | None,
        y: np.ndarray | None,
        z: Any,
    ) -> Part:
        return Part.learn(
            self.encoder_.language_model,
            hookpoint,
            texts,
            self._config(),
            corpus=corpus,
            concept=concept,
            y=y,
            sensitive_features=z,
            general=self._load_sae(hookpoint),
            keep=self.edit == "keep",
            n_latents=self.n_latents,
            alpha=self.alpha,
            random_state=self._seed(),
            cache_dir=self.cache_dir,
            progress=self.verbose,
        )

    def _fit_matrix(self, X: Any, y: np.ndarray | None, z: Any) -> Self:
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_lengths(len(X), y, z)
        x = _tensor(X)
        self.residual_, self.shift_, self.n_features_out_ = None, None, X.shape[1]
        learned = learn_from_rows(
            x,
            self._config(),
            general=self._load_sae(MATRIX),
            random_state=self._seed(),
            progress=self.verbose,
        )
        if z is None:
            warnings.warn(
                "no sensitive_features were given, so nothing is removed; pass sensitive_features to fit",
                NothingRemovedWarning,
                stacklevel=3,
            )
            self.parts_ = {MATRIX: Part.cut(learned, None, self.alpha)}
            return self
        check_regime(self.concept, y, z, keep=self.edit == "keep")
        n = len(x)
        blank = torch.zeros(n, 2, dtype=torch.long)
        rows = Activations(x, torch.arange(n), torch.zeros(n, dtype=torch.long), blank, n)
        found = find_from_labels(
            learned.sae,
            rows,
            y,
            z,
            self._config().selection,
            keep=self.edit == "keep",
            n_latents=self.n_latents,
            random_state=self._seed(),
        )
        self.parts_ = {MATRIX: Part.cut(learned, found, self.alpha)}
        if self.residual == "leace":
            self.residual_ = fit_leace(self._edit_matrix(X), z, y)
        elif self._config().recenter and self.changes_anything:
            self._recenter(X, self._edit_matrix(X))
        return self

    def _fit_after_edit(
        self, texts: list[str], concept: Concept | None, z: Any, y: np.ndarray | None
    ) -> None:
        """What follows the edit: a residual eraser, or else the shift."""
        config = self._config()
        self._fit_residual(texts, concept, z, y)
        if config.recenter and self.residual_ is None and self.changes_anything:
            order = np.random.default_rng(self._seed()).permutation(len(texts))[: config.selection.max_texts]
            sample = [texts[i] for i in order]
            self._recenter(self.encoder_.encode(sample), self._represent(sample))

    def _fit_residual(self, texts: list[str], concept: Concept | None, z: Any, y: np.ndarray | None) -> None:
        kind = self.residual
        if kind == "auto":
            kind = "counterfactual" if concept is not None and self.changes_anything else None
        if kind == "leace":
            if z is None:
                raise InputError(
                    'residual="leace" needs sensitive_features in fit; without labels use "counterfactual"'
                )
            self.residual_ = fit_leace(self._represent(texts), z, y)
        elif kind == "counterfactual":
            if concept is None:
                raise InputError('residual="counterfactual" needs concept=; with labels use "leace"')
            self.residual_ = fit_residual(
                self.encoder_, texts, concept, self._config().selection.max_texts, self._seed()
            )

    def _represent(self, texts: Sequence[str]) -> np.ndarray:
        """The pooled representation with the edit inside the model, before any residual eraser."""
        return self.encoder_.encode(texts, self.edits)

    def _edit_matrix(self, X: np.ndarray) -> np.ndarray:
        if not self.changes_anything:
            return X
        return self.eraser_(_tensor(X)).numpy().astype(X.dtype)

    def _recenter(self, plain: np.ndarray, edited: np.ndarray) -> None:
        """Keep the training mean in place, so that a classifier already deployed keeps its intercept."""
        self.shift_ = (plain.mean(axis=0) - self._finish(edited).mean(axis=0)).astype(plain.dtype)

    def _finish(self, x: np.ndarray) -> np.ndarray:
        """What follows the edit: the residual eraser, then the shift."""
        x = x if self.residual_ is None else self.residual_(x)
        return x if self.shift_ is None else x + self.shift_

    def _config(self) -> DebiasConfig:
        return self.config if self.config is not None else DebiasConfig()

    def _seed(self) -> int | None:
        if self.random_state is None:
            return None
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _make_encoder(self) -> ActivationEncoder:
        if isinstance(self.encoder, ActivationEncoder):
            return self.encoder
        settings = self._config().activations
        return ActivationEncoder(
            str(self.encoder),
            layer=self.layer,
            pooling=self.pooling,
            cache_dir=self.cache_dir,
            device=self.device,
            dtype=settings.dtype,
            max_length=settings.max_length,
            token_budget=settings.token_budget,
            verbose=self.verbose,
        )

    def _load_corpus(self) -> list[str] | None:
        if self.corpus is None:
            return None
        return load_corpus(self.corpus) if isinstance(self.corpus, str | Path) else check_texts(self.corpus)

    def _load_sae(self, hookpoint: str) -> SparseAutoencoder | None:
        sae = self.sae.get(hookpoint) if isinstance(self.sae, Mapping) else self.sae
        return load_sae(sae) if isinstance(sae, str | Path) else sae

    def _hookpoints(self) -> list[str]:
        if self.hookpoint == "auto":
            return candidates(self.encoder_.language_model)
        return [self.hookpoint] if isinstance(self.hookpoint, str) else list(self.hookpoint)

    def _load_concept(self) -> Concept | None:
        return Concept.load(self.concept) if isinstance(self.concept, str | Path) else self.concept

    @property
    def _first(self) -> Part:
        return next(iter(self.parts_.values()))

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


def _tensor(X: np.ndarray) -> torch.Tensor:
    """A float32 copy, so that read-only input stays untouched."""
    return torch.from_numpy(np.array(X, dtype=np.float32, order="C"))
