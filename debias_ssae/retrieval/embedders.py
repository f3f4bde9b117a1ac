"""Texts to unit vectors with a sentence-transformers model, kept on disk by what they were made from."""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from debias_ssae.core.device import lower_weights, pick_device, pick_dtype, resolve_model_name
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import kept_arrays, read_or_make, write_arrays
from debias_ssae.model.forward import token_batches
from debias_ssae.text.checks import texts_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHUNK_TEXTS = 2048


def embed_texts(
    texts: Sequence[str],
    embedder: str = "minilm",
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
    weights, precision and length, so that an interrupted run goes on and a later one loads. Raises InputError
    for an unknown model.
    """
    model = load_embedder(embedder, device, dtype)
    folder = None
    if cache_dir is not None:
        folder = Path(cache_dir) / "embeddings" / f"{embedder_id(embedder, device, dtype)}-{max_length}"
    width = model.get_embedding_dimension() or 0
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
def load_embedder(embedder: str, device: str = "auto", dtype: str = "auto") -> "SentenceTransformer":
    """Load a sentence-transformers model; raises InputError where there is none of this name."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(resolve_model_name(embedder), device=str(where))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"Cannot load the embedder {embedder!r} ({reason}): give a sentence-transformers id or directory"
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()
    if precision == torch.bfloat16:
        lower_weights(model)
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=8)
def embedder_id(embedder: str, device: str = "auto", dtype: str = "auto") -> str:
    """Return a hexadecimal id of the model's weights and precision."""
    digest = hashlib.sha256()
    for key, tensor in sorted(load_embedder(embedder, device, dtype).state_dict().items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).numpy(force=True).tobytes()
            if tensor.dtype.itemsize != 2
            else tensor.detach().cpu().contiguous().view(-1).float().numpy()
        )
    return digest.hexdigest()[:16]


def _embed_chunk(
    model: "SentenceTransformer", texts: Sequence[str], max_length: int, token_budget: int
) -> NDArray[np.float32]:
    import torch

    from debias_ssae.model.lowered import lowered

    tokenizer: Any = model.tokenizer
    limit = min(max_length, model.max_seq_length or max_length)
    clean = [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    encoded = tokenizer(clean, truncation=True, max_length=limit, padding=False, return_attention_mask=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    out = np.zeros((len(texts), model.get_embedding_dimension() or 0), np.float32)
    halved = any(p.dtype == torch.bfloat16 for p in model.parameters())
    device, dtype = model.device, torch.bfloat16 if halved else torch.float32
    for batch in token_batches(lengths, token_budget):
        features = tokenizer.pad({"input_ids": [encoded["input_ids"][i] for i in batch]}, return_tensors="pt")
        features = {name: value.to(device) for name, value in features.items()}
        with torch.no_grad(), lowered(device, dtype):
            vectors = model(features)["sentence_embedding"].float()
        out[batch] = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
    return out
