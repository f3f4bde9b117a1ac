"""Accuracy against how many latents are removed, and how strongly; random latents beside."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.benchmark.answers import Answers
from debias_ssae.benchmark.bare import BareSeed, of_seed, summarise_bare
from debias_ssae.benchmark.methods import TrainedSAE
from debias_ssae.benchmark.parts import Parts, writable_directory, write_json
from debias_ssae.benchmark.run import Ready, prepare, provenance
from debias_ssae.benchmark.workers import run_parts
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.selection import matched_random_latents
from debias_ssae.selection.select import Selection

COUNTS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 500)
"""Latents removed; 0 is erm."""
ALPHAS = (0.25, 0.5, 0.75)
"""Share of what the default number of latents writes that is removed; 0 is erm, 1 is in the other curve."""
SWEEPS = ("ssae", "random_latents", "alpha")


def run_curves(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    out: str | Path,
    *,
    corpus: Sequence[str] | None = None,
    data: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    splits: Callable[[pd.DataFrame], list[Any]] | None = None,
    jobs: int | None = None,
    command: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Sweep the number of latents and alpha of ssae, and the number of matched random latents, in every seed.

    Regime: the concept where the run has one, else the labels of set A. Returns what curves.json holds: the run's
    description and ``curves``, a row for each sweep, point and head (C by cross-validation). Points are kept and
    not computed again by a run that goes on. Counts above half the SAE's width are left out.
    """
    started = time.monotonic()
    ready = prepare(table, config, corpus, cache_dir, splits=splits)
    out = writable_directory(out)
    parts = Parts(out / "curves" / ready.key)
    points = list(_points(config))
    wanted = [(str(number), _name(*point)) for number in range(len(ready.splits)) for point in points]
    seeds = range(len(ready.splits))
    finished, resumed = run_parts(
        _run_seed, ready, parts, seeds, wanted, jobs=jobs, progress=progress, unit="point"
    )
    answers = Answers(pd.concat([part.predictions for part in finished], ignore_index=True))
    rows = [row for part in finished for row in part.rows]
    results = {
        **provenance(ready, data, command, finished, None if resumed else started),
        "curves": list(summarise_bare(rows, answers)),
    }
    write_json(out / "curves.json", results)
    parts.discard(wanted)
    return results


def _points(config: BenchmarkConfig) -> Iterator[tuple[str, float]]:
    """Sweep and value: erm and oracle have none."""
    yield "erm", 0
    yield "oracle", 0
    for count in sorted({*COUNTS, config.debias.selection.n_latents} - {0}):
        if config.debias.d_sae is None or count <= config.debias.d_sae // 2:
            yield "ssae", count
            yield "random_latents", count
    for alpha in ALPHAS:
        yield "alpha", alpha


def _name(sweep: str, value: float) -> str:
    return f"{sweep}={value:g}"


def _run_seed(shared: tuple[Ready, Parts], number: int, on_part: Callable[[], Any]) -> None:
    ready, parts = shared
    points = [p for p in _points(ready.corpus.config) if not parts.has(str(number), _name(*p))]
    if not points:
        return
    bare = of_seed(ready.corpus, ready.splits, number)
    sweep, default = _Sweep(bare), ready.corpus.config.debias.selection.n_latents
    for method, value in points:
        predictions, n_latents = sweep.predictions(method, value)
        facts = {"value": float(value), "n_latents": n_latents, "default": value == default}
        name = _name(method, value)
        parts.write(str(number), name, *bare.part(method, name, predictions, **facts))
        on_part()


class _Sweep:
    """One seed's SAE and what is found in it for each number of latents."""

    def __init__(self, bare: BareSeed) -> None:
        self.bare, self.seed = bare, bare.seed

    def predictions(self, sweep: str, value: float) -> tuple[dict[str, np.ndarray], int]:
        """Of each head, and how many latents were removed: fewer than asked where fewer carry anything."""
        if sweep == "erm":
            return self.bare.erm(), 0
        if sweep == "oracle":
            return self.bare.oracle(), 0
        default = self.seed.corpus.config.debias.selection.n_latents
        trained, found = self._found(default if sweep == "alpha" else int(value))
        latents, scores = found.latents, found.scores
        if sweep == "random_latents":
            latents = matched_random_latents(
                latents, scores.firing_rate, scores.mass, random_state=1000 * self.seed.number
            )
        alpha = value if sweep == "alpha" else 1.0
        return self.bare.edited(self.seed.erasing(trained, latents, alpha=alpha)), len(latents)

    def _found(self, n: int) -> tuple[TrainedSAE, Selection]:
        trained = self.seed.sae("ssae")
        regime = "labelled" if self.seed.corpus.concept is None else "concept"
        return trained, self.seed.found(trained, regime, n)
