"""Texts to unit vectors with an embedding model, kept on disk by what they were made from."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from debias_ssae.core.cache import mark_used
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import kept_arrays, read_or_make, write_arrays
from debias_ssae.text.checks import texts_sha256

if TYPE_CHECKING:
    from debias_ssae.model import LanguageModel

CHUNK_TEXTS = 2048


def embed_texts(
    texts: Sequence[str],
    embedder: "str | LanguageModel" = "minilm",
    *,
    max_length: int = 128,
    token_budget: int = 2048,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Return unit vectors [n_texts, d] of ``texts``, cut at ``max_length`` tokens.

    With ``cache_dir`` the vectors are kept chunk by chunk (2,048 texts), keyed by the texts, the model's
    weights, precision and length, so that an interrupted run goes on and a later one loads. ``embedder`` is a name or
    a loaded model. Raises InputError for an unknown one.
    """
    model = load_embedder(embedder, device, dtype) if isinstance(embedder, str) else embedder
    folder = None
    if cache_dir is not None:
        folder = Path(cache_dir) / "embeddings" / f"{embedder_id(model)}-{max_length}"
        mark_used(folder)
    width = model.readout().width(model.d_model)
    out = np.empty((len(texts), width), np.float32)
    with tqdm(total=len(texts), desc="embedding texts", unit="text", disable=not progress) as bar:

        def embed(start: int, wait: bool) -> bool:
            chunk = texts[start : start + CHUNK_TEXTS]

            def make() -> NDArray[np.float32]:
                return _embed_chunk(model, chunk, max_length, token_budget)

            try:
                shape = (len(chunk), width)
                vectors = (
                    make() if folder is None else _kept(folder / texts_sha256(chunk)[:32], shape, make, wait)
                )
            except Timeout:
                return False
            out[start : start + len(chunk)] = vectors
            bar.update(len(chunk))
            return True

        # what another process is at comes last, so that two share the work
        for start in [at for at in range(0, len(texts), CHUNK_TEXTS) if not embed(at, wait=False)]:
            embed(start, wait=True)
    return out


def _kept(
    path: Path, shape: tuple[int, int], make: Callable[[], NDArray[np.float32]], wait: bool
) -> NDArray[np.float32]:
    """Return the vectors kept at ``path``; what is not there or damaged is made, by one process."""
    file, lock = path.with_suffix(".safetensors"), path.with_suffix(".lock")

    def read() -> NDArray[np.float32] | None:
        vectors = (kept_arrays(file) or {}).get("vectors")
        return vectors if vectors is not None and vectors.shape == shape else None

    def make_and_write() -> NDArray[np.float32]:
        vectors = make()
        write_arrays(file, {"vectors": vectors})
        return vectors

    return read_or_make(lock, read, make_and_write, wait=wait)


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


def embedder_id(embedder: "str | LanguageModel", device: str = "auto", dtype: str = "auto") -> str:
    """Return a hexadecimal id of the model's weights, precision and pooling."""
    model = load_embedder(embedder, device, dtype) if isinstance(embedder, str) else embedder
    return model.fingerprint[:16]


def _embed_chunk(
    model: "LanguageModel", texts: Sequence[str], max_length: int, token_budget: int
) -> NDArray[np.float32]:
    from debias_ssae.model import embed

    stated = model.stated.max_length if model.stated is not None else None
    limit = min(max_length, stated or max_length)
    vectors = embed(model, texts, max_length=limit, token_budget=token_budget)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.float32(1e-12))
