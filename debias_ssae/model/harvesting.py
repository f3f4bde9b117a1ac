"""Texts to rows of activations, one row a real token, each with the id of its text; or to one vector each, pooled."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from debias_ssae.core.device import plain_precision
from debias_ssae.core.steps import bar
from debias_ssae.model.forward import Batch, Edit, TokenizedTexts, clean_texts, iter_states, tokens_of
from debias_ssae.model.language_model import LanguageModel, check_hookpoints
from debias_ssae.model.readout import Readout, as_readout, pool_states

CHUNK_TEXTS = 2048
"""Texts that are sorted by length together; it bounds the memory of a stream."""


@dataclass(frozen=True)
class Activations:
    """Rows of the real tokens of ``n_texts`` texts, in text order, then position order."""

    x: Tensor
    """[n_tokens, d] float32 on the CPU."""
    text_ids: Tensor
    """[n_tokens] int64."""
    token_ids: Tensor
    """[n_tokens] int64."""
    offsets: Tensor
    """[n_tokens, 2] int64: first and past-the-last character in the text."""
    n_texts: int

    def pool(self) -> Tensor:
        """Return the mean row of each text, [n_texts, d]; zeros for a text without rows."""
        sums = torch.zeros(self.n_texts, self.x.shape[1], dtype=self.x.dtype).index_add_(
            0, self.text_ids, self.x
        )
        counts = torch.bincount(self.text_ids, minlength=self.n_texts).clamp(min=1)
        return sums / counts[:, None]


def harvest(
    model: LanguageModel, texts: Sequence[str], hookpoint: str = "embeddings", **options: Any
) -> Activations:
    """Return :func:`harvest_many` for one hookpoint."""
    return harvest_many(model, texts, [hookpoint], **options)[hookpoint]


def harvest_many(
    model: LanguageModel,
    texts: Sequence[str],
    hookpoints: Sequence[str],
    *,
    edits: Mapping[str, Edit] | None = None,
) -> dict[str, Activations]:
    """Return the rows of all real tokens of ``texts`` at ``hookpoints``, after the ``edits``, all read in one pass.

    Texts are cut, and batches made, as ``model.with_limits`` says. Equal texts run once. Raises InputError for texts
    that are no strings and for an unknown hookpoint.
    """
    check_hookpoints([*hookpoints, *(edits or {})], model.hookpoints)
    checked = clean_texts(texts)
    unique = list(dict.fromkeys(checked))
    parts: list[dict[str, Activations]] = []
    with bar("activations", total=len(unique)) as drawn:
        for start in range(0, len(unique), CHUNK_TEXTS):
            chunk = unique[start : start + CHUNK_TEXTS]
            tokens = tokens_of(model, chunk)
            parts.append(_harvest_chunk(model, tokens, len(chunk), hookpoints, edits, drawn))
    return {h: _spread([p.pop(h) for p in parts], unique, checked, model.d_model) for h in hookpoints}


def stream_rows(
    model: LanguageModel, texts: Iterable[str], hookpoint: str = "embeddings"
) -> Iterator[Tensor]:
    """Yield rows [n, d] float32 chunk by chunk in text order, for corpora larger than memory.

    ``texts`` may be any iterable, read lazily. Each item holds the rows of the next 2,048 texts.
    """
    check_hookpoints([hookpoint], model.hookpoints)
    source = iter(texts)
    with bar("activations") as drawn:
        while chunk := list(islice(source, CHUNK_TEXTS)):
            tokens = tokens_of(model, clean_texts(chunk))
            yield _harvest_chunk(model, tokens, len(chunk), [hookpoint], None, drawn)[hookpoint].x


@plain_precision()
def embed(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    layer: str = "final",
    pooling: str | Readout = "auto",
    edits: Mapping[str, Edit] | None = None,
) -> NDArray[np.float32]:
    """Return one vector a text, float32 [n_texts, d], in the order of ``texts``.

    ``layer`` is a hookpoint; ``pooling`` is the mean or maximum over the text's own tokens, the last of them, the
    first token of all ("cls"), or "auto", as in :meth:`LanguageModel.readout`. ``edits`` change the rows of the
    text's own tokens at their hookpoints inside the pass; an edit at ``layer`` itself comes before pooling. A text
    without tokens gives zeros ("cls": the vector of its first special token). Equal texts run once.
    Raises InputError for an unknown hookpoint or pooling, and for texts that are no strings.
    """
    check_hookpoints([layer, *(edits or {})], model.hookpoints)
    readout = model.readout(pooling, layer)
    checked = clean_texts(texts)
    place = {text: i for i, text in enumerate(dict.fromkeys(checked))}
    unique = list(place)
    out = np.zeros((len(unique), readout.width(model.d_model)), np.float32)
    with bar("edited texts" if edits else "plain texts", total=len(unique)) as drawn:
        for start in range(0, len(unique), CHUNK_TEXTS):
            chunk = unique[start : start + CHUNK_TEXTS]
            tokens = tokens_of(model, chunk)
            vectors = torch.zeros(len(chunk), len(readout.modes) * model.d_model)
            for batch in iter_states(model, tokens, [layer], edits=edits):
                pooled = pool_states(batch.states[layer], batch.real, batch.attention, readout)
                vectors[torch.from_numpy(batch.sequences)] = pooled.cpu()
                drawn.update(len(batch.sequences))
            out[start : start + len(chunk)] = readout.finish(vectors).numpy()
    return out[[place[text] for text in checked]] if len(unique) != len(checked) else out


def pool(batch: Batch, layer: str, pooling: str | Readout) -> Tensor:
    """Return the vectors [b, d] of a batch whose states at ``layer`` were read."""
    readout = as_readout(pooling)
    return readout.finish(pool_states(batch.states[layer], batch.real, batch.attention, readout))


def _harvest_chunk(
    model: LanguageModel,
    tokens: TokenizedTexts,
    n_texts: int,
    hookpoints: Sequence[str],
    edits: Mapping[str, Edit] | None,
    drawn: Any,
) -> dict[str, Activations]:
    real = np.flatnonzero(~tokens.special)
    row_of = np.cumsum(~tokens.special) - 1
    x = {h: torch.empty(len(real), model.d_model, dtype=torch.float32) for h in hookpoints}
    for batch in iter_states(model, tokens, hookpoints, edits=edits):
        mask = batch.real
        starts = torch.from_numpy(tokens.starts[batch.sequences])
        position = (starts[:, None] + torch.arange(mask.shape[1])[None, :])[mask.cpu()]
        rows = torch.from_numpy(row_of)[position]
        for h in hookpoints:
            x[h][rows] = batch.states[h][mask].float().cpu()
        drawn.update(len(batch.sequences))
    text_ids = torch.from_numpy(np.repeat(tokens.text_ids, tokens.lengths)[real])
    ids, spans = torch.from_numpy(tokens.ids[real]), torch.from_numpy(tokens.spans[real])
    return {h: Activations(x[h], text_ids, ids, spans, n_texts) for h in hookpoints}


def _joined(parts: list[Tensor], d: int) -> Tensor:
    """Put rows end to end, letting go of each part when it is copied, so that they are not held twice."""
    if len(parts) == 1:
        return parts.pop()
    x, end = torch.empty(sum(map(len, parts)), d, dtype=torch.float32), 0
    while parts:
        part = parts.pop(0)
        x[end : end + len(part)] = part
        end += len(part)
    return x


def _spread(parts: list[Activations], unique: list[str], texts: list[str], d: int) -> Activations:
    """Put chunks end to end and repeat the rows of texts that occur more than once; empties ``parts``."""
    empty = torch.zeros(0, dtype=torch.int64)
    base = np.cumsum([0, *(p.n_texts for p in parts)])
    ids = torch.cat([empty, *(p.text_ids + int(b) for p, b in zip(parts, base, strict=False))])
    token_ids = torch.cat([empty, *(p.token_ids for p in parts)])
    offsets = torch.cat([empty.reshape(0, 2), *(p.offsets for p in parts)])
    rows_of = [p.x for p in parts]
    parts.clear()
    x = _joined(rows_of, d)
    if len(unique) == len(texts):
        return Activations(x, ids, token_ids, offsets, len(texts))
    place = {text: i for i, text in enumerate(unique)}
    wanted = torch.tensor([place[text] for text in texts], dtype=torch.int64)
    counts = torch.bincount(ids, minlength=len(unique))
    starts = torch.cumsum(counts, 0) - counts
    repeats = counts[wanted]
    text_ids = torch.repeat_interleave(torch.arange(len(texts)), repeats)
    within = torch.arange(len(text_ids)) - torch.repeat_interleave(
        torch.cumsum(repeats, 0) - repeats, repeats
    )
    rows = starts[wanted][text_ids] + within
    return Activations(x[rows], text_ids, token_ids[rows], offsets[rows], len(texts))
