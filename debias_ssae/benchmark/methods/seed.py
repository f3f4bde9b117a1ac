"""What methods work with: the corpus that all seeds share, and one seed's split, SAEs and passes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from debias_ssae.benchmark.methods.variant import PairActivations, Rows, Variant
from debias_ssae.benchmark.passes import Encoding, Passes
from debias_ssae.benchmark.splits import Split
from debias_ssae.core.config import BenchmarkConfig, DebiasConfig
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.specialise import learn_ssae, train_general_sae
from debias_ssae.erase import LatentEraser
from debias_ssae.model import Activations, harvest
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.retrieval import without
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.pairs import CounterfactualPairs, read_counterfactual_pairs
from debias_ssae.selection.select import (
    Selection,
    Take,
    rank_from_concept,
    rank_from_pairs,
    select_from_labels,
)
from debias_ssae.text.concept import Concept


class AttributeSet(NamedTuple):
    """Texts whose attribute is known, and their classes where those are known too."""

    texts: list[str]
    z: np.ndarray
    y: np.ndarray | None = None


class TrainedSAE(NamedTuple):
    """An SAE, where its rows come from, and the seconds that training took (also when it comes from a cache)."""

    sae: SparseAutoencoder
    hookpoint: str
    seconds: float

    def eraser_size(self, n_latents: int) -> int:
        """Numbers that removing so many latents takes: an encoder row, a decoder row and a bias each."""
        return n_latents * (2 * self.sae.cfg.d_in + 1)


@dataclass
class Corpus:
    """What all seeds share: the texts with labels, the model, the pool, and the passes."""

    texts: list[str]
    text_ids: np.ndarray
    """Row of each text in the table without repeated texts."""
    y: np.ndarray
    z: np.ndarray
    majority: dict[str, str]
    """Each class's over-represented attribute value, in the whole table."""
    pool: Sequence[str] | None
    config: BenchmarkConfig
    encoder: ActivationEncoder
    concept: Concept | None
    cache_dir: str | None = None
    progress: bool = False
    attribute_texts: AttributeSet | None = None
    """Regime "labelled_gap": other texts with attribute labels and no classes."""

    @cached_property
    def passes(self) -> Passes:
        """Through this corpus's model, kept under its cache directory."""
        return Passes(self.encoder, self.cache_dir)

    @cached_property
    def classes(self) -> np.ndarray:
        """Names of the classes, sorted."""
        return np.unique(self.y)

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

    def unlisted(self, given: Concept) -> Concept | None:
        """The run's concept, optional sections included, without the pairs that hold a word of ``given``."""
        if self.concept is None:
            return None
        known = {word.casefold() for word in given.words}
        every = (*self.concept.pairs, *self.concept.optional)
        pairs = tuple(pair for pair in every if not {word.casefold() for word in pair.words} & known)
        return replace(self.concept, pairs=pairs, optional=(), name=f"not {given.name}") if pairs else None


