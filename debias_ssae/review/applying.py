"""A reviewed debiaser: the same SAE and scores, another cut."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.debiaser.pipeline import Intervention
from debias_ssae.review.candidates import check_reviewable, scores_of
from debias_ssae.review.choices import Choices, PartChoices


def with_latents(
    debiaser: SSAEDebiaser,
    choices: Choices,
    texts: Any = None,
    *,
    y: Any = None,
    sensitive_features: Any = None,
) -> SSAEDebiaser:
    """Return a copy of ``debiaser`` that removes what ``choices`` say; nothing is trained.

    What is fitted on edited representations is fitted again on ``texts``, which should be the training texts: the
    shift (``config.recenter``), or a residual eraser from labels, which needs ``sensitive_features`` (and ``y``, if
    ``fit`` had it). The counterfactual residual eraser comes from the plain model and stays. A review that changes
    nothing needs no texts and gives the same bits.

    Raises InputError for a debiaser of a matrix or with edit="keep", for choices of another SAE or hookpoint, and
    where texts or labels are needed and missing.
    """
    check_reviewable(debiaser)
    old = debiaser.interventions_
    for part in choices.parts:
        _check(part, old)
    chosen = {part.hookpoint: _chosen(part, old[part.hookpoint]) for part in choices.parts}
    new = debiaser.with_latents(chosen, texts, y, sensitive_features=sensitive_features)
    for part in choices.parts:
        before, after = old[part.hookpoint].selection.ids.tolist(), chosen[part.hookpoint]
        kept, added = (sorted(set(a) - set(b)) for a, b in ((before, after), (after, before)))
        review = {"date": datetime.now(UTC).date().isoformat(), "kept": kept, "added": added}
        one = new.interventions_[part.hookpoint]
        new.interventions_[part.hookpoint] = replace(one, record={**one.record, "review": review})
    return new


def _check(part: PartChoices, known: dict[str, Intervention]) -> None:
    if part.hookpoint not in known:
        raise InputError(
            f"the review is of the hookpoint {part.hookpoint}, but this debiaser edits {', '.join(known)}"
        )
    sae = known[part.hookpoint].sae
    if part.sae != sae.fingerprint():
        raise InputError(
            f"the review is of another SAE ({part.sae[:12]}, but the model's at {part.hookpoint} is "
            f"{sae.fingerprint()[:12]}); write one for this model with debias-ssae latents MODEL --data"
        )
    beyond = [line.id for line in part.latents if line.id >= sae.cfg.d_sae]
    if beyond:
        raise InputError(f"the review names latent {beyond[0]}, but the SAE has {sae.cfg.d_sae}")


def _chosen(part: PartChoices, before: Intervention) -> list[int]:
    """The ids to remove: in the order there was, or by score where some are new."""
    wanted = {line.id: line.remove for line in part.latents}
    removed = [int(i) for i in before.selection.ids if wanted.get(int(i), True)]
    added = [i for i, remove in wanted.items() if remove and i not in set(removed)]
    score = scores_of(before).score
    return removed if not added else sorted(removed + added, key=lambda i: -score[i])
