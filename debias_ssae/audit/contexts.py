"""Text around the tokens on which removed latents fire most. The model runs here, so torch is needed here
only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from debias_ssae.audit.flips import masked

CHUNK = 8192


def top_contexts(
    debiaser: Any,
    texts: Sequence[str],
    *,
    n_latents: int = 30,
    n_contexts: int = 5,
    width: int = 45,
    mask_names: bool = False,
) -> dict[int, list[str]]:
    """Snippets by latent for ``auditing.latent_cards``: the strongest token of each text in «», strongest
    text first.

    ``debiaser`` is a fitted SSAEDebiaser of texts; ``width`` characters stand on either side of the token.
    Latents that fire nowhere in ``texts`` have no snippet.
    """
    ids = [int(i) for i in np.asarray(debiaser.latents_)[:n_latents]]
    texts = [str(t) for t in texts]
    rows = debiaser.encoder_.rows(texts, next(iter(debiaser.interventions_)))
    fired = _fired(debiaser.sae_, rows.x, ids)
    owners, spans = np.asarray(rows.text_ids), np.asarray(rows.offsets)
    found = {}
    for column, latent in enumerate(ids):
        seen: dict[int, int] = {}
        for row in np.argsort(-fired[:, column], kind="stable"):
            if fired[row, column] <= 0 or len(seen) == n_contexts:
                break
            seen.setdefault(int(owners[row]), int(row))
        places = [(texts[t], int(spans[row][0]), int(spans[row][1])) for t, row in seen.items()]
        found[latent] = [_snippet(*place, width, mask_names=mask_names) for place in places]
    return found


def _fired(sae: Any, x: Any, ids: list[int]) -> Any:
    """[n_rows, n_latents] activations, encoded in chunks."""
    parts = [sae.encode(x[i : i + CHUNK])[:, ids].detach().cpu().numpy() for i in range(0, len(x), CHUNK)]
    return np.concatenate(parts)


def _snippet(text: str, start: int, end: int, width: int, *, mask_names: bool) -> str:
    left, right = text[max(0, start - width) : start], text[end : end + width]
    head, tail = "…" if start > width else "", "…" if end + width < len(text) else ""
    shown = f"{head}{left}«{text[start:end]}»{right}{tail}"
    return masked(shown, begins=start <= width) if mask_names else shown
