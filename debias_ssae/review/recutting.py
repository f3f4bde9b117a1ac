"""A reviewed debiaser: the same SAE and scores, another cut."""

import copy
from datetime import UTC, datetime
from typing import Any

import numpy as np

from debias_ssae.ablation import LatentEraser
from debias_ssae.attribution import LatentScores
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.encoder import check_texts
from debias_ssae.exceptions import InputError
from debias_ssae.review.candidates import parts
from debias_ssae.review.choices import Choices, PartChoices


def recut(
    debiaser: SSAEDebiaser, choices: Choices, texts: Any = None, *, sensitive_features: Any = None
) -> SSAEDebiaser:
    """Return a copy of ``debiaser`` that removes what ``choices`` say; nothing is trained.

    What is fitted on edited representations is fitted again on ``texts``, which should be the training texts: the
    shift (``config.recenter``) and the residual eraser ("leace" needs ``sensitive_features`` as well). A review
    that changes nothing needs no texts and gives the same bits.

    Raises InputError for choices of another SAE or hookpoint, and where texts or labels are needed and missing.
    """
    new = copy.copy(debiaser)
    changes: dict[str, Any] = {}
    by_hookpoint = {part.hookpoint: part for part in choices.parts}
    known = {hookpoint for hookpoint, *_ in parts(debiaser)}
    if unknown := set(by_hookpoint) - known:
        raise InputError(
            f"the review is of the hookpoint {min(unknown)}, but this debiaser edits {', '.join(sorted(known))}"
        )
    for hookpoint, sae, scores, latents in parts(debiaser):
        part = by_hookpoint.get(hookpoint)
        if part is None:
            continue
        if part.sae != sae.fingerprint():
            raise InputError(
                f"the review is of another SAE ({part.sae[:12]}, but the model's at {hookpoint} is "
                f"{sae.fingerprint()[:12]}); write one for this model with debias-ssae latents MODEL --data"
            )
        chosen = _apply(part, scores, latents)
        before, after = set(latents.tolist()), set(chosen.tolist())
        changes[hookpoint] = {"kept": sorted(before - after), "added": sorted(after - before)}
        if before != after:
            new.latents_ = chosen
            new.eraser_ = LatentEraser.cut(sae, chosen.tolist(), alpha=debiaser.alpha)
    if any(change["kept"] or change["added"] for change in changes.values()):
        _fit_again(new, texts, sensitive_features)
    new.record_ = {
        **debiaser.record_,
        "review": {"date": datetime.now(UTC).date().isoformat(), "changes": changes},
    }
    return new


def _apply(part: PartChoices, scores: LatentScores, latents: np.ndarray) -> np.ndarray:
    """The ids to remove, best first."""
    beyond = [line.id for line in part.latents if line.id >= len(scores.score)]
    if beyond:
        raise InputError(f"the review names latent {beyond[0]}, but the SAE has {len(scores.score)}")
    wanted = {line.id: line.remove for line in part.latents}
    removed = [int(i) for i in latents if wanted.get(int(i), True)]
    added = [i for i, remove in wanted.items() if remove and i not in set(removed)]
    every = np.array(removed + added, dtype=int)
    return every if not added else every[np.argsort(-scores.score[every], kind="stable")]


def _fit_again(new: SSAEDebiaser, texts: Any, sensitive_features: Any) -> None:
    """The residual eraser and the shift depend on the eraser."""
    if not new._config().recenter and new.residual_ is None:
        return
    if texts is None:
        what = "residual eraser" if new.residual_ is not None else "shift of the output"
        raise InputError(f"the {what} depends on what is removed; give the training texts (--data)")
    if new.residual == "leace" and sensitive_features is None:
        raise InputError('residual="leace" is fitted on labels; give them as well (--sensitive)')
    new.residual_, new.shift_ = None, None
    new._fit_after_edit(check_texts(texts), new._load_concept(), sensitive_features)
