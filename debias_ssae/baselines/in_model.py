"""Concept scrubbing: LEACE inside the model, at every block in turn (Belrose et al. 2023, section 6)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debias_ssae.baselines.attribute import read_attribute
from debias_ssae.baselines.erasers import LEACE
from debias_ssae.core.errors import InputError
from debias_ssae.model import LanguageModel, harvest
from debias_ssae.model.encoder import Edit


@dataclass(frozen=True)
class BlockErasure:
    """An edit of rows at one hookpoint: ``x - (x - center) right^T left``."""

    left: Tensor
    right: Tensor
    center: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the edited rows ``[n, d]``."""
        left, right, center = (part.to(x.device, x.dtype) for part in (self.left, self.right, self.center))
        return x - (x - center) @ right.T @ left

    @property
    def n_parameters(self) -> int:
        """Numbers that the edit keeps."""
        return self.left.numel() + self.right.numel() + self.center.numel()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the edit, for caches of what comes out of an edited model."""
        digest = hashlib.sha256()
        for part in (self.left, self.right, self.center):
            digest.update(np.ascontiguousarray(part.numpy()).tobytes())
        return f"block-erasure:{digest.hexdigest()}"


def scrub_blocks(
    model: LanguageModel,
    texts: Sequence[str],
    sensitive_features: Any,
    y: Any = None,
    *,
    hookpoints: Sequence[str] | None = None,
    edits: Mapping[str, Edit] | None = None,
    conditional: bool = False,
    max_length: int | None = None,
    token_budget: int = 2048,
    progress: bool = False,
) -> dict[str, BlockErasure]:
    """Fit LEACE on the token rows of each hookpoint, with the edits before it in place; return the edits.

    ``hookpoints`` defaults to the embeddings and every block's output, in the order of the pass, less those of
    ``edits``: edits of another kind that are in place already and are not returned. Every token has its text's
    attribute; texts are cut at ``max_length``, as where the edits are used. Raises InputError as LEACE does, and for
    a hookpoint that is unknown or edited already.
    """
    z, _ = read_attribute(sensitive_features, len(texts), "scrub_blocks")
    y = None if y is None else np.asarray(y)
    if y is not None and len(y) != len(texts):
        raise InputError(f"y has {len(y)} rows, but there are {len(texts)} texts; they must agree")
    present = dict(edits or {})
    if hookpoints is None:
        every = ["embeddings", *(f"blocks.{i}" for i in range(model.n_blocks))]
        hookpoints = [name for name in every if name not in present]
    if taken := sorted(set(hookpoints) & set(present)):
        raise InputError(
            f"hookpoints {taken} hold one of the edits given; an edit needs a hookpoint of its own"
        )
    known = np.flatnonzero(z >= 0)
    labelled = [texts[int(i)] for i in known]
    options: dict[str, Any] = {"max_length": max_length, "token_budget": token_budget, "progress": progress}
    found: dict[str, BlockErasure] = {}
    for hookpoint in sorted(hookpoints, key=_order(model, hookpoints)):
        rows = harvest(model, labelled, hookpoint, edits={**present, **found}, **options)
        owner = known[rows.text_ids.numpy()]
        fitted = LEACE(conditional=conditional).fit(
            rows.x.numpy(), None if y is None else y[owner], sensitive_features=z[owner]
        )
        found[hookpoint] = BlockErasure(
            *(torch.from_numpy(part).float() for part in (fitted.left_, fitted.right_, fitted.center_))
        )
    return found


def _order(model: LanguageModel, hookpoints: Sequence[str]) -> Any:
    unknown = [name for name in hookpoints if name not in model.hookpoints]
    if unknown:
        raise InputError(f"Unknown hookpoints {unknown}: this model has {', '.join(model.hookpoints)}")
    return model.hookpoints.index
