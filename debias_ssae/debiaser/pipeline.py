"""The data's way through ``fit``, on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from debias_ssae.debiaser.choice import candidates, choose, each_in_one_class
from debias_ssae.debiaser.matrix import MatrixEncoder
from debias_ssae.debiaser.output import (
    FROM_LABELS,
    FROM_WORDS,
    OVERALL,
    OutputEraser,
    Samples,
    apply_output,
    fit_output,
    has_center,
    is_of_other_texts,
    is_of_training_texts,
    output_kind,
    samples_of,
)
from debias_ssae.debiaser.summary import measure
from debias_ssae.debiaser.training import train_ssae, width_of
from debias_ssae.erase import LatentEraser
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import Attribute, FitData, as_selection, members
from debias_ssae.selection.naming import name_latents
from debias_ssae.selection.select import Selection

RETRIEVAL, TRAINING, SELECTION, PROBES, PASS = 2.5, 0.07, 8.0, 2.0, 0.01
"""Seconds on one core with MiniLM: a thousand texts of the corpus, a training step, a selection, the probes, and a text
through the model. They only say about how long a fit takes (benchmarks/fit_profile.py)."""
SHIFTED_BY = 500
"""Training texts whose mean stays in place."""
NAMED_ON = 500
"""Training texts on which the removed latents are named."""


@dataclass(frozen=True)
class Spec:
    """The constructor's parameters of a debiaser, read and checked."""

    encoder: ActivationEncoder | MatrixEncoder
    attribute: Attribute
    hookpoints: tuple[str, ...]
    corpus: Sequence[str] | None
    saes: Mapping[str, SparseAutoencoder]
    """General SAEs by hookpoint, to be fine-tuned; one is trained where there is none."""
    output_eraser: Any
    alpha: float
    cache_dir: Path | None


@dataclass(frozen=True)
class Intervention:
    """What is removed at one hookpoint, and why."""

    eraser: LatentEraser
    sae: SparseAutoencoder
    selection: Selection
    record: dict[str, Any]
    """What was retrieved and how training went; JSON."""

    def with_latents(self, ids: np.ndarray | Sequence[int]) -> "Intervention":
        """The same SAE and scores with other latents removed. Raises InputError for ids that the SAE has not."""
        eraser = LatentEraser.from_sae(self.sae, ids, alpha=self.eraser.alpha)
        report = dict(self.selection.report)
        if "names" in report:
            known = dict(zip(self.selection.ids.tolist(), report["names"], strict=True))
            report["names"] = [known.get(int(i), f"latent {int(i)}") for i in ids]
        selection = Selection(self.selection.scores, np.asarray(ids, dtype=np.int64), report)
        return Intervention(eraser, self.sae, selection, self.record)


@dataclass(frozen=True)
class Fitted:
    """Everything that ``transform`` needs."""

    interventions: dict[str, Intervention]
    output_eraser: OutputEraser | None
    output_kind: str | None
    """What ``output_eraser="auto"`` came to; of the user's own its class."""
    shift: np.ndarray | None
    measured: dict[str, Any] = field(default_factory=dict)
    """How well probes read the attribute and the target before and after; JSON."""
    choice: dict[str, Any] | None = None
    """What ``output_eraser="auto"`` tried, and what it picked; JSON."""


def fit(spec: Spec, data: FitData) -> Fitted:
    """Train an SAE for each hookpoint, select what to remove there, and fit what follows the edit."""
    interventions = {}
    data.steps.expect(*costs(spec, data))
    for hookpoint in spec.hookpoints:
        sae, record = train_ssae(
            spec.encoder,
            hookpoint,
            data,
            corpus=spec.corpus,
            general=spec.saes.get(hookpoint),
            # a choice of latents is a choice of one SAE's latents
            finished=getattr(spec.attribute, "saes", {}).get(hookpoint),
            cache_dir=spec.cache_dir,
        )
        data.steps.begin(f"latents that carry the attribute at {hookpoint}")
        selection = as_selection(spec.attribute.select(spec.encoder, hookpoint, sae, data), sae)
        selection = _named(selection, spec.encoder, hookpoint, sae, data)
        eraser = LatentEraser.from_sae(sae, selection.ids, alpha=spec.alpha)
        interventions[hookpoint] = Intervention(eraser, sae, selection, record)
    data.steps.begin("what follows the edit: texts through the model, plain and edited")
    if spec.output_eraser == "auto" and _keeps_its_head(spec.encoder):
        # fine-tuning has made the shortcut's direction in the output that of the classes: it must stay
        spec = replace(spec, output_eraser=None)
    if spec.output_eraser != "auto" or spec.alpha == 0 or data.n_latents == 0:
        return fit_after_edit(spec, interventions, data)
    return _fit_the_best(spec, interventions, data)


def _keeps_its_head(encoder: ActivationEncoder | MatrixEncoder) -> bool:
    """Whether the encoder is a fine-tuned classifier, whose own head reads the representation."""
    return not isinstance(encoder, MatrixEncoder) and encoder.language_model.classifier is not None


