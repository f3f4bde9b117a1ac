"""What a fitted debiaser knows and does at one hookpoint."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from debias_ssae.ablation import LatentEraser
from debias_ssae.attribution import LatentScores
from debias_ssae.debiaser.finding import Found
from debias_ssae.debiaser.specialise import LearnedSAE
from debias_ssae.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class Part:
    """One hookpoint: its SAE, what was found in it, and the eraser cut from both."""

    sae: SparseAutoencoder
    found: Found | None
    """None where nothing was looked for."""
    eraser: LatentEraser
    record: dict[str, Any]
    """What was retrieved, how training went, what each step of the selection did; JSON."""

    @classmethod
    def cut(cls, learned: LearnedSAE, found: Found | None, alpha: float) -> "Part":
        """Cut the eraser; without ``found`` nothing is removed."""
        latents = [] if found is None else found.latents.tolist()
        record = learned.record if found is None else {**learned.record, "selection": found.report}
        return cls(learned.sae, found, LatentEraser.cut(learned.sae, latents, alpha=alpha), record)

    @property
    def latents(self) -> np.ndarray:
        """Ids of the removed latents, best first."""
        return np.array([], dtype=int) if self.found is None else self.found.latents

    @property
    def scores(self) -> LatentScores | None:
        """Scores of all latents; None where nothing was looked for."""
        return None if self.found is None else self.found.scores

    def recut(self, latents: np.ndarray) -> "Part":
        """The same SAE and scores with other ``latents`` removed. Raises InputError for ids it has not."""
        if self.found is None:
            return self
        eraser = LatentEraser.cut(self.sae, latents.tolist(), alpha=self.eraser.alpha)
        return replace(self, found=replace(self.found, latents=latents), eraser=eraser)
