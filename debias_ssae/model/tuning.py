"""How many tokens a batch run fastest here."""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from debias_ssae.model.forward import iter_states
from debias_ssae.model.language_model import LanguageModel
from debias_ssae.model.tokens import TokenizedTexts, check_texts, tokenize

TokenBudget = int | Literal["auto"]
DEFAULT_BUDGET = 2048
BUDGETS_CPU = (512, 1024, 2048, 4096)
BUDGETS_GPU = (4096, 16_384, 65_536, 262_144)


def tune_token_budget(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    layer: str = "final",
    budgets: Sequence[int] | None = None,
    rounds: int = 2,
) -> int:
    """Return the budget that runs ``texts`` (a sample, a few batches' worth) to ``layer`` in the least time.

    Budgets that do not fit the memory of a GPU are passed over. The budget changes the last bits of results, so
    tune once and keep the number.
    """
    tokens = tokenize(model.tokenizer, check_texts(texts), model.max_length)
    return _fastest(model, tokens, layer, budgets, rounds)


def resolve_budget(model: LanguageModel, tokens: TokenizedTexts, layer: str, budget: TokenBudget) -> int:
    """Return ``budget``, or for "auto" the one that runs a sample of ``tokens`` fastest.

    Measured once a model and layer and then kept, since another budget gives other last bits. Too few tokens to
    fill two of the largest batches are not worth it: 2,048.
    """
    if budget != "auto":
        return budget
    if layer not in model.tuned_budgets:
        largest = max(_budgets(model))
        sample = _sample(tokens, 2 * largest)
        if int(sample.lengths.sum()) < largest:
            return DEFAULT_BUDGET
        model.tuned_budgets[layer] = _fastest(model, sample, layer, None, 2)
    return model.tuned_budgets[layer]


def _fastest(
    model: LanguageModel, tokens: TokenizedTexts, layer: str, budgets: Sequence[int] | None, rounds: int
) -> int:
    on_gpu = model.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    best = dict.fromkeys(budgets or _budgets(model), float("inf"))
    # the first round also warms up, its times count only if they are the best
    for _ in range(max(2, rounds)):
        for budget in best:
            start = clock()
            try:
                for _batch in iter_states(model, tokens, [layer], token_budget=budget):
                    pass
                if on_gpu:
                    torch.cuda.synchronize()
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                continue
            best[budget] = min(best[budget], clock() - start)
    return min(best, key=best.__getitem__)


def _budgets(model: LanguageModel) -> tuple[int, ...]:
    return BUDGETS_GPU if model.device.type == "cuda" else BUDGETS_CPU


def _sample(tokens: TokenizedTexts, n_tokens: int) -> TokenizedTexts:
    """Return some of the sequences, about ``n_tokens`` long together, spread over all."""
    total = int(tokens.lengths.sum())
    step = max(1, total // max(1, n_tokens))
    chosen = np.arange(0, len(tokens.lengths), step)
    inside = np.isin(np.repeat(np.arange(len(tokens.lengths)), tokens.lengths), chosen)
    return TokenizedTexts(
        ids=tokens.ids[inside],
        special=tokens.special[inside],
        spans=tokens.spans[inside],
        starts=np.concatenate([[0], np.cumsum(tokens.lengths[chosen])]).astype(np.int64),
        text_ids=tokens.text_ids[chosen],
    )
