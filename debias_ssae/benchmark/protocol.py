"""Who trains the head, who describes the attribute, who is tested, and which supervision a method gets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats.contingency import association as cramer

from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import fingerprint
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.retrieval.duplicates import fold
from debias_ssae.selection.attribute import AnnotatedTexts
from debias_ssae.text.checks import texts_sha256
from debias_ssae.text.concept import Concept

logger = logging.getLogger(__name__)

LEAST_HEAD = 5
"""Texts of a class that train the head, at least: as many as there are folds to choose its C in."""


class Split(NamedTuple):
    """Row numbers of disjoint sets."""

    head: np.ndarray
    """Trains the classifier; in setting "confounded" only the majority cell of each class."""
    attribute: np.ndarray
    """The group-annotated set, balanced over class x attribute: labels of the labelled regime, training set of the
    oracle."""
    test: np.ndarray
    """Balanced over class x attribute."""
    rest: np.ndarray = np.array([], dtype=int)
    """What is left over, at most as much of a cell as the head may have; for the large oracle alone."""


def majority_values(y: np.ndarray, z: np.ndarray) -> dict[str, str]:
    """For each class, the attribute value that is most over-represented in it."""
    share = pd.crosstab(y, z, normalize="index") / pd.Series(z).value_counts(normalize=True)
    return {str(c): str(g) for c, g in share.idxmax(axis=1).items()}


def make_split(y: np.ndarray, z: np.ndarray, config: BenchmarkConfig, random_state: int) -> Split:
    """Draw the three sets; ``n_test`` and ``n_attribute`` texts from every cell, ``max_head`` from a head's cell.

    In setting "natural" the head's set is a plain sample of the rest, as large as the confounded one.
    Raises InputError for a cell that is too small, naming it, for a class with too few texts left for the head, and,
    in setting "confounded", when all classes share their majority value: then nothing is confounded.
    """
    rng, n_test, n_attribute = np.random.default_rng(random_state), config.n_test, config.n_attribute
    majority = majority_values(y, z)
    if config.setting == "confounded" and len(set(majority.values())) < 2:
        raise InputError(
            f"every class has the same majority attribute value {next(iter(majority.values()))!r}"
        )
    head, attribute, test, rest = [], [], [], []
    for c in np.unique(y):
        for g in np.unique(z):
            rows = rng.permutation(np.flatnonzero((y == c) & (z == g)))
            if len(rows) < n_test + n_attribute:
                raise InputError(
                    f"the cell {c} x {g} holds {len(rows)} texts, fewer than the {n_test} for test and "
                    f"{n_attribute} for the group-annotated set; lower --n-test and --n-attribute, or leave out the "
                    "rows of a value or class that is so rare"
                )
            test.append(rows[:n_test])
            attribute.append(rows[n_test : n_test + n_attribute])
            rest.append(rows[n_test + n_attribute :])
            if majority[c] == g:
                head.append(rest[-1][: config.max_head])
    chosen = np.concatenate(head)
    if config.setting == "natural":
        chosen = rng.permutation(np.concatenate(rest))[: len(chosen)]
    for c in np.unique(y):
        n = int((y[chosen] == c).sum())
        if n < LEAST_HEAD:
            raise InputError(
                f"{n} texts of class {c} are left to train the head, fewer than {LEAST_HEAD}; lower --n-test and "
                "--n-attribute, or leave out the class"
            )
    unused = np.concatenate([np.setdiff1d(rows, chosen)[: config.max_head] for rows in rest])
    parts = (chosen, np.concatenate(attribute), np.concatenate(test), unused)
    return Split(*(np.sort(part) for part in parts))


def drop_duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """Drop repeated texts, compared as ``fold`` compares texts with those held out; the first stays."""
    return table[~table["text"].map(fold).duplicated()].reset_index(drop=True)


@dataclass(frozen=True)
class Supervision:
    """What one regime tells of the attribute: the words of a concept, labels of some texts, or nothing."""

    regime: str
    concept: Concept | None = None
    annotated: AnnotatedTexts | None = None

    @property
    def attribute(self) -> Concept | AnnotatedTexts | None:
        """What ``SSAEDebiaser(attribute=...)`` takes."""
        return self.concept or self.annotated


class Samples(NamedTuple):
    """Texts with class and attribute."""

    texts: list[str]
    y: np.ndarray
    z: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """What all seeds share; small enough to be sent to other processes."""

    config: BenchmarkConfig
    encoder: ActivationEncoder
    """Without a cache and without edits."""
    texts: list[str]
    text_ids: np.ndarray
    """Row of each text in the table without repeated texts."""
    y: np.ndarray
    z: np.ndarray
    majority: dict[str, str]
    """Each class's over-represented attribute value, in the whole table."""
    splits: list[Split]
    """One a seed; row numbers of ``texts``."""
    n_texts: int
    """Distinct texts of the whole table; ``texts`` holds those that a seed uses."""
    data_key: str
    """Names the whole table, the corpus and the other texts."""
    corpus: list[str] | None = None
    concept: Concept | None = None
    other_texts: AnnotatedTexts | None = None
    """Regime "labelled_gap": other texts with attribute labels and no classes."""
    cache_dir: str | None = None

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regimes asked for, or all that can be."""
        gap = ("labelled_gap",) if self.other_texts else ()
        words = self.config.word_regimes if self.concept else ()
        return self.config.regimes or ("none", "labelled", *gap, "labelled_head", "labelled_all", *words)

    def samples(self, rows: np.ndarray) -> Samples:
        """The texts of these rows with their labels."""
        return Samples([self.texts[i] for i in rows], self.y[rows], self.z[rows])

    def supervision(self, regime: str, number: int) -> Supervision:
        """What ``regime`` tells in seed ``number``; raises InputError where the run has no such thing."""
        if regime == "none":
            return Supervision(regime)
        if regime.startswith("concept"):
            return Supervision(regime, concept=self.concept_of(regime))
        if regime == "labelled_gap":
            if self.other_texts is None:
                raise InputError("no texts with attribute labels alone are given")
            return Supervision(regime, annotated=self.other_texts)
        split = self.splits[number]
        every = np.concatenate([split.head, split.attribute, split.rest])
        rows = {"labelled": split.attribute, "labelled_head": split.head, "labelled_all": every}[regime]
        texts, y, z = self.samples(rows)
        return Supervision(regime, annotated=AnnotatedTexts(texts, z, y))

    def concept_of(self, regime: str) -> Concept:
        """The words that a regime gives; raises InputError where there is no concept."""
        if self.concept is None:
            raise InputError("no concept is given; set concept= to a shipped name or a file")
        if regime == "concept":
            return self.concept
        words = self.config.short_lists[regime.removeprefix("concept_")]
        if isinstance(words, str):
            return self.concept.subset(words)
        return Concept.from_words(words, values=self.concept.values, name=f"{self.concept.name}:{regime}")

    @cached_property
    def fingerprint(self) -> str:
        """Names settings, data and versions; runs that differ in how many seeds and in which methods share it."""
        settings = self.config.model_dump(mode="json", exclude={"seeds", "seed", "methods", "regimes"})
        concept = None if self.concept is None else self.concept.to_dict()
        made_with = version("debias-ssae"), self.encoder.language_model.fingerprint
        return fingerprint(self.data_key, settings, made_with, concept)[:24]

    def seed_key(self, number: int) -> str:
        """Names one seed of such runs."""
        seed, rows = self.config.seed + number, [self.text_ids[part] for part in self.splits[number]]
        return f"{seed}-{fingerprint(self.fingerprint, seed, rows)[:20]}"


def prepare(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    *,
    encoder: ActivationEncoder | None = None,
    corpus: Sequence[str] | None = None,
    splits: Sequence[Split] | None = None,
    attribute_data: pd.DataFrame | None = None,
    cache_dir: str | Path | None = None,
) -> Protocol:
    """Return what all seeds share; ``table`` has columns text, target, sensitive.

    Texts that no seed uses are left out. Raises InputError, before any work, for a cell that is too small.
    """
    if splits is None:
        table = drop_duplicates(table.dropna(subset=["text", "target", "sensitive"]))
    y, z = (table[name].astype(str).to_numpy(dtype=str) for name in ("target", "sensitive"))
    texts = table["text"].tolist()
    if splits is None:
        numbers = range(config.seed, config.seed + config.seeds)
        splits = [make_split(y, z, config, n) for n in numbers]
    used = np.unique(np.concatenate([rows for split in splits for rows in split]))
    concept = None if config.concept is None else Concept.load(config.concept)
    _check_words(concept, texts, z)
    pool = None if corpus is None else _sampled(list(corpus), config.n_corpus)
    other = _other_texts(attribute_data, texts)
    told = () if other is None else (other.texts, other.sensitive_features)
    return Protocol(
        config=config,
        encoder=encoder
        or ActivationEncoder(
            config.encoder,
            layer=config.layer,
            pooling=config.pooling,
            device=config.device,
            **config.debias.activations.model_dump(),
        ),
        texts=[texts[i] for i in used],
        text_ids=used,
        y=y[used],
        z=z[used],
        majority=majority_values(y, z),
        splits=[Split(*(np.searchsorted(used, rows) for rows in split)) for split in splits],
        n_texts=len(texts),
        data_key=fingerprint(
            *(texts_sha256(map(str, column)) for column in (texts, y, z, pool or (), *told))
        ),
        corpus=pool,
        concept=concept,
        other_texts=other,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )


def _sampled(corpus: list[str], n: int | None) -> list[str]:
    if n is None or len(corpus) <= n:
        return corpus
    return [corpus[i] for i in np.sort(np.random.default_rng(0).choice(len(corpus), n, replace=False))]


def _other_texts(table: pd.DataFrame | None, texts: Sequence[str]) -> AnnotatedTexts | None:
    """Texts of their own: what the benchmark's ``texts`` say too is left out, for a test text's label must not help."""
    if table is None:
        return None
    known = {fold(text) for text in texts}
    kept = table[[fold(text) not in known for text in table["text"]]]
    if len(kept) < len(table):
        logger.warning(
            "%d of %d attribute texts are the benchmark's own: left out", len(table) - len(kept), len(table)
        )
    if kept.empty:
        raise InputError("all texts of the attribute data are the benchmark's own; give others")
    return AnnotatedTexts(kept["text"].tolist(), kept["sensitive"].astype(str).to_numpy(dtype=str))


LEAST_ASSOCIATION = 0.1
"""Cramer's V below which words are taken for another attribute's; gender's words and the gender of biographies reach
0.9, and what two thousand texts show by chance is 0.03."""


def association(concept: Concept, texts: Sequence[str], values: Sequence[Any] | np.ndarray) -> float:
    """Return Cramer's V, 0 to 1, of ``values`` [n] with whose words each text holds more of; 0 where none holds any.

    At most 2,000 texts are read, the same each time.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(texts))[:2_000])
    sides = [_majority([span.value for span in concept.find(texts[i])]) for i in rows]
    counts = pd.crosstab(np.array(sides), np.asarray(values).astype(str)[rows]).to_numpy()
    return float(cramer(counts, method="cramer")) if min(counts.shape) > 1 else 0.0


def _majority(shown: list[int]) -> int:
    """The value that most of a text's words show; -1 where there are none or two are equal."""
    counts = np.bincount(shown) if shown else np.zeros(1)
    return int(counts.argmax()) if np.sum(counts == counts.max()) == 1 and counts.max() > 0 else -1


def _check_words(concept: Concept | None, texts: Sequence[str], z: np.ndarray) -> None:
    if concept is not None and association(concept, texts, z) < LEAST_ASSOCIATION:
        logger.warning(
            "the words of the concept %r do not go with the attribute's values in these texts: methods that are "
            "given words learn of another attribute",
            concept.name,
        )
