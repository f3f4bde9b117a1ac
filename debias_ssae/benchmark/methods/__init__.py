"""The methods compared: each turns a seed's texts into representations for the head."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from debias_ssae.ablation import LatentEraser
from debias_ssae.activations import harvest
from debias_ssae.attribution import (
    LatentScores,
    class_conditional_contrast,
    counterfactual_contrast,
    encode_attribute,
    matched_random_latents,
    pooled_latents,
)
from debias_ssae.baselines import (
    INLP,
    LEACE,
    SPLINCE,
    AttributeErasure,
    MeanDifference,
    counterfactual_subspace,
    token_mask,
)
from debias_ssae.benchmark.splits import Split
from debias_ssae.concept import Concept
from debias_ssae.config import BenchmarkConfig
from debias_ssae.debiaser import learn_ssae
from debias_ssae.encoder import ActivationEncoder, Edit
from debias_ssae.exceptions import InputError
from debias_ssae.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class Variant:
    """One method's representations in one seed; rows as in the split."""

    method: str
    regime: str
    X_head: np.ndarray
    X_attribute: np.ndarray
    X_test: np.ndarray
    d_sae: int | None = None
    n_latents: int | None = None
    draw: int = 0
    seconds_fit: float = 0.0
    seconds_transform: float = 0.0
    """For the test texts."""


@dataclass
class Corpus:
    """What all seeds share: the texts with labels, the model, the pool, and one pass for each fixed edit."""

    texts: list[str]
    text_ids: np.ndarray
    """Row of each text in the table without repeated texts."""
    y: np.ndarray
    z: np.ndarray
    majority: dict[str, str]
    """Each class's over-represented attribute value, in the whole table."""
    pool: list[str] | None
    config: BenchmarkConfig
    encoder: ActivationEncoder
    concept: Concept | None
    cache_dir: str | None = None
    progress: bool = False
    _passes: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)

    def fixed(self, name: str) -> tuple[np.ndarray, float]:
        """Representations of all texts, and seconds a text, for an edit that does not depend on the seed."""
        if name not in self._passes:
            start = time.perf_counter()
            if name == "plain" or self.concept is None:
                X = self.encoder.encode(self.texts)
            elif name == "scrub":
                X = self.encoder.encode([self.concept.scrub(text) for text in self.texts])
            else:
                X = token_mask(self.encoder, self.texts, self.concept)
            self._passes[name] = X, (time.perf_counter() - start) / len(self.texts)
        return self._passes[name]


