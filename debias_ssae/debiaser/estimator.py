"""``SSAEDebiaser``: scikit-learn in front, no algorithm inside."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from debias_ssae.ablation import CounterfactualSubspace, LatentEraser, LinearEraser, leace
from debias_ssae.activations import Activations, harvest
from debias_ssae.attribution import encode_attribute
from debias_ssae.concept import Concept
from debias_ssae.config import DebiasConfig
from debias_ssae.datasets import load_corpus
from debias_ssae.debiaser import persistence
from debias_ssae.debiaser.finding import Found, find_from_concept, find_from_labels
from debias_ssae.debiaser.specialise import LearnedSAE, learn_from_rows, learn_ssae
from debias_ssae.encoder import ActivationEncoder, check_texts
from debias_ssae.exceptions import InputError, NothingRemovedWarning
from debias_ssae.sae.formats import load_sae
from debias_ssae.sae.model import SparseAutoencoder


class SSAEDebiaser(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Remove an attribute from text representations with a specialised sparse autoencoder.

    Parameters
    ----------
    encoder : str, ActivationEncoder or None, default=None
        The language model ("minilm", a directory, a hub id). With None, ``X`` is a matrix of activations.
    corpus : path or sequence of str, optional
        Texts to retrieve the subdomain from. Without it the training texts are used alone.
    sae : path or SparseAutoencoder, optional
        A general SAE to fine-tune, in any format this package reads.
    concept : str, path or Concept, optional
        Describes the attribute by words to swap; no labels are needed then.
    hookpoint : str, default="embeddings"
        Where the model is edited.
    layer, pooling : str, default="final", "mean"
        The representation that is returned. An ActivationEncoder as ``encoder`` brings its own.
    n_latents : int or "auto", default="auto"
        How many latents to remove at most; "auto" is ``config.selection.n_latents``.
    alpha : float, default=1.0
        Share of the latents' writing that is removed; 0 returns the plain representation, bit for bit.
    residual : {None, "counterfactual", "leace"}, default=None
        A linear eraser on the pooled output, after the edit: from twins, or from labels.
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
    sae_ : SparseAutoencoder
    scores_ : LatentScores or None
    latents_ : ndarray of int
        The removed latents, best first.
    eraser_ : LatentEraser
    shift_ : ndarray or None
        Added to the output so that the training mean stays where it was (``config.recenter``).
    record_ : dict
        What was retrieved and how training went.

    Notes
    -----
    Labelled and concept regime are never mixed: with ``concept`` the labels given to fit are not read, unless
    ``residual="leace"`` asks for them.
    """

    residual_: LinearEraser | None
    shift_: np.ndarray | None

    def __init__(
        self,
        encoder: str | ActivationEncoder | None = None,
        *,
        corpus: str | Path | Sequence[str] | None = None,
        sae: str | Path | SparseAutoencoder | None = None,
        concept: str | Path | Concept | None = None,
        hookpoint: str = "embeddings",
        layer: str = "final",
        pooling: str = "mean",
        n_latents: int | str = "auto",
        alpha: float = 1.0,
        residual: str | None = None,
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
        self._check_params()
        y = None if y is None else np.asarray(y)
        if self.encoder is None:
            return self._fit_matrix(X, y, sensitive_features)
        texts = check_texts(X)
        self._check_lengths(len(texts), y, sensitive_features)
        self._check_regime(y, sensitive_features)
        return self._fit_texts(texts, y, sensitive_features)

    def transform(self, X: Any) -> np.ndarray:
        """Return debiased representations ``(n, d)``. The attribute is never needed."""
        check_is_fitted(self)
        if self.encoder is None:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
            return self._finish(self._edit_matrix(X))
        return self._finish(self._represent(check_texts(X)))

    def save(self, directory: str | Path) -> None:
        """Write one directory of safetensors and JSON, whole or not at all."""
        check_is_fitted(self)
        persistence.save(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> "SSAEDebiaser":
        """Read what ``save`` wrote; raises InputError for anything else."""
        return persistence.load(cls, Path(directory))

    def _fit_texts(self, texts: list[str], y: np.ndarray | None, z: Any) -> Self:
        config, seed = self._config(), self._seed()
        self.encoder_ = self._make_encoder()
        model = self.encoder_.language_model
        learned = learn_ssae(
            model,
            texts,
            self.hookpoint,
            config,
            corpus=self._load_corpus(),
            general=self._load_sae(),
            random_state=seed,
            cache_dir=self.cache_dir,
            progress=self.verbose,
        )
        concept = self._load_concept()
        options: dict[str, Any] = {"n_latents": self.n_latents, "random_state": seed}
        if concept is not None:
            found = find_from_concept(
                model,
                learned.sae,
                texts,
                concept,
                config.selection,
                hookpoint=self.hookpoint,
                progress=self.verbose,
                **options,
            )
        else:
            rows = harvest(model, texts, self.hookpoint, progress=self.verbose)
            found = find_from_labels(learned.sae, rows, y, z, config.selection, **options)
        self._keep(learned, found, self.encoder_.fit(texts[:1]).n_features_out_)
        self._fit_after_edit(texts, concept, z)
        return self

    def _fit_matrix(self, X: Any, y: np.ndarray | None, z: Any) -> Self:
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        self._check_lengths(len(X), y, z)
        x = _tensor(X)
        learned = learn_from_rows(
            x, self._config(), general=self._load_sae(), random_state=self._seed(), progress=self.verbose
        )
        if z is None:
            warnings.warn(
                "no sensitive_features were given, so nothing is removed; pass sensitive_features to fit",
                NothingRemovedWarning,
                stacklevel=3,
            )
            self._keep(learned, None, X.shape[1])
            return self
        self._check_regime(y, z)
        n = len(x)
        blank = torch.zeros(n, 2, dtype=torch.long)
        rows = Activations(x, torch.arange(n), torch.zeros(n, dtype=torch.long), blank, n)
        found = find_from_labels(
            learned.sae,
            rows,
            y,
            z,
            self._config().selection,
            n_latents=self.n_latents,
            random_state=self._seed(),
        )
        self._keep(learned, found, X.shape[1])
        if self.residual == "leace":
            self.residual_ = leace(*_known(self._edit_matrix(X), z))
        if self._config().recenter and self.eraser_.changes_anything:
            self._recenter(X, self._edit_matrix(X))
        return self

    def _keep(self, learned: LearnedSAE, found: Found | None, width: int) -> None:
        self.sae_, self.record_ = learned.sae, learned.record
        self.scores_ = None if found is None else found.scores
        self.latents_ = np.array([], dtype=int) if found is None else found.latents
        self.eraser_ = LatentEraser.cut(self.sae_, self.latents_.tolist(), alpha=self.alpha)
        self.residual_, self.shift_ = None, None
        self.n_features_out_ = width

    def _fit_after_edit(self, texts: list[str], concept: Concept | None, z: Any) -> None:
        """What is fitted on edited representations: the residual eraser, then the shift."""
        config = self._config()
        self._fit_residual(texts, concept, z)
        if config.recenter and self.eraser_.changes_anything:
            order = np.random.default_rng(self._seed()).permutation(len(texts))[: config.selection.max_texts]
            sample = [texts[i] for i in order]
            self._recenter(self.encoder_.encode(sample), self._represent(sample))

    def _fit_residual(self, texts: list[str], concept: Concept | None, z: Any) -> None:
        if self.residual == "leace":
            if z is None:
                raise InputError(
                    'residual="leace" needs sensitive_features in fit; without labels use "counterfactual"'
                )
            self.residual_ = leace(*_known(self._represent(texts), z))
        elif self.residual == "counterfactual":
            if concept is None:
                raise InputError('residual="counterfactual" needs concept=; with labels use "leace"')
            twins = concept.twins(texts, limit=self._config().selection.max_texts)
            a, b = (
                self._represent(side) for side in zip(*((t.text_a, t.text_b) for t in twins), strict=True)
            )
            self.residual_ = CounterfactualSubspace.fit(a, b)

    def _represent(self, texts: Sequence[str]) -> np.ndarray:
        """The pooled representation with the edit inside the model, before any residual eraser."""
        edits = {self.hookpoint: self.eraser_} if self.eraser_.changes_anything else {}
        return self.encoder_.encode(texts, edits)

    def _edit_matrix(self, X: np.ndarray) -> np.ndarray:
        if not self.eraser_.changes_anything:
            return X
        return self.eraser_(_tensor(X)).numpy().astype(X.dtype)

    def _recenter(self, plain: np.ndarray, edited: np.ndarray) -> None:
        """Keep the training mean in place, so that a classifier already deployed keeps its intercept."""
        self.shift_ = (plain.mean(axis=0) - self._finish(edited).mean(axis=0)).astype(plain.dtype)

    def _finish(self, x: np.ndarray) -> np.ndarray:
        """What follows the edit: the residual eraser, then the shift."""
        x = x if self.residual_ is None else self.residual_(x)
        return x if self.shift_ is None else x + self.shift_

    def _check_params(self) -> None:
        if self.n_latents != "auto" and (
            isinstance(self.n_latents, bool)
            or not isinstance(self.n_latents, int | np.integer)
            or self.n_latents < 0
        ):
            raise InputError(f'n_latents is {self.n_latents!r}; expected "auto" or a whole number, 0 or more')
        if self.residual not in (None, "counterfactual", "leace"):
            raise InputError(f'residual is {self.residual!r}; expected None, "counterfactual" or "leace"')
        if hasattr(self.corpus, "__next__"):
            raise InputError(
                "corpus is a one-shot iterator; pass a list or a path, since it is read more than once"
            )
        if self.encoder is None and self.concept is not None:
            raise InputError(
                "concept= swaps words and needs texts; name an encoder=, or pass sensitive_features to fit"
            )

    def _check_regime(self, y: np.ndarray | None, z: Any) -> None:
        if self.concept is not None:
            return
        if z is None:
            raise InputError(
                "neither sensitive_features nor a concept was given, so there is nothing to remove; pass "
                'sensitive_features to fit, or set concept= (for example "gender")'
            )
        codes, _ = encode_attribute(z, len(z))
        if y is not None and _same_partition(y[codes >= 0], codes[codes >= 0]):
            raise InputError(
                "sensitive_features equals y on every labelled row, so the attribute cannot be told from the target; "
                "give a labelled set that holds both values in every class, or name a concept="
            )

    @staticmethod
    def _check_lengths(n: int, y: Any, z: Any) -> None:
        for name, values in (("y", y), ("sensitive_features", z)):
            if values is not None and len(values) != n:
                raise InputError(f"X has {n} rows, but {name} has {len(values)}; they must agree")

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

    def _load_sae(self) -> SparseAutoencoder | None:
        return load_sae(self.sae) if isinstance(self.sae, str | Path) else self.sae

    def _load_concept(self) -> Concept | None:
        return Concept.load(self.concept) if isinstance(self.concept, str | Path) else self.concept

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


def _same_partition(y: np.ndarray, z: np.ndarray) -> bool:
    """Whether the attribute's value follows from the class alone, and the class from the value."""
    pairs = {(str(a), str(b)) for a, b in zip(y, z, strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 1


def _known(x: np.ndarray, z: Any) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose attribute is known, with its codes."""
    codes, _ = encode_attribute(z, len(x))
    return x[codes >= 0], codes[codes >= 0]


def _tensor(X: np.ndarray) -> torch.Tensor:
    """A float32 copy, so that read-only input stays untouched."""
    return torch.from_numpy(np.array(X, dtype=np.float32, order="C"))
