"""``ActivationEncoder``: texts to pooled representations of a language model, as a scikit-learn transformer."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor

from debias_ssae.core.config import TOKEN_BUDGET
from debias_ssae.core.device import pick_dtype
from debias_ssae.core.errors import InputError, brief
from debias_ssae.model import Activations, LanguageModel, Readout, embed, harvest, load_model, wrap_model
from debias_ssae.model.language_model import wrap_sentence_transformer
from debias_ssae.model.store import EmbeddingCache
from debias_ssae.text.checks import check_texts

_LOADED_WITH = ("model", "device", "dtype", "revision", "trust_remote_code")
_SAVED = ("model", "revision", "layer", "pooling", "dtype", "max_length", "token_budget")


class Edit(Protocol):
    """An edit of activations inside the model: a callable on rows, with a name for caches."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class ActivationEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Encode texts as pooled activations of a Hugging Face model.

    Parameters
    ----------
    model : str or LanguageModel, default="minilm"
        A short name of this package, a directory, or a hub id; :meth:`from_model` takes a model in memory.
    layer : str, default="final"
        Hookpoint whose rows are pooled: "final", "blocks.3", "embeddings", ...
    pooling : {"auto", "mean", "cls", "last", "max"}, default="auto"
        How a text's rows become one. "auto" does for the last layer what a sentence-transformers directory states
        (pooling with special tokens, Dense layers, normalisation), so that its own ``encode`` is reproduced; elsewhere
        it is "mean". The other names pool the text's own tokens, without special ones and without normalisation.
    cache_dir : path, optional
        Directory of a cache; the model then never runs twice on the same text with the same settings.
    max_length : int, optional
        Most tokens of a text, special ones included; by default what the model states, else the most that it takes.
    device, dtype, revision, trust_remote_code, token_budget :
        Passed to the model; "auto" takes the GPU where there is one, and bfloat16 where that is faster. A model in
        memory stays on its device.

    Attributes
    ----------
    n_features_out_ : int
        Width of the representation.
    """

    def __init__(
        self,
        model: str | LanguageModel = "minilm",
        *,
        layer: str = "final",
        pooling: str = "auto",
        cache_dir: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.cache_dir = cache_dir
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.max_length = max_length
        self.token_budget = token_budget

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any = None, *, dtype: str = "auto", **settings: Any) -> Self:
        """Return an encoder of a transformers model in memory, or of a ``SentenceTransformer`` (no tokenizer then).

        A model with a head, as ``AutoModelForSequenceClassification``, gives its base model. Its weights are shared in
        float32 and copied for bfloat16; it stays on its device and is put into evaluation mode. ``settings`` are the
        constructor's. Raises InputError for anything else, and where no hookpoint is found.
        """
        if isinstance(model, LanguageModel):
            return cls(model, dtype=dtype, **settings)
        is_sentences = hasattr(model, "encode") and hasattr(model, "prompts")
        module = model[0] if is_sentences else model
        if not hasattr(module, "parameters") or not (is_sentences or hasattr(module, "config")):
            raise InputError(
                f"the model is {type(model).__name__}; expected a transformers model (with its tokenizer) or a "
                "SentenceTransformer"
            )
        if not is_sentences and not callable(tokenizer):
            raise InputError("a transformers model needs its tokenizer: from_model(model, tokenizer)")
        precision = pick_dtype(dtype, next(module.parameters()).device)
        wrapped = (
            wrap_sentence_transformer(model, precision)
            if is_sentences
            else wrap_model(model, tokenizer, dtype=precision)
        )
        return cls(wrapped, dtype=dtype, **settings)

    @property
    def language_model(self) -> LanguageModel:
        """The model, loaded on first use, with the limits of this encoder."""
        return self.loaded.with_limits(self.max_length, self.token_budget)

    @cached_property
    def loaded(self) -> LanguageModel:
        """The model as it was loaded; one that was loaded by name is never pickled."""
        if isinstance(self.model, LanguageModel):
            return self.model
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
            self.__dict__.pop("loaded", None)
        return self

    def copy(self) -> Self:
        """Return an encoder with the same settings that shares the loaded model, if one is loaded."""
        other = type(self)(**self.get_params(deep=False))
        if "loaded" in vars(self):
            other.__dict__["loaded"] = self.loaded
        return other

    def to_dict(self) -> dict[str, Any]:
        """Return what of the settings belongs into a file: the model by name, and how texts are read.

        Where the model is, what it may run and where it may write are the reader's matter. Raises InputError for
        a model in memory unless its ``name_or_path`` loads to the same weights.
        """
        name, revision, limit = self.model, self.revision, self.max_length
        if isinstance(name, LanguageModel):
            name, revision, limit = self._name_on_disk(name), None, self.language_model.limit
        changed = {"model": name, "revision": revision, "max_length": limit}
        return {one: getattr(self, one) for one in _SAVED} | changed

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **settings: Any) -> Self:
        """Rebuild an encoder from :meth:`to_dict`; ``settings`` are the caller's device, cache_dir and trust."""
        known = isinstance(values, Mapping) and set(values) <= set(_SAVED)
        if not known or not isinstance(values.get("model"), str):
            raise InputError(
                f"the encoder's settings are {brief(values)}; expected some of {', '.join(sorted(_SAVED))}"
            )
        return cls(**values, **settings)

    @staticmethod
    def _name_on_disk(model: LanguageModel) -> str:
        cure = (
            "save it first (model.save_pretrained(DIR), tokenizer.save_pretrained(DIR)) and give encoder=DIR"
        )
        dtype = str(model.dtype).removeprefix("torch.")
        try:
            found = load_model(model.name, device=str(model.device), dtype=dtype)
        except InputError as error:
            raise InputError(f"the encoder's model is in memory only; {cure}") from error
        if found.weights_sha256 != model.weights_sha256 or found.stated_key != model.stated_key:
            raise InputError(f"the encoder's model in memory is no longer what {model.name!r} holds; {cure}")
        return model.name

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the texts and load the model; nothing is learnt."""
        check_texts(X)
        self.n_features_out_ = self.width
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return representations ``(n_texts, d_model)`` in float32."""
        return self.encode(check_texts(X))

    def encode(self, texts: Sequence[str], edits: Mapping[str, Edit] | None = None) -> np.ndarray:
        """Like transform, with ``edits`` inside the model: hookpoints and what maps rows ``(n, d)`` to rows there."""
        edits = dict(edits or {})
        if self.cache_dir is None:
            return self._run(texts, edits)
        cache = EmbeddingCache(self.cache_dir, self.key(edits))
        return cache.fetch(texts, lambda missing: self._run(missing, edits))

    @property
    def readout(self) -> Readout:
        """How token states become a vector: ``pooling`` resolved for the model. Loads it."""
        return self.language_model.readout(self.pooling, self.layer)

    @property
    def width(self) -> int:
        """Width of the representation. Loads the model."""
        return self.readout.width(self.language_model.d_model)

    def rows(self, texts: Sequence[str], hookpoint: str) -> Activations:
        """Return the rows of the texts' tokens at ``hookpoint`` of the plain model, cut where transform cuts."""
        return harvest(self.language_model, texts, hookpoint)

    def _run(self, texts: Sequence[str], edits: Mapping[str, Edit]) -> np.ndarray:
        return embed(
            self.language_model,
            texts,
            layer=self.layer,
            pooling=self.readout,
            edits=edits,
        )

    def key(self, edits: Mapping[str, Edit]) -> str:
        """Return what vectors depend on besides their texts, as a name for caches. Loads the model."""
        model = self.language_model
        parts = [model.fingerprint, self.layer, self.readout.key, str(model.limit)]
        parts += [f"{hookpoint}={edits[hookpoint].fingerprint}" for hookpoint in sorted(edits)]
        return "|".join(parts)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k != "loaded"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


def as_encoder(encoder: Any, **settings: Any) -> ActivationEncoder:
    """Return ``encoder`` as an ActivationEncoder: a name or directory, an encoder (a copy), or a SentenceTransformer.

    ``settings`` are the constructor's, for what is not an encoder yet. Raises InputError for anything else.
    """
    if isinstance(encoder, ActivationEncoder):
        return encoder.copy()
    if isinstance(encoder, str | Path):
        return ActivationEncoder(str(encoder), **settings)
    if isinstance(encoder, LanguageModel) or hasattr(encoder, "encode"):
        return ActivationEncoder.from_model(encoder, **settings)
    cure = "; give ActivationEncoder.from_model(model, tokenizer)" if hasattr(encoder, "config") else ""
    raise InputError(
        f"encoder is {type(encoder).__name__}; expected a name, a directory, an ActivationEncoder or a "
        f"SentenceTransformer{cure}"
    )
