"""``ActivationEncoder``: texts to pooled representations of a language model, as a scikit-learn transformer."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor

from debias_ssae.model import Activations, LanguageModel, embed, harvest, load_model
from debias_ssae.model.store import EmbeddingCache
from debias_ssae.text.checks import check_texts

_LOADED_WITH = ("model", "device", "dtype", "revision", "trust_remote_code")


class Edit(Protocol):
    """An edit of activations inside the model: a callable on rows, with a name for caches."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class ActivationEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Encode texts as pooled activations of a Hugging Face model.

    Parameters
    ----------
    model : str, default="minilm"
        A short name of this package, a directory, or a hub id.
    layer : str, default="final"
        Hookpoint whose rows are pooled: "final", "blocks.3", "embeddings", ...
    pooling : {"mean", "cls", "last", "max"}, default="mean"
        How a text's rows become one; special tokens and padding are left out.
    edits : mapping of hookpoint to callable, optional
        Edits applied inside the model on the way; each maps rows ``(n, d)`` to rows and has a ``fingerprint``.
    cache_dir : path, optional
        With it, the model never runs twice on the same text with the same settings.
    device, dtype, revision, trust_remote_code, max_length, token_budget :
        Passed to the model; "auto" takes the GPU where there is one, and bfloat16 where that is faster.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Width of the representation.
    """

    def __init__(
        self,
        model: str = "minilm",
        *,
        layer: str = "final",
        pooling: str = "mean",
        edits: Mapping[str, Edit] | None = None,
        cache_dir: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        token_budget: int = 2048,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.edits = edits
        self.cache_dir = cache_dir
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.max_length = max_length
        self.token_budget = token_budget
        self.verbose = verbose

    @cached_property
    def language_model(self) -> LanguageModel:
        """The model, loaded on first use; never pickled."""
        return load_model(
            self.model,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
        )

    def set_params(self, **params: Any) -> Self:
        """Set parameters; a model that was loaded with other ones is dropped."""
        before = [getattr(self, name) for name in _LOADED_WITH]
        super().set_params(**params)
        if before != [getattr(self, name) for name in _LOADED_WITH]:
            self.__dict__.pop("language_model", None)
        return self

    def copy(self) -> Self:
        """Return an encoder with the same settings that shares the loaded model, if one is loaded."""
        counterfactual = type(self)(**self.get_params(deep=False))
        if "language_model" in vars(self):
            counterfactual.__dict__["language_model"] = self.language_model
        return counterfactual

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the texts and load the model; nothing is learnt."""
        check_texts(X)
        self.n_features_out_ = self.language_model.d_model
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d_model)`` in float32."""
        return self.encode(check_texts(X))

    def encode(self, texts: Sequence[str], edits: Mapping[str, Edit] | None = None) -> np.ndarray:
        """Like transform, with ``edits`` in place of the encoder's own."""
        edits = {**(self.edits or {}), **(edits or {})}
        if self.cache_dir is None:
            return self._run(texts, edits)
        cache = EmbeddingCache(self.cache_dir, self._key(edits))
        return cache.fetch(texts, lambda missing: self._run(missing, edits))

    @property
    def limits(self) -> dict[str, Any]:
        """What every pass over texts is told."""
        return {"max_length": self.max_length, "token_budget": self.token_budget}

    def rows(self, texts: Sequence[str], hookpoint: str) -> Activations:
        """Return the rows of the texts' tokens at ``hookpoint`` of the plain model, cut where transform cuts."""
        return harvest(self.language_model, texts, hookpoint, **self.limits)

    def _run(self, texts: Sequence[str], edits: Mapping[str, Edit]) -> np.ndarray:
        return embed(
            self.language_model,
            texts,
            layer=self.layer,
            pooling=self.pooling,
            edits=edits,
            progress=self.verbose,
            **self.limits,
        )

    def _key(self, edits: Mapping[str, Edit]) -> str:
        parts = [self.language_model.fingerprint, self.layer, self.pooling, str(self.max_length)]
        parts += [f"{hookpoint}={edits[hookpoint].fingerprint}" for hookpoint in sorted(edits)]
        return "|".join(parts)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k != "language_model"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags
