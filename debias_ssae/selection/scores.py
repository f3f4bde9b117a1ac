"""Scores of latents, one record for every way of scoring, and the way that reads labels."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from debias_ssae.core.errors import InputError
from debias_ssae.core.stats.shares import holm
from debias_ssae.model import Activations
from debias_ssae.sae.fast import active_latents
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.text.checks import table_of

CHUNK = 8192
"""Rows encoded at a time."""


@dataclass(frozen=True)
class LatentScores:
    """How much each latent carries the attribute. Arrays are ``[d_sae]`` unless said."""

    method: str
    score: np.ndarray
    """Ranking, >= 0; zero means: no evidence."""
    sign: np.ndarray
    """+1 where the latent rises with the second value of ``values``, -1 with the first, 0 neither; of more than two
    values, +1 where it rises with the one that it tells best from the others, -1 where it falls."""
    effect: np.ndarray
    """Signed effect inside each class ``[n_classes, d_sae]``, in the method's units; NaN for an ignored class."""
    firing_rate: np.ndarray
    """Share of rows on which the latent is active."""
    mass: np.ndarray
    """Mean activation over rows."""
    p_value: np.ndarray
    """Two-sided, Holm-corrected for the number of latents."""
    values: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    ignored: list[dict[str, Any]] = field(default_factory=list)
    """Cells (class x value) too small to be used, with their size."""

    def top(self, n: int) -> np.ndarray:
        """Return the ids of the ``n`` best latents, best first; fewer where fewer have any evidence."""
        order = np.argsort(-self.score, kind="stable")[:n]
        return order[self.score[order] > 0]


def corrected_p_values(z: np.ndarray) -> np.ndarray:
    """Return Holm-corrected two-sided p-values of the z statistics ``[d_sae]``."""
    return holm(2 * norm.sf(np.abs(np.nan_to_num(z))))


