"""What each latent adds, through the rest of the model, to a reading of the representation."""

from collections.abc import Sequence

import numpy as np
import torch

from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel, Pooling, integrated_gradients
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.scores import CHUNK, LatentScores, corrected_p_values


def integrated_gradients_attribution(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    direction: np.ndarray,
    *,
    y: np.ndarray | None = None,
    flip: np.ndarray | None = None,
    values: tuple[str, ...] = (),
    hookpoint: str = "embeddings",
    layer: str = "final",
    pooling: Pooling = "mean",
    steps: int = 10,
    progress: bool = False,
) -> LatentScores:
    """Score latents by what they add to ``representation @ direction`` (SHIFT, Marks et al. 2024, section 4).

    A latent's effect on a text is the sum over its tokens of activation x (decoder row . mean gradient), along
    the path on which all latents and the SAE's error fade to ``b_dec`` together. ``direction`` [d] is the
    coefficient of a linear head, of a probe of the attribute, or the mean change between counterfactuals. ``flip`` [n]
    marks texts whose reading counts negatively: with ``y == classes[0]`` the effect is on the logit of the right
    class, as SHIFT has it. The score is the absolute mean over texts; ``effect`` has it inside each class of ``y``.

    Raises InputError for a direction of another width, and as ``integrated_gradients`` does.
    """
    direction = np.asarray(direction, dtype=np.float32).ravel()
    if len(direction) != model.d_model:
        raise InputError(f"direction has {len(direction)} entries; {model.name} gives {model.d_model}")
    side = np.ones(len(texts), dtype=np.float32)
    if flip is not None:
        side[np.asarray(flip, dtype=bool)] = -1
    rows, gradients = integrated_gradients(
        model,
        texts,
        torch.from_numpy(np.outer(side, direction)),
        hookpoint,
        layer=layer,
        pooling=pooling,
        baseline=sae.b_dec.detach().float(),
        steps=steps,
        progress=progress,
    )
    effects = torch.zeros(len(texts), sae.cfg.d_sae)
    activity, fired = torch.zeros(sae.cfg.d_sae), torch.zeros(sae.cfg.d_sae)
    for start in range(0, len(rows.x), CHUNK):
        part = slice(start, start + CHUNK)
        with torch.no_grad():
            f = sae.encode(rows.x[part]).float()
            effects.index_add_(0, rows.text_ids[part], f * (gradients[part] @ sae.W_dec.T.float()))
        activity, fired = activity + f.sum(0), fired + (f > 0).sum(0)
    each = effects.numpy().astype(np.float64)
    mean, error = each.mean(axis=0), each.std(axis=0) / np.sqrt(len(each))
    classes = np.zeros(len(each), dtype=int) if y is None else np.asarray(y)
    n_rows = max(len(rows.x), 1)
    return LatentScores(
        method="integrated_gradients",
        score=np.abs(mean),
        sign=np.sign(mean),
        effect=np.stack([each[classes == c].mean(axis=0) for c in np.unique(classes)]),
        firing_rate=(fired / n_rows).numpy(),
        mass=(activity / n_rows).numpy(),
        p_value=corrected_p_values(np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)),
        values=values,
        classes=() if y is None else tuple(map(str, np.unique(classes))),
    )
