"""Texts to one vector each: a forward pass, with edits inside it, then pooling."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from debias_ssae.core.errors import InputError
from debias_ssae.model.forward import Batch, Edit, TokenizedTexts, check_texts, iter_states, tokenize
from debias_ssae.model.harvesting import CHUNK_TEXTS, check_max_length
from debias_ssae.model.language_model import LanguageModel, check_hookpoints

Pooling = Literal["mean", "cls", "last", "max"]


def embed(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    layer: str = "final",
    pooling: str = "mean",
    edits: Mapping[str, Edit] | None = None,
    max_length: int | None = None,
    token_budget: int = 2048,
    window: bool = False,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Return one vector a text, float32 [n_texts, d], in the order of ``texts``.

    ``layer`` is a hookpoint; ``pooling`` is the mean or maximum over real tokens, the last real token, or the
    first token of all ("cls"). ``edits`` change the real tokens' rows at their hookpoints inside the pass; an
    edit at ``layer`` itself comes before pooling. A text without real tokens gives zeros
    ("cls": the vector of its first special token). Equal texts run once. ``token_budget`` is as in
    :func:`harvest`. Raises InputError for an unknown hookpoint or pooling, and for texts that are no strings.
    """
    if pooling not in get_args(Pooling):
        raise InputError(f"Unknown pooling {pooling!r}: give one of {', '.join(get_args(Pooling))}")
    check_hookpoints([layer, *(edits or {})], model.hookpoints)
    length = check_max_length(model, max_length)
    checked = check_texts(texts)
    place = {text: i for i, text in enumerate(dict.fromkeys(checked))}
    unique = list(place)
    out = np.zeros((len(unique), model.d_model), np.float32)
    with tqdm(total=len(unique), desc="embedding", unit="text", disable=not progress) as bar:
        for start in range(0, len(unique), CHUNK_TEXTS):
            chunk = unique[start : start + CHUNK_TEXTS]
            tokens = tokenize(model.tokenizer, chunk, length, window=window)
            vectors = torch.zeros(len(tokens.text_ids), model.d_model)
            for batch in iter_states(model, tokens, [layer], edits=edits, token_budget=token_budget):
                vectors[torch.from_numpy(batch.sequences)] = pool(batch, layer, pooling).cpu()
                bar.update(len(batch.sequences))
            out[start : start + len(chunk)] = _join_windows(vectors, tokens, len(chunk), pooling).numpy()
    return out[[place[text] for text in checked]] if len(unique) != len(checked) else out


def pool(batch: Batch, layer: str, pooling: str) -> Tensor:
    states, real = batch.states[layer].float(), batch.real
    counts = real.sum(1)
    if pooling == "mean":
        pooled = (states * real[:, :, None]).sum(1) / counts.clamp(min=1)[:, None]
    elif pooling == "cls":
        return states[:, 0]
    elif pooling == "last":
        last = (real * torch.arange(real.shape[1], device=real.device)).argmax(1)
        pooled = states[torch.arange(len(states), device=real.device), last]
    else:
        pooled = states.masked_fill(~real[:, :, None], -torch.inf).amax(1)
    return pooled.masked_fill((counts == 0)[:, None], 0.0)


def _join_windows(vectors: Tensor, tokens: TokenizedTexts, n_texts: int, pooling: str) -> Tensor:
    """Combine the windows of each text; without windows this is ``vectors``."""
    text_ids = torch.from_numpy(tokens.text_ids)
    if len(text_ids) == n_texts:
        return vectors
    index = text_ids[:, None].expand_as(vectors)
    zeros = torch.zeros(n_texts, vectors.shape[1])
    if pooling == "max":
        return zeros.scatter_reduce(0, index, vectors, "amax", include_self=False)
    if pooling == "mean":
        # real tokens before each token; no reduceat, since a sequence may be empty
        before = np.concatenate([[0], np.cumsum(~tokens.special)])
        counts = torch.from_numpy(np.diff(before[tokens.starts])).float()
        totals = torch.zeros(n_texts).index_add_(0, text_ids, counts).clamp(min=1)
        return zeros.index_add_(0, text_ids, vectors * counts[:, None]) / totals[:, None]
    order = torch.arange(len(text_ids))
    chosen = torch.zeros(n_texts, dtype=torch.int64)
    edge = "amin" if pooling == "cls" else "amax"
    return vectors[chosen.scatter_reduce(0, text_ids, order, edge, include_self=False)]