class Seed:
    """One seed: its split, and its SAE and scores, made when a method first asks for them."""

    def __init__(self, corpus: Corpus, split: Split, number: int) -> None:
        self.corpus, self.split, self.number = corpus, split, number
        self.seconds: dict[str, float] = {}

    def variants(self, method: str) -> Iterator[Variant]:
        """Yield the method's rows: one, or one a regime, or one a draw; none where it needs a concept."""
        if self.corpus.concept is None and method in NEED_CONCEPT:
            return iter(())
        return _METHODS[method](self)

    @property
    def regimes(self) -> tuple[str, ...]:
        """Ways to find latents that this run has."""
        return ("labelled",) if self.corpus.concept is None else ("labelled", "concept")

    @cached_property
    def sae(self) -> SparseAutoencoder:
        """The SSAE: specialised on the head's texts and what they retrieve; test texts are held out."""
        corpus = self.corpus
        with self._timed("sae"):
            return learn_ssae(
                corpus.encoder.language_model,
                self.texts(self.split.head),
                corpus.config.hookpoint,
                corpus.config.debias,
                corpus=corpus.pool,
                held_out=self.texts(self.split.test),
                random_state=self.number,
                cache_dir=corpus.cache_dir,
                progress=corpus.progress,
            ).sae

    @cached_property
    def labelled(self) -> LatentScores:
        """Scores from the attribute set A."""
        corpus, rows, sae = self.corpus, self.split.attribute, self.sae
        with self._timed("labelled"):
            activations = harvest(corpus.encoder.language_model, self.texts(rows), corpus.config.hookpoint)
            z, values = encode_attribute(corpus.z[rows], len(rows))
            min_cell = corpus.config.debias.selection.min_cell
            return class_conditional_contrast(
                *pooled_latents(sae, activations), z, values, corpus.y[rows], min_cell=min_cell
            )

    @cached_property
    def concept(self) -> LatentScores:
        """Scores from the head's texts and the concept; no attribute labels."""
        corpus, sae = self.corpus, self.sae
        if corpus.concept is None:
            raise InputError("the concept regime needs a concept; set concept= in the protocol")
        with self._timed("concept"):
            return counterfactual_contrast(
                corpus.encoder.language_model,
                sae,
                self.texts(self.split.head),
                corpus.concept,
                hookpoint=corpus.config.hookpoint,
                max_texts=corpus.config.debias.selection.max_texts,
                random_state=self.number,
            )

    def fixed(self, name: str) -> dict[str, np.ndarray | float]:
        """Pick this split's rows from a pass over all texts."""
        X, seconds = self.corpus.fixed(name)
        return self._parts(X[self._rows], seconds)

    def edited(self, edits: Mapping[str, Edit]) -> dict[str, np.ndarray | float]:
        """Run the split's texts through the edited model."""
        start = time.perf_counter()
        X = self.corpus.encoder.encode(self.texts(self._rows), edits)
        return self._parts(X, (time.perf_counter() - start) / len(X))

    @property
    def plain_head(self) -> np.ndarray:
        """Plain representations of the head's texts."""
        return self.corpus.fixed("plain")[0][self.split.head]

    @property
    def _rows(self) -> np.ndarray:
        return np.concatenate([self.split.head, self.split.attribute, self.split.test])

    def _parts(self, X: np.ndarray, seconds_a_text: float) -> dict[str, np.ndarray | float]:
        head, attribute, test = np.split(X, np.cumsum([len(self.split.head), len(self.split.attribute)]))
        seconds = seconds_a_text * len(test)
        return {"X_head": head, "X_attribute": attribute, "X_test": test, "seconds_transform": seconds}

    def erased(self, method: str, regime: str, latents: np.ndarray, **facts: float) -> Variant:
        """The variant in which ``latents`` are removed inside the model."""
        eraser = LatentEraser.cut(self.sae, latents.tolist())
        parts = self.edited({self.corpus.config.hookpoint: eraser})
        return Variant(method, regime, **parts, d_sae=self.sae.cfg.d_sae, n_latents=len(latents), **facts)  # type: ignore[arg-type]

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The texts of these rows."""
        return [self.corpus.texts[i] for i in rows]

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _fixed(method: str, source: str, regime: str) -> Callable[[Seed], Iterator[Variant]]:
    def variants(seed: Seed) -> Iterator[Variant]:
        yield Variant(method, regime, **seed.fixed(source))  # type: ignore[arg-type]

    return variants


def _ssae(seed: Seed) -> Iterator[Variant]:
    n = seed.corpus.config.debias.selection.n_latents
    for regime in seed.regimes:
        scores: LatentScores = getattr(seed, regime)
        seconds = seed.seconds["sae"] + seed.seconds[regime]
        yield seed.erased("ssae", regime, scores.top(n), seconds_fit=seconds)


def _random_latents(seed: Seed) -> Iterator[Variant]:
    regime = seed.regimes[-1]
    scores: LatentScores = getattr(seed, regime)
    chosen = scores.top(seed.corpus.config.debias.selection.n_latents)
    for draw in range(seed.corpus.config.n_draws):
        state = 1000 * seed.number + draw
        latents = matched_random_latents(chosen, scores.firing_rate, scores.mass, random_state=state)
        yield seed.erased("random_latents", regime, latents, draw=draw)


def _linear(method: str, make: Callable[[], AttributeErasure]) -> Callable[[Seed], Iterator[Variant]]:
    """A linear eraser of the pooled vectors, fitted on the attribute set A."""

    def variants(seed: Seed) -> Iterator[Variant]:
        parts, rows, corpus = seed.fixed("plain"), seed.split.attribute, seed.corpus
        start = time.perf_counter()
        eraser = make().fit(parts["X_attribute"], corpus.y[rows], sensitive_features=corpus.z[rows])
        seconds = time.perf_counter() - start
        yield Variant(method, "labelled", **_applied(eraser.transform, parts), seconds_fit=seconds)  # type: ignore[arg-type]

    return variants


def _counterfactual_subspace(seed: Seed) -> Iterator[Variant]:
    corpus = seed.corpus
    if corpus.concept is None:
        raise InputError("counterfactual_subspace needs a concept; set concept= in the protocol")
    start = time.perf_counter()
    texts = seed.texts(seed.split.head)
    eraser = counterfactual_subspace(corpus.encoder, texts, corpus.concept, random_state=seed.number)
    seconds = time.perf_counter() - start
    parts = _applied(eraser.transform, seed.fixed("plain"))
    yield Variant("counterfactual_subspace", "concept", **parts, seconds_fit=seconds)  # type: ignore[arg-type]


def _applied(edit: Callable[[np.ndarray], np.ndarray], parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: edit(value) if name.startswith("X_") else value for name, value in parts.items()}


_METHODS: dict[str, Callable[[Seed], Iterator[Variant]]] = {
    "erm": _fixed("erm", "plain", "none"),
    "oracle": _fixed("oracle", "plain", "labelled"),
    "scrub": _fixed("scrub", "scrub", "concept"),
    "token_mask": _fixed("token_mask", "token_mask", "concept"),
    "mean_diff": _linear("mean_diff", MeanDifference),
    "leace": _linear("leace", LEACE),
    "leace_conditional": _linear("leace_conditional", lambda: LEACE(conditional=True)),
    "inlp": _linear("inlp", INLP),
    "splince": _linear("splince", SPLINCE),
    "counterfactual_subspace": _counterfactual_subspace,
    "random_latents": _random_latents,
    "ssae": _ssae,
}
METHODS = tuple(_METHODS)
NEED_CONCEPT = ("scrub", "token_mask", "counterfactual_subspace")
