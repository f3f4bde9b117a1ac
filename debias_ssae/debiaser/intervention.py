"""What a fitted debiaser knows and does at one hookpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from debias_ssae.core.config import DebiasConfig, SelectionConfig
from debias_ssae.debiaser.specialise import LearnedSAE, learn_ssae
from debias_ssae.erase import LatentEraser, Mode
from debias_ssae.model import LanguageModel, harvest
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection import LatentScores, encode_labels, rows_of_every_cell
from debias_ssae.selection.select import Selection, select_from_concept, select_from_labels
from debias_ssae.text.concept import Concept


@dataclass(frozen=True)
class Intervention:
    """One hookpoint: its SAE, what was found in it, and the eraser cut from both."""

    sae: SparseAutoencoder
    found: Selection | None
    """None where nothing was looked for."""
    eraser: LatentEraser
    record: dict[str, Any]
    """What was retrieved, how training went, what each step of the selection did; JSON."""

    @classmethod
    def cut(cls, learned: LearnedSAE, found: Selection | None, alpha: float) -> "Intervention":
        """Cut the eraser; without ``found`` nothing is removed."""
        latents = [] if found is None else found.latents.tolist()
        record = learned.record if found is None else {**learned.record, "selection": found.report}
        mode: Mode = "keep" if found is not None and found.keep else "zero"
        return cls(
            learned.sae, found, LatentEraser.from_sae(learned.sae, latents, alpha=alpha, mode=mode), record
        )

    @classmethod
    def learn(
        cls,
        model: LanguageModel,
        hookpoint: str,
        texts: list[str],
        config: DebiasConfig,
        *,
        corpus: Sequence[str] | None = None,
        concept: Concept | None = None,
        y: np.ndarray | None = None,
        sensitive_features: Any = None,
        general: SparseAutoencoder | None = None,
        keep: bool = False,
        n_latents: int | str = "auto",
        alpha: float = 1.0,
        random_state: int | None = None,
        cache_dir: str | Path | None = None,
        progress: bool = False,
    ) -> "Intervention":
        """Train the SAE of ``hookpoint``, find what to remove (or to ``keep``) and cut; no labels with a concept."""
        shown: dict[str, Any] = {"random_state": random_state, "progress": progress}
        learned = learn_ssae(
            model, texts, hookpoint, config, corpus=corpus, general=general, cache_dir=cache_dir, **shown
        )
        if concept is not None:
            options: dict[str, Any] = {"y": y, "hookpoint": hookpoint, "n_latents": n_latents, **shown}
            options["activations"] = config.activations
            found = select_from_concept(model, learned.sae, texts, concept, config.selection, **options)
        else:
            labelled, y, z = draw_labelled(texts, y, sensitive_features, config.selection, random_state)
            rows = harvest(model, labelled, hookpoint, progress=progress, **config.activations.limits)
            found = select_from_labels(
                learned.sae,
                rows,
                y,
                z,
                config.selection,
                keep=keep,
                n_latents=n_latents,
                random_state=random_state,
            )
        return cls.cut(learned, found, alpha)

    @property
    def latents(self) -> np.ndarray:
        """Ids of the removed latents, best first."""
        return np.array([], dtype=int) if self.found is None else self.found.latents

    @property
    def scores(self) -> LatentScores | None:
        """Scores of all latents; None where nothing was looked for."""
        return None if self.found is None else self.found.scores

    def with_latents(self, latents: np.ndarray) -> "Intervention":
        """The same SAE and scores with other ``latents`` removed. Raises InputError for ids it has not."""
        if self.found is None:
            return self
        eraser = LatentEraser.from_sae(
            self.sae, latents.tolist(), alpha=self.eraser.alpha, mode=self.eraser.mode
        )
        return replace(self, found=replace(self.found, latents=latents), eraser=eraser)


def draw_labelled(
    texts: Sequence[str],
    y: np.ndarray | None,
    sensitive_features: Any,
    config: SelectionConfig,
    random_state: int | None,
) -> tuple[list[str], np.ndarray | None, np.ndarray]:
    """The texts whose attribute and target are known, at most about ``config.max_labelled``, with both."""
    codes, values, y = encode_labels(sensitive_features, y, len(texts))
    rows = np.flatnonzero(codes >= 0)
    if len(rows) > config.max_labelled:
        order = np.random.default_rng(random_state).permutation(len(texts))
        rows = np.sort(rows_of_every_cell(order, codes, y, config.max_labelled, config.min_cell))
    return [texts[i] for i in rows.tolist()], None if y is None else y[rows], np.array(values)[codes[rows]]
