"""Texts to one vector each: a forward pass, with edits inside it, then pooling."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from debias_ssae.core.device import plain_precision
from debias_ssae.model.forward import Batch, Edit, TokenizedTexts, check_texts, iter_states, tokenize
from debias_ssae.model.harvesting import CHUNK_TEXTS, check_max_length
from debias_ssae.model.language_model import LanguageModel, check_hookpoints
from debias_ssae.model.readout import Readout, as_readout, pool_states


@plain_precision()
def embed(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    layer: str = "final",
    pooling: str | Readout = "auto",
    edits: Mapping[str, Edit] | None = None,
    max_length: int | None = None,
    token_budget: int = 2048,
    window: bool = False,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Return one vector a text, float32 [n_texts, d], in the order of ``texts``.

    ``layer`` is a hookpoint; ``pooling`` is the mean or maximum over the text's own tokens, the last of them, the
    first token of all ("cls"), or "auto", as in :meth:`LanguageModel.readout`. ``edits`` change the rows of the
    text's own tokens at their hookpoints inside the pass; an edit at ``layer`` itself comes before pooling. A text
    without tokens gives zeros ("cls": the vector of its first special token). Equal texts run once.
    ``token_budget`` is as in :func:`harvest`. Raises InputError for an unknown hookpoint or pooling, and for texts
    that are no strings.
    """
    check_hookpoints([layer, *(edits or {})], model.hookpoints)
    readout = model.readout(pooling, layer)
    length = check_max_length(model, max_length)
    checked = check_texts(texts)
    place = {text: i for i, text in enumerate(dict.fromkeys(checked))}
    unique = list(place)
    out = np.zeros((len(unique), readout.width(model.d_model)), np.float32)
    with tqdm(total=len(unique), desc="embedding", unit="text", disable=not progress) as bar:
        for start in range(0, len(unique), CHUNK_TEXTS):
            chunk = unique[start : start + CHUNK_TEXTS]
            tokens = tokenize(model.tokenizer, chunk, length, window=window, prompt=model.prompt)
            vectors = torch.zeros(len(tokens.text_ids), len(readout.modes) * model.d_model)
            for batch in iter_states(model, tokens, [layer], edits=edits, token_budget=token_budget):
                pooled = pool_states(batch.states[layer], batch.real, batch.attention, readout)
                vectors[torch.from_numpy(batch.sequences)] = pooled.cpu()
                bar.update(len(batch.sequences))
            whole = (
                vectors if len(vectors) == len(chunk) else _join_windows(vectors, tokens, len(chunk), readout)
            )
            out[start : start + len(chunk)] = readout.finish(whole).numpy()
    return out[[place[text] for text in checked]] if len(unique) != len(checked) else out


def pool(batch: Batch, layer: str, pooling: str | Readout) -> Tensor:
    """Return the vectors [b, d] of a batch whose states at ``layer`` were read; not for texts in several windows."""
    readout = as_readout(pooling)
    return readout.finish(pool_states(batch.states[layer], batch.real, batch.attention, readout))


def _join_windows(vectors: Tensor, tokens: TokenizedTexts, n_texts: int, readout: Readout) -> Tensor:
    """Combine the windows of each text: their mean by number of tokens, maximum, first or last."""
    text_ids = torch.from_numpy(tokens.text_ids)
    parts = vectors.chunk(len(readout.modes), dim=1)
    return torch.cat(
        [
            _join(part, text_ids, tokens, n_texts, mode)
            for part, mode in zip(parts, readout.modes, strict=True)
        ],
        dim=1,
    )


def _join(vectors: Tensor, text_ids: Tensor, tokens: TokenizedTexts, n_texts: int, mode: str) -> Tensor:
    index = text_ids[:, None].expand_as(vectors)
    zeros = torch.zeros(n_texts, vectors.shape[1])
    if mode == "max":
        return zeros.scatter_reduce(0, index, vectors, "amax", include_self=False)
    if mode in ("cls", "last"):
        order = torch.arange(len(text_ids))
        chosen = torch.zeros(n_texts, dtype=torch.int64)
        edge = "amin" if mode == "cls" else "amax"
        return vectors[chosen.scatter_reduce(0, text_ids, order, edge, include_self=False)]
    # tokens of its own before each token; no reduceat, since a sequence may be empty
    before = np.concatenate([[0], np.cumsum(~tokens.special)])
    counts = torch.from_numpy(np.diff(before[tokens.starts])).float()
    totals = torch.zeros(n_texts).index_add_(0, text_ids, counts).clamp(min=1)
    return zeros.index_add_(0, text_ids, vectors * counts[:, None]) / totals[:, None]