def costs(spec: Spec, data: FitData) -> list[float]:
    """About the seconds of each step of ``fit`` on one core; what a cache holds takes none."""
    is_matrix, config = isinstance(spec.encoder, MatrixEncoder), data.config
    width = width_of(spec.encoder)
    model = (width / 384) ** 2
    found: list[float] = []
    for hookpoint in spec.hookpoints:
        is_chosen = hookpoint in getattr(spec.attribute, "saes", {})
        sae = width * config.sae_config(width, hookpoint).d_sae / (384 * 8192)
        if not is_chosen:
            if spec.corpus is not None and config.special is not None and not is_matrix:
                found.append(RETRIEVAL * len(spec.corpus) / 1000)
            trainings = ([] if hookpoint in spec.saes else [config.general]) + [config.special]
            found += [TRAINING * sae * t.n_steps * t.batch_size / 2048 for t in trainings if t is not None]
        found.append(0.0 if is_chosen else SELECTION * sae)
    n_texts = 0 if is_matrix else min(len(data.X), config.selection.max_texts)
    return [*found, PROBES + 2 * n_texts * PASS * model]  # each text plain and edited


def _fit_the_best(spec: Spec, interventions: dict[str, Intervention], data: FitData) -> Fitted:
    """The edit, an output eraser after it, or that eraser alone, as cross-validation on training data picks."""
    edits = edits_of(interventions)
    kind = output_kind("auto", spec.attribute, edits=True)
    choice = samples = seen = None
    if len(members(spec.attribute)) == 1 and kind in (*FROM_LABELS, *FROM_WORDS):
        samples = samples_of(kind, spec.attribute, spec.encoder, edits, data)
    if samples is not None:
        as_they_are = kind in FROM_LABELS and is_of_training_texts(members(spec.attribute)[0], data)
        if as_they_are and each_in_one_class(samples):
            kind = OVERALL  # inside the classes there is no shortcut to be seen, nor to be removed
        tried = candidates(kind, edits=bool(edits), as_they_are=as_they_are)
        choice = choose(
            samples,
            tried,
            recenter=data.config.recenter,
            random_state=data.random_state,
            as_they_are=as_they_are,
            # latents that do not carry the attribute cannot be read as what was removed either
            first_is_better=all(
                one.selection.left <= data.config.selection.readable for one in interventions.values()
            ),
        )
        picked = tried[0] if choice is None else choice.picked
        if not picked.edit:
            interventions = {name: one.with_latents([]) for name, one in interventions.items()}
            samples = samples.unedited()
        if choice is not None:
            seen = choice.seen if picked.edit else choice.seen.unedited()
        spec = replace(spec, output_eraser=picked.kind)
    fitted = fit_after_edit(spec, interventions, data, samples, seen)
    return replace(fitted, choice=None if choice is None else choice.report)


def _named(
    selection: Selection,
    encoder: ActivationEncoder | MatrixEncoder,
    hookpoint: str,
    sae: SparseAutoencoder,
    data: FitData,
) -> Selection:
    """The selection with a name for each latent in its report: its card's where a person ticked it, else the words
    that it fires on; a matrix has none.
    """
    if isinstance(encoder, MatrixEncoder) or not len(selection.ids) or "names" in selection.report:
        return selection
    order = np.random.default_rng(0).permutation(len(data.X))[:NAMED_ON]
    texts = [data.X[i] for i in order]
    names = name_latents(sae, encoder.rows(texts, hookpoint), texts, selection.ids)
    return replace(selection, report={**selection.report, "names": names})


def fit_after_edit(
    spec: Spec,
    interventions: dict[str, Intervention],
    data: FitData,
    samples: Samples | None = None,
    seen: Samples | None = None,
) -> Fitted:
    """What follows the edit: an output eraser, and a shift where that one keeps no mean in place.

    ``samples`` are those that the eraser is fitted on, and ``seen`` some to measure it on, where they are at hand.
    """
    edits = edits_of(interventions)
    kind = output_kind(spec.output_eraser, spec.attribute, edits=bool(edits))
    eraser, evidence = fit_output(kind, spec.attribute, spec.encoder, edits, data, samples)
    shift = None
    stays = has_center(kind) and not is_of_other_texts(spec.attribute, data)
    if data.config.recenter and edits and not stays:
        drawn = next(iter(evidence.values())) if kind == "displacement" else None
        sample = drawn or Samples.drawn(spec.encoder, edits, data)
        if isinstance(sample.X, list):
            sample = sample.at(np.arange(min(len(sample.X), SHIFTED_BY)))
        # a classifier already deployed keeps its intercept
        moved = apply_output(eraser, sample.edited).mean(axis=0)
        shift = (sample.plain.mean(axis=0) - moved).astype(sample.plain.dtype)
    name = kind if isinstance(kind, str | None) else type(kind).__name__
    fitted = Fitted(interventions, eraser, name, shift)
    return (
        replace(fitted, measured=measure(evidence if seen is None else {"attribute": seen}, fitted))
        if edits or eraser is not None
        else fitted
    )


def edits_of(interventions: Mapping[str, Intervention]) -> dict[str, LatentEraser]:
    """The erasers by hookpoint; those that change nothing are left out."""
    return {name: one.eraser for name, one in interventions.items() if one.eraser.changes_anything}