@dataclass
class Seed:
    """One seed: its split, and its SAEs and representations, made when a method first asks for them."""

    corpus: Corpus
    split: Split
    number: int
    skipped: list[dict[str, str]] = field(default_factory=list)
    """Method, regime and reason of what could not run."""
    plain_leakage: dict[str, float | None] = field(default_factory=dict)
    """Of the model as it is, once it has been probed."""
    _saes: dict[str, TrainedSAE] = field(default_factory=dict)
    _activations: dict[tuple[str, str], Activations] = field(default_factory=dict)
    _found: dict[tuple[Any, ...], Selection] = field(default_factory=dict)
    _rankings: dict[tuple[str, str, str], Take] = field(default_factory=dict)
    _last_read: tuple[tuple[str, str], CounterfactualPairs] | None = None

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regimes asked for, or all; labels of texts that nobody gave are asked for by name only."""
        config = self.corpus.config
        gap = ("labelled_gap",) if self.corpus.attribute_texts else ()
        words = config.word_regimes if self.corpus.concept else ()
        return config.regimes or ("none", "labelled", *gap, "labelled_head", "labelled_all", *words)

    @cached_property
    def choosing(self) -> np.ndarray:
        """Which half of A (bool ``[n_attribute]``, half of each cell) chooses C by worst-group accuracy."""
        rows, rng = self.split.attribute, np.random.default_rng(self.number)
        y, z = (np.unique(labels[rows], return_inverse=True)[1] for labels in (self.corpus.y, self.corpus.z))
        chosen = np.zeros(len(rows), dtype=bool)
        for c, g in np.unique(np.stack([y, z], axis=1), axis=0):
            members = rng.permutation(np.flatnonzero((y == c) & (z == g)))
            chosen[members[: len(members) // 2]] = True
        return chosen

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The texts of these rows."""
        return [self.corpus.texts[i] for i in rows]

    @property
    def head_y(self) -> np.ndarray:
        """Classes of the head's texts."""
        return self.corpus.y[self.split.head]

    @cached_property
    def plain(self) -> Rows:
        """The model as it is."""
        return self.plain_rows("none")

    def plain_rows(self, regime: str) -> Rows:
        """The model as it is, with the counterfactuals of a method that was told what ``regime`` tells."""
        return self.rows(self.corpus.passes.plain(), regime)

    @property
    def plain_head(self) -> np.ndarray:
        """Plain representations of the head's texts."""
        return self.plain.head

    def rows(self, encoding: Encoding, regime: str, given: Concept | None = None) -> Rows:
        """Run head, A, test and the test texts' counterfactuals through ``encoding``.

        ``given`` are the words that the method was told, by default those of ``regime``.
        """
        corpus, split = self.corpus, self.split
        parts = (split.head, split.attribute, split.test)
        if encoding.shared:
            X, seconds = corpus.passes.run(encoding, corpus.texts)
            head, attribute, test = (X[rows] for rows in parts)
        else:
            X, seconds = corpus.passes.run(encoding, self.texts(np.concatenate(parts)))
            head, attribute, test = np.split(X, np.cumsum([len(rows) for rows in parts])[:2])
        counterfactuals = self._counterfactuals(regime, given)
        listed = [text for _, texts in counterfactuals.values() for text in texts]
        X = corpus.passes.run(encoding, listed)[0] if listed else X[:0]
        ends = np.cumsum([len(at) for at, _ in counterfactuals.values()])[:-1]
        pieces = np.split(X, ends) if counterfactuals else []
        found = {
            kind: PairActivations(counterfactuals[kind][0], piece)
            for kind, piece in zip(counterfactuals, pieces, strict=True)
        }
        return Rows(head, attribute, test, found, seconds * len(test), plain=encoding.key == "plain")

    def _counterfactuals(self, regime: str, given: Concept | None) -> dict[str, tuple[np.ndarray, list[str]]]:
        """For each kind of counterfactual, the places of test texts that have one and the counterfactuals."""
        corpus = self.corpus
        if corpus.concept is None:
            return {}
        told = given or (corpus.concept_of(regime) if regime.startswith("concept") else corpus.concept)
        found = {}
        for kind, concept in (("listed", corpus.concept), ("unlisted", corpus.unlisted(told))):
            pairs = [] if concept is None else concept_counterfactuals(concept, self.texts(self.split.test))
            found[kind] = (
                np.array([at for at, _ in pairs], dtype=int),
                [counterfactual for _, counterfactual in pairs],
            )
        return found

    def attribute_set(self, regime: str) -> AttributeSet:
        """The attribute labels that a regime gives; raises InputError for one that gives none."""
        corpus, split = self.corpus, self.split
        if regime == "labelled_gap":
            if corpus.attribute_texts is None:
                raise InputError("no texts with attribute labels alone are given")
            return _at_most(corpus.attribute_texts, corpus.config.debias.selection.max_texts)
        rows = {
            "labelled": split.attribute,
            "labelled_head": split.head,
            "labelled_all": np.concatenate([split.head, split.attribute, split.rest]),
        }[regime]
        return AttributeSet(self.texts(rows), corpus.z[rows], corpus.y[rows])

    def attribute_rows(self, encoding: Encoding, rows: Rows, regime: str) -> np.ndarray:
        """Representations of the regime's attribute set under ``encoding``, which gave ``rows``."""
        if regime == "labelled":
            return rows.attribute
        if regime == "labelled_head":
            return rows.head
        return self.corpus.passes.run(encoding, self.attribute_set(regime).texts)[0]

    def sae(
        self, kind: str = "ssae", hookpoint: str | None = None, config: DebiasConfig | None = None
    ) -> TrainedSAE:
        """Train an SAE: "gsae" on the pool, "ssae_erm" and "ssae" from there on the head's texts and what they
        retrieve, without and with TERM's tilt. Test texts are held out of all of it.
        """
        corpus, config = self.corpus, config or self.corpus.config.debias
        hookpoint = hookpoint or corpus.config.hookpoint
        key = f"{kind} {hookpoint} {config.model_dump_json()}"
        if key not in self._saes:
            general = self.sae("gsae", hookpoint, config) if kind != "gsae" else None
            self._saes[key] = self._train(kind, hookpoint, config, general)
        return self._saes[key]

    def general_sae(self, hookpoint: str | None = None, config: DebiasConfig | None = None) -> TrainedSAE:
        """The general SAE as a method of its own. Raises InputError without a corpus: an SAE of the head's own texts,
        from which the specialised ones then start, is not general.
        """
        if self.corpus.pool is None:
            raise InputError("there is no general corpus (--corpus) to train a general SAE on")
        return self.sae("gsae", hookpoint, config)

    def _train(
        self, kind: str, hookpoint: str, config: DebiasConfig, general: TrainedSAE | None
    ) -> TrainedSAE:
        corpus, model = self.corpus, self.corpus.encoder.language_model
        head, held_out = self.texts(self.split.head), self.texts(self.split.test)
        options: dict[str, Any] = {
            "random_state": self.number,
            "cache_dir": corpus.cache_dir,
            "progress": corpus.progress,
        }
        start = time.perf_counter()
        if general is None:
            pool = head if corpus.pool is None else without(corpus.pool, held_out)
            learned = train_general_sae(model, pool, hookpoint, config, **options)
            trained = learned.record["seconds"]
        else:
            if kind == "ssae_erm":
                config = config.updated(special=config.special.updated(tilt=0.0))
            learned = learn_ssae(
                model,
                head,
                hookpoint,
                config,
                corpus=corpus.pool,
                general=general.sae,
                held_out=held_out,
                **options,
            )
            trained = learned.record["special"]["seconds"]
        # a cache answers at once; what training took is in the record
        seconds = max(time.perf_counter() - start, trained) + (general.seconds if general else 0.0)
        return TrainedSAE(learned.sae, hookpoint, seconds)

    def found(
        self,
        trained: TrainedSAE,
        regime: str,
        n_latents: int | str,
        *,
        with_y: bool = True,
        keep: bool = False,
    ) -> Selection:
        """Find latents as the debiaser does: from the head's texts and words, or from attribute labels."""
        key = (trained.sae.fingerprint(), trained.hookpoint, regime, n_latents, with_y, keep)
        if key not in self._found:
            self._found[key] = self._find(trained, regime, n_latents, with_y=with_y, keep=keep)
        return self._found[key]

    def _find(
        self, trained: TrainedSAE, regime: str, n_latents: int | str, *, with_y: bool, keep: bool
    ) -> Selection:
        corpus, model = self.corpus, self.corpus.encoder.language_model
        selection, activations = corpus.config.debias.selection, corpus.config.debias.activations
        if regime.startswith("concept"):
            return self._ranked(trained, regime)(n_latents)
        labelled = self.attribute_set(regime)
        key = (regime, trained.hookpoint)
        if key not in self._activations:
            self._activations[key] = harvest(model, labelled.texts, trained.hookpoint, **activations.limits)
        return select_from_labels(
            trained.sae,
            self._activations[key],
            labelled.y if with_y else None,
            labelled.z,
            selection,
            keep=keep,
            n_latents=n_latents,
            random_state=self.number,
        )

    def _ranked(self, trained: TrainedSAE, regime: str) -> Take:
        """One ranking serves every number of latents."""
        key = (trained.sae.fingerprint(), trained.hookpoint, regime)
        if key not in self._rankings:
            selection, concept = self.corpus.config.debias.selection, self.corpus.concept_of(regime)
            options: dict[str, Any] = {"y": self.head_y, "random_state": self.number}
            if concept.pairs:
                versions = self._wordings(concept, trained.hookpoint)
                take = rank_from_pairs(trained.sae, versions, selection, **options)
            else:
                model, texts = self.corpus.encoder.language_model, self.texts(self.split.head)
                options |= {
                    "hookpoint": trained.hookpoint,
                    "activations": self.corpus.config.debias.activations,
                }
                take = rank_from_concept(model, trained.sae, texts, concept, selection, **options)
            self._rankings[key] = take
        return self._rankings[key]

    def _wordings(self, concept: Concept, hookpoint: str) -> CounterfactualPairs:
        """The last are at hand for another SAE; they hold most of a gigabyte."""
        key = (concept.sha256, hookpoint)
        if self._last_read is None or self._last_read[0] != key:
            self._last_read = None
            debias = self.corpus.config.debias
            read = read_counterfactual_pairs(
                self.corpus.encoder.language_model,
                self.texts(self.split.head),
                concept,
                debias.selection,
                hookpoint=hookpoint,
                random_state=self.number,
                activations=debias.activations,
            )
            self._last_read = (key, read)
        return self._last_read[1]

    def erasing(
        self, trained: TrainedSAE, latents: Sequence[int] | np.ndarray, *, alpha: float = 1.0
    ) -> Encoding:
        """The model with these latents removed inside; with nothing to remove, the plain one to the bit."""
        edits, passes = self.edits(trained, latents, alpha=alpha), self.corpus.passes
        return passes.edited(edits) if edits else passes.plain()

    def edits(
        self, trained: TrainedSAE, latents: Sequence[int] | np.ndarray, *, alpha: float = 1.0
    ) -> dict[str, LatentEraser]:
        """The edit that removes these latents, by its hookpoint; none where it would change nothing."""
        eraser = LatentEraser.from_sae(trained.sae, [int(i) for i in latents], alpha=alpha)
        return {trained.hookpoint: eraser} if eraser.changes_anything else {}

    def erased(
        self,
        method: str,
        regime: str,
        trained: TrainedSAE,
        latents: Sequence[int] | np.ndarray,
        *,
        alpha: float = 1.0,
        draw: int = 0,
        seconds_fit: float = 0.0,
    ) -> Variant:
        """The variant in which ``latents`` are removed inside the model."""
        return Variant(
            method,
            regime,
            self.rows(self.erasing(trained, latents, alpha=alpha), regime),
            hookpoint=trained.hookpoint,
            d_sae=trained.sae.cfg.d_sae,
            n_latents=len(latents),
            draw=draw,
            n_parameters=trained.eraser_size(len(latents)),
            seconds_fit=seconds_fit,
        )


def concept_counterfactuals(concept: Concept, texts: Sequence[str]) -> list[tuple[int, str]]:
    """Places and swapped versions of the texts that hold a word of the concept."""
    counterfactuals = ((at, concept.counterfactual(text)) for at, text in enumerate(texts))
    return [
        (at, counterfactual)
        for at, counterfactual in counterfactuals
        if counterfactual is not None and counterfactual != texts[at]
    ]


def _at_most(labelled: AttributeSet, n: int) -> AttributeSet:
    """A sample that is the same in every seed, so that one pass serves all."""
    if len(labelled.texts) <= n:
        return labelled
    chosen = np.sort(np.random.default_rng(0).permutation(len(labelled.texts))[:n])
    return AttributeSet([labelled.texts[i] for i in chosen], labelled.z[chosen])
