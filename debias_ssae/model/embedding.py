"""Texts to one vector each: a forward pass, with edits inside it, then pooling."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from debias_ssae.core.device import plain_precision
from debias_ssae.model.forward import Batch, Edit, clean_texts, iter_states, tokenize
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
    checked = clean_texts(texts)
    place = {text: i for i, text in enumerate(dict.fromkeys(checked))}
    unique = list(place)
    out = np.zeros((len(unique), readout.width(model.d_model)), np.float32)
    name = "edited texts" if edits else "plain texts"
    with tqdm(total=len(unique), desc=name, unit="text", disable=not progress) as bar:
        for start in range(0, len(unique), CHUNK_TEXTS):
            chunk = unique[start : start + CHUNK_TEXTS]
            tokens = tokenize(model.tokenizer, chunk, length, prompt=model.prompt)
            vectors = torch.zeros(len(chunk), len(readout.modes) * model.d_model)
            for batch in iter_states(model, tokens, [layer], edits=edits, token_budget=token_budget):
                pooled = pool_states(batch.states[layer], batch.real, batch.attention, readout)
                vectors[torch.from_numpy(batch.sequences)] = pooled.cpu()
                bar.update(len(batch.sequences))
            out[start : start + len(chunk)] = readout.finish(vectors).numpy()
    return out[[place[text] for text in checked]] if len(unique) != len(checked) else out


def pool(batch: Batch, layer: str, pooling: str | Readout) -> Tensor:
    """Return the vectors [b, d] of a batch whose states at ``layer`` were read."""
    readout = as_readout(pooling)
    return readout.finish(pool_states(batch.states[layer], batch.real, batch.attention, readout))
