"""How much a reading of the representation moves with each token's row at a hookpoint."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from debias_ssae.core.errors import InputError
from debias_ssae.model.embedding import Pooling, pool
from debias_ssae.model.forward import Batch, make_batch, run_batch, token_batches, tokenize
from debias_ssae.model.harvesting import CHUNK_TEXTS, Activations, check_max_length, harvest
from debias_ssae.model.language_model import LanguageModel


def integrated_gradients(
    model: LanguageModel,
    texts: Sequence[str],
    directions: Tensor,
    hookpoint: str,
    *,
    layer: str = "final",
    pooling: Pooling = "mean",
    baseline: Tensor | None = None,
    steps: int = 10,
    max_length: int | None = None,
    token_budget: int = 1024,
    progress: bool = False,
) -> tuple[Activations, Tensor]:
    """Return the rows at ``hookpoint`` and, for each, the mean gradient of its text's reading ``[n_tokens, d]``.

    A text's reading is its pooled representation at ``layer`` times its row of ``directions`` [n_texts, d] (or
    [d], the same for all). The gradients are averaged over ``steps`` points ``baseline + (1 - k / steps)(x -
    baseline)``, k = 0, 1, ..., for all rows at once (Sundararajan et al. 2017, arXiv 1703.01365, with the
    points of SHIFT, Marks et al. 2024, arXiv 2403.19647). ``baseline`` [d] is zero by default; one step is the
    plain gradient.

    Raises InputError for texts that occur twice, a hookpoint after ``layer`` and less than one step.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; at least one is needed")
    if len(set(texts)) < len(texts):
        raise InputError("a text occurs twice; give each text once, so that each has one reading")
    length = check_max_length(model, max_length)
    rows = harvest(model, texts, hookpoint, max_length=length, token_budget=token_budget)
    goals = (directions.expand(len(texts), -1) if directions.ndim == 1 else directions).to(model.device)
    origin = torch.zeros(model.d_model) if baseline is None else baseline
    points = [_Point(origin.to(model.device), 1 - k / steps) for k in range(steps)]
    first = np.cumsum([0, *torch.bincount(rows.text_ids, minlength=len(texts)).tolist()])
    gradients = torch.zeros_like(rows.x)
    with tqdm(total=len(texts), desc="gradients", unit="text", disable=not progress) as bar:
        for start in range(0, len(texts), CHUNK_TEXTS):
            tokens = tokenize(model.tokenizer, list(texts[start : start + CHUNK_TEXTS]), length)
            for sequences in token_batches(tokens.lengths, token_budget):
                batch, ids = make_batch(model, tokens, sequences), start + tokens.text_ids[sequences]
                found = sum(
                    _gradient(model, batch, hookpoint, point, layer, pooling, goals[ids]) for point in points
                )
                places = np.concatenate([np.arange(first[i], first[i + 1]) for i in ids])
                gradients[torch.from_numpy(places)] = torch.as_tensor(found).cpu() / steps
                bar.update(len(sequences))
    return rows, gradients


class _Point:
    """An edit that moves all rows to one point of the path, and keeps them for the derivative."""

    def __init__(self, origin: Tensor, share: float) -> None:
        self.origin, self.share = origin, share
        self.rows = origin

    def __call__(self, x: Tensor) -> Tensor:
        self.rows = (self.origin + self.share * (x.detach() - self.origin)).requires_grad_()
        return self.rows


def _gradient(
    model: LanguageModel,
    batch: Batch,
    hookpoint: str,
    point: _Point,
    layer: str,
    pooling: Pooling,
    goals: Tensor,
) -> Tensor:
    """Gradient of the batch's readings at one point of the path ``[n_rows, d]``, rows as in ``batch.real``."""
    here = replace(batch, states={})
    run_batch(model, here, [layer], {hookpoint: point}, with_grad=True)
    reading = (pool(here, layer, pooling) * goals).sum()
    return torch.autograd.grad(reading, point.rows)[0]
