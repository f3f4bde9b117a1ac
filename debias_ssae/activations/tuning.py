"""How many tokens a batch run fastest here."""

import time
from collections.abc import Sequence

import torch

from debias_ssae.activations.embedding import embed
from debias_ssae.activations.language_model import LanguageModel

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
    """Return the budget that embeds ``texts`` (a sample, a few batches' worth) in the least time.

    Budgets that do not fit the memory of a GPU are passed over. The budget changes the last bits of results, so
    tune once and keep the number.
    """
    on_gpu = model.device.type == "cuda"
    best = dict.fromkeys(budgets or (BUDGETS_GPU if on_gpu else BUDGETS_CPU), float("inf"))
    for _ in range(
        max(2, rounds)
    ):  # the first round also warms up, its times count only if they are the best
        for budget in best:
            start = time.perf_counter() if on_gpu else time.process_time()
            try:
                embed(model, texts, layer=layer, token_budget=budget)
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                continue
            best[budget] = min(best[budget], (time.perf_counter() if on_gpu else time.process_time()) - start)
    return min(best, key=best.__getitem__)
