"""Texts to unit vectors with an embedding model, kept on disk by what they were made from."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.config import TOKEN_BUDGET
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import bar

if TYPE_CHECKING:
    from debias_ssae.model import LanguageModel

CHUNK_TEXTS = 2048


def embed_texts(
    texts: Sequence[str],
    embedder: "str | LanguageModel" = "minilm",
    *,
    max_length: int = 128,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: str | Path | None = None,
) -> NDArray[np.float32]:
    """Return unit vectors [n_texts, d] of ``texts``, cut at ``max_length`` tokens.

    With ``cache_dir`` the vectors are kept text by text, for the model's weights, precision and length, so that an
    interrupted run goes on and a later one loads. ``embedder`` is a name or a loaded model. Raises InputError for an
    unknown one.
    """
    from debias_ssae import model as models
    from debias_ssae.model.store import EmbeddingCache

    model = load_embedder(embedder, device, dtype) if isinstance(embedder, str) else embedder
    key = f"{model.fingerprint[:16]}|{max_length}|unit"
    cache = None if cache_dir is None else EmbeddingCache(cache_dir, key)
    out = np.empty((len(texts), model.readout().width(model.d_model)), np.float32)

    cut = model.with_limits(min(max_length, model.stated.max_length or max_length), TOKEN_BUDGET)

    def embed(some: Sequence[str]) -> NDArray[np.float32]:
        vectors = models.embed(cut, some)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))

    with bar("embedding texts", total=len(texts)) as drawn:
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = texts[start : start + CHUNK_TEXTS]
            out[start : start + len(chunk)] = embed(chunk) if cache is None else cache.fetch(chunk, embed)
            drawn.update(len(chunk))
    return out


@lru_cache(maxsize=2)
def load_embedder(embedder: str, device: str = "auto", dtype: str = "auto") -> "LanguageModel":
    """Load an embedding model; raises InputError where there is none of this name, or one that cannot be followed."""
    from debias_ssae.model import load_model

    try:
        model = load_model(embedder, device=device, dtype=dtype)
        model.readout()
    except InputError as error:
        raise InputError(f"Cannot load the embedder {embedder!r}: {error}") from error
    return model