def pooled_latents(sae: SparseAutoencoder, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
    """Return each text's mean latents ``[n_texts, d_sae]`` and each latent's firing rate ``[d_sae]``.

    Only the active latents are computed: the dense latents of all rows never exist at once.
    """
    n, d_sae = activations.n_texts, sae.cfg.d_sae
    sums, fired = torch.zeros(n * d_sae), torch.zeros(d_sae, dtype=torch.long)
    for x, text_ids in zip(activations.x.split(CHUNK), activations.text_ids.split(CHUNK), strict=True):
        active, values = active_latents(sae, x.to(sae.W_enc.device))
        rows, columns = active.rows.cpu(), active.columns.cpu()
        sums.index_add_(0, text_ids[rows] * d_sae + columns, values.float().cpu())
        fired += torch.bincount(columns, minlength=d_sae)
    sizes = torch.bincount(activations.text_ids, minlength=n).clamp(min=1)
    pooled = sums.view(n, d_sae) / sizes[:, None]
    return pooled.numpy(), (fired / max(len(activations.x), 1)).float().numpy()


def copies(X: np.ndarray) -> np.ndarray:
    """Return for each row of ``X [n, d]`` the number of the first that equals it ``[n]``.

    Copies of a text must share a fold: a probe would know them by heart.
    """
    first, inverse = np.unique(X, axis=0, return_index=True, return_inverse=True)[1:]
    return np.asarray(first[inverse.ravel()])


def encode_attribute(
    sensitive_features: Any, n: int, *, among: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes ``[n]`` (-1 where the attribute is missing) and the values' names, sorted.

    Several columns are crossed. Rows outside ``among`` (True, False; [n]) count as missing. Raises InputError when
    the length is not ``n`` or fewer than two values exist.
    """
    table = table_of(sensitive_features, "sensitive_features")
    if len(table) != n:
        raise InputError(f"sensitive_features has {len(table)} rows, but X has {n}; they must agree")
    known = table.notna().all(axis=1).to_numpy()
    known = known if among is None else known & among
    names = names_of(table[known])
    values, inverse = np.unique(np.array(names, dtype=str), return_inverse=True)
    if len(values) < 2:
        held = f"only the value {str(values[0])!r}" if len(values) else "no known value"
        where = "" if among is None or among.all() else " where y is known"
        raise InputError(
            f"sensitive_features holds {held}{where}; two are needed to see what differs between them"
        )
    codes = np.full(n, -1)
    codes[known] = inverse
    return codes, tuple(values.tolist())


def encode_labels(
    sensitive_features: Any, y: np.ndarray | None, n: int
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Like ``encode_attribute``, with the target ``y`` [n] third: where that is missing, the code is -1 as well.

    There ``y`` comes back with a value that it has elsewhere, so that it holds classes only.
    """
    if y is None:
        return *encode_attribute(sensitive_features, n), None
    y = np.asarray(y)
    if len(y) != n:
        raise InputError(f"y has {len(y)} rows, but X has {n}; they must agree")
    known = ~pd.isna(y)
    codes, values = encode_attribute(sensitive_features, n, among=known)
    return codes, values, y if known.all() else np.where(known, y, y[known][:1])


def rows_of_every_cell(
    order: np.ndarray,
    z: np.ndarray,
    y: np.ndarray | None,
    max_rows: int,
    min_cell: int = 1,
    *,
    enough: int | None = None,
) -> np.ndarray:
    """Row numbers, in ``order``, of the cells (class x value) of those classes that hold two cells of ``min_cell``.

    ``z [n]`` are codes, -1 unknown. A cell gives ``min_cell`` rows or its share of ``max_rows``, whichever is more.
    With ``enough``, a cell of more than that gives at most three times the smallest of its class: the difference of
    two means is as uncertain as that of the smaller group.
    """
    order = order[z[order] >= 0]
    classes = np.zeros(len(z), dtype=int) if y is None else y
    cells: list[np.ndarray] = []
    most = len(order) if enough is None else enough
    for c in np.unique(classes[order]):
        inside = order[classes[order] == c]
        of_class = [inside[z[inside] == g] for g in np.unique(z[inside])]
        large = [cell for cell in of_class if len(cell) >= min_cell]
        if len(large) > 1:
            cells += [cell[: max(most, 3 * min(map(len, large)))] for cell in large]
    if not cells:
        return order[:0]
    share = max(min_cell, max_rows // len(cells))
    return np.concatenate([cell[:share] for cell in cells])


def names_of(sensitive_features: Any) -> list[str]:
    """The name of each row's value, of several columns crossed; without gaps. A whole number is its digits, also
    where a gap elsewhere in its column had made it a float.
    """
    return [_name(row) for row in table_of(sensitive_features, "sensitive_features").itertuples(index=False)]


def _name(row: tuple[Any, ...]) -> str:
    """The name of a value; of crossed ones no two have the same, whatever commas they hold."""
    if len(row) == 1:
        return _digits(row[0])
    return ",".join(_digits(part).replace("\\", "\\\\").replace(",", "\\,") for part in row)


def _digits(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def class_conditional_contrast(
    latents: np.ndarray,
    firing_rate: np.ndarray,
    z: np.ndarray,
    values: tuple[str, ...],
    y: np.ndarray | None = None,
    *,
    min_cell: int = 20,
) -> LatentScores:
    """Score latents by the attribute's effect inside each class of ``y``, pooled over classes.

    ``latents [n, d_sae]`` are mean latents of a text, ``z [n]`` codes of ``values`` (-1 unknown). For each
    value g and class c with both cells at least ``min_cell``: effect = mean(g, c) - mean(rest, c). Classes are
    pooled with weight n_g n_rest / (n_g + n_rest); the score is the pooled effect in standard errors, times the
    weighted agreement of the classes' signs. With two values one contrast says all; with more, the largest
    over values counts.

    Raises InputError when no class has two cells of ``min_cell``: there the attribute and the class are one.
    """
    known = z >= 0
    latents, z = latents[known], z[known]
    y = np.zeros(len(z), dtype=int) if y is None else np.asarray(y)[known]
    classes = np.unique(y)
    ignored = [
        {"class": str(c), "value": values[g], "n": int(n)}
        for c in classes
        for g in range(len(values))
        if (n := np.sum((y == c) & (z == g))) < min_cell
    ]
    groups = [1] if len(values) == 2 else range(len(values))
    every = [_contrast(latents, y, classes, z == g, min_cell) for g in groups]
    contrasts = [c for c in every if c is not None]
    if not contrasts:
        raise InputError(
            f"no class of the target holds two attribute values with {min_cell} texts each, so the attribute "
            "cannot be told from the target; give a labelled set that has both, or name a concept="
        )
    strength = np.stack([np.abs(z_stat) * agreement for _, z_stat, agreement in contrasts])
    best = strength.argmax(axis=0)
    columns = np.arange(latents.shape[1])
    z_stat = np.stack([c[1] for c in contrasts])[best, columns]
    effect = np.stack([c[0] for c in contrasts])[best, :, columns].T
    return LatentScores(
        method="class_conditional_contrast",
        score=strength[best, columns],
        sign=np.sign(z_stat),
        effect=effect,
        firing_rate=firing_rate,
        mass=latents.mean(axis=0),
        p_value=corrected_p_values(z_stat),
        values=values,
        classes=tuple(map(str, classes)),
        ignored=ignored,
    )


def _contrast(
    latents: np.ndarray, y: np.ndarray, classes: np.ndarray, in_group: np.ndarray, min_cell: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Effects ``[n_classes, d]``, pooled z statistic ``[d]`` and sign agreement ``[d]``; None if no cell holds."""
    d = latents.shape[1]
    effect = np.full((len(classes), d), np.nan)
    total, variance, agreement, weights = np.zeros(d), np.zeros(d), np.zeros(d), 0.0
    for i, c in enumerate(classes):
        inside, outside = latents[(y == c) & in_group], latents[(y == c) & ~in_group]
        if min(len(inside), len(outside)) < min_cell:
            continue
        weight = len(inside) * len(outside) / (len(inside) + len(outside))
        effect[i] = inside.mean(axis=0) - outside.mean(axis=0)
        total += weight * effect[i]
        agreement += weight * np.sign(effect[i])
        variance += weight**2 * (inside.var(axis=0) / len(inside) + outside.var(axis=0) / len(outside))
        weights += weight
    if weights == 0:
        return None
    z_stat = np.divide(total, np.sqrt(variance), out=np.zeros(d), where=variance > 0)
    return effect, z_stat, np.abs(agreement) / weights
