"""Where does specialising pay? The general SAE against the specialised one, over settings fixed beforehand."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.benchmark.answers import KEYS, Answers
from debias_ssae.benchmark.bare import HEADS, BareSeed, of_seed, summarise_bare
from debias_ssae.benchmark.methods import Corpus
from debias_ssae.benchmark.methods.seed import TrainedSAE
from debias_ssae.benchmark.parts import Parts, writable_directory, write_json
from debias_ssae.benchmark.run import Ready, prepare, provenance
from debias_ssae.benchmark.workers import run_parts
from debias_ssae.core.config import BenchmarkConfig, DebiasConfig
from debias_ssae.core.errors import InputError
from debias_ssae.core.stats import holm
from debias_ssae.debiaser.specialise import LearnedSAE, learn_ssae, train_general_sae
from debias_ssae.retrieval import PartOfTexts, unsaid, without
from debias_ssae.selection.select import Selection
from debias_ssae.text.concept import Concept

logger = logging.getLogger(__name__)
SAES = ("gsae", "gsae_continued", "ssae_erm", "ssae")
"""General; trained on for as many steps on general texts; specialised with the mean loss; with TERM's tilt."""
CONTRASTS = (("ssae", "gsae"), ("ssae", "gsae_continued"), ("ssae", "ssae_erm"))
FULL_WIDTH = 8192
"""Latents of the default SAE of the default encoder."""
MARGIN = 0.02
"""Elsewhere the ssae should not be worse than gsae by more than this."""


@dataclass(frozen=True)
class GridSetting:
    """One named condition; everything else is as in the protocol."""

    name: str
    width: int = 1
    """The SAE's width, and with it the number of latents removed, is divided by this."""
    k: int | None = None
    rarer: int = 1
    """Of the corpus's texts that hold a word of the concept, one in this many is kept."""
    names_only: bool = False
    """The concept's words are scrubbed from all texts; latents are found by swapping first names."""
    same_effect: bool = False
    """Latents are as many as have the effect of the general SAE's last one, not a fixed number."""

    def debias(self, base: DebiasConfig) -> DebiasConfig:
        """The debiaser's settings here."""
        selection = base.selection.updated(n_latents=max(1, base.selection.n_latents // self.width))
        d_sae = base.d_sae if self.width == 1 else (base.d_sae or FULL_WIDTH) // self.width
        return base.updated(d_sae=d_sae, k=self.k or base.k, selection=selection)


SETTINGS = (
    GridSetting("full width"),
    GridSetting("1/2 width", width=2),
    GridSetting("1/4 width", width=4),
    GridSetting("1/8 width", width=8),
    GridSetting("full width, k=8", k=8),
    GridSetting("1/8 width, k=8", width=8, k=8),
    GridSetting("10x rarer", rarer=10),
    GridSetting("100x rarer", rarer=100),
    GridSetting("1/8 width, 100x rarer", width=8, rarer=100),
    GridSetting("names only", names_only=True),
    GridSetting("1/8 width, names only", width=8, names_only=True),
    GridSetting("full width, same effect", same_effect=True),
    GridSetting("1/8 width, same effect", width=8, same_effect=True),
)
TARGET = ("1/8 width", "frozen")
"""Setting and head in which +0.125 is expected, fixed before any run: the paper's compressed SAEs without
retraining, where it reports the largest gain (48.6 to 78.8)."""


def grid_settings(names: Sequence[str] = ()) -> tuple[GridSetting, ...]:
    """The settings of these names, in the grid's order, or all; raises InputError for a name that is none."""
    known = [setting.name for setting in SETTINGS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"the grid has no setting {unknown[0]!r}; there are {'; '.join(known)}")
    return tuple(setting for setting in SETTINGS if not names or setting.name in names)


def run_grid(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    out: str | Path,
    *,
    corpus: Sequence[str] | None = None,
    data: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    splits: Callable[[pd.DataFrame], list[Any]] | None = None,
    settings: Sequence[GridSetting] = SETTINGS,
    jobs: int | None = None,
    command: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run gsae, gsae_continued, ssae_erm and ssae in every setting and seed; return what grid.json holds.

    ``grid`` has a row for each setting, method and head (C by cross-validation), ``differences`` the paired
    contrasts. Finished (setting, seed, SAE) parts are not run again by a run that goes on. Raises InputError
    without a concept or a corpus.
    """
    started = time.monotonic()
    if config.concept is None or corpus is None:
        raise InputError(
            "the grid needs a concept and a general corpus (--corpus): the gsae is trained on it"
        )
    ready = prepare(table, config, corpus, cache_dir, splits=splits)
    out = writable_directory(out)
    parts = Parts(out / "grid" / ready.key)
    settings = _possible(settings, ready.corpus.concept)
    groups = [(setting, number) for number in range(len(ready.splits)) for setting in settings]
    wanted = [(_group(*group), method) for group in groups for method in ("erm", "oracle", *SAES)]
    finished, resumed = run_parts(_run_setting, ready, parts, groups, wanted, jobs=jobs, progress=progress)
    answers = Answers(pd.concat([part.predictions for part in finished], ignore_index=True))
    rows = [row for part in finished for row in part.rows]
    results = {
        **provenance(ready, data, command, finished, None if resumed else started),
        "target": {"setting": TARGET[0], "head": TARGET[1], "expected": 0.125},
        "settings": [asdict(setting) for setting in settings],
        "grid": list(summarise_bare(rows, answers)),
        "differences": differences([setting.name for setting in settings], answers),
    }
    write_json(out / "grid.json", results)
    parts.discard(wanted)
    return results


def differences(settings: Sequence[str], answers: Answers) -> list[dict[str, Any]]:
    """Paired differences in worst-group accuracy for CONTRASTS, each setting and head.

    ``p_holm``: two-sided, ``p_non_inferior_holm``: of being worse by ``MARGIN`` (one-sided); Holm over the
    settings of one contrast and head.
    """
    records = []
    for a, b in CONTRASTS:
        for head in HEADS:
            found: list[dict[str, Any]] = []
            for setting in settings:
                ours, other = (answers.moves(_key(m, setting, head), "worst_group_accuracy") for m in (a, b))
                moves = ours.minus(other)
                value, low, high = moves.interval()
                p = moves.p_value()
                shifted = moves._replace(point=moves.point + MARGIN)
                half = shifted.p_value() / 2
                worse = half if value > -MARGIN else 1 - half
                one = {"setting": setting, "head": head, "ssae": a, "against": b, "difference": value}
                found.append(one | {"ci_low": low, "ci_high": high, "p_value": p, "p_non_inferior": worse})
            for name in ("p", "p_non_inferior"):
                raw = [one["p_value" if name == "p" else name] for one in found]
                for one, adjusted in zip(found, holm(raw), strict=True):
                    one[f"{name}_holm"] = float(adjusted)
            records += found
    return records


def _key(method: str, setting: str, head: str) -> tuple[str, ...]:
    known = {"method": method, "setting": setting, "head": head, "head_model": "logistic", "C_rule": "cv"}
    return tuple(known.get(key, "") for key in KEYS)


def _group(setting: GridSetting, number: int) -> str:
    """A name for files that tells settings apart by what they say."""
    said = hashlib.sha256(repr(setting).encode()).hexdigest()[:8]
    return f"{setting.name.replace('/', '-')} {said}, seed {number}"


def _run_setting(
    shared: tuple[Ready, Parts], group: tuple[GridSetting, int], on_part: Callable[[], Any]
) -> None:
    """Do what is left of one setting in one seed."""
    (ready, parts), (setting, number) = shared, group
    name = _group(setting, number)
    left = [method for method in ("erm", "oracle", *SAES) if not parts.has(name, method)]
    if not left:
        return
    bare = of_seed(_corpus(ready, setting, number), ready.splits, number)
    trio = _Trio(bare, setting)
    for method in left:
        facts: dict[str, Any] = {}
        if method in SAES:
            latents, trained = trio.latents(method), trio.sae(method)
            predictions = bare.edited(bare.seed.erasing(trained, latents))
            facts = {"d_sae": trained.sae.cfg.d_sae, "n_latents": len(latents), **trio.quality(method)}
        else:
            predictions = getattr(bare, method)()
        parts.write(name, method, *bare.part(method, setting.name, predictions, **facts))
        on_part()


def _corpus(ready: Ready, setting: GridSetting, number: int) -> Corpus:
    """The shared corpus under a setting: its SAE's shape, and all texts without the concept's words where only
    names may be left; test texts leave the pool before that, for they could not be told afterwards.
    """
    corpus, concept = ready.corpus, ready.corpus.concept
    config = corpus.config.updated(debias=setting.debias(corpus.config.debias).model_dump())
    if concept is None:
        return replace(corpus, config=config)
    if not setting.names_only:
        return replace(corpus, config=config, pool=_thinned(corpus.pool or [], concept, setting.rarer))
    unseen = unsaid(corpus.pool or (), (corpus.texts[i] for i in ready.splits[number].test))
    pool = PartOfTexts([concept.scrub(text) for text in corpus.pool or ()], np.flatnonzero(unseen))
    texts = [concept.scrub(text) for text in corpus.texts]
    return replace(corpus, config=config, concept=_names(concept), texts=texts, pool=pool)


def _thinned(pool: Sequence[str], concept: Concept, rarer: int) -> Sequence[str]:
    """The pool with one in ``rarer`` of the texts that hold a word of the concept; the same in every seed."""
    if rarer == 1:
        return pool
    drawn = np.random.default_rng(0).random(len(pool)) < 1 / rarer
    kept = [i for i, text in enumerate(pool) if drawn[i] or not concept.swap_spans(text)]
    return PartOfTexts(pool, np.array(kept, dtype=np.int64))


def _possible(settings: Sequence[GridSetting], concept: Concept | None) -> list[GridSetting]:
    """Without those of first names, or of rarer words, where the concept has none."""
    named = concept is not None and any(pair.section == "names" for pair in concept.optional)
    worded = concept is not None and bool(concept.pairs)
    kept = [s for s in settings if (named or not s.names_only) and (worded or s.rarer == 1)]
    left_out = ", ".join(setting.name for setting in settings if setting not in kept)
    if not kept:
        raise InputError(f"the concept lacks the words for every setting asked for ({left_out})")
    if left_out:
        logger.warning("the concept lacks the words for %s: left out", left_out)
    return kept


def _names(concept: Concept) -> Concept:
    return concept.with_optional("names").subset("names")


class _Trio:
    """The SAEs of one setting and seed, and the latents found in each."""

    def __init__(self, bare: BareSeed, setting: GridSetting) -> None:
        self.seed, self.setting = bare.seed, setting
        self.config = bare.seed.corpus.config.debias
        self._learned: dict[str, LearnedSAE] = {}

    def sae(self, kind: str) -> TrainedSAE:
        """The SAE of this kind, as methods take it."""
        return TrainedSAE(self._learn(kind).sae, self.seed.corpus.config.hookpoint, 0.0)

    def quality(self, kind: str) -> dict[str, float]:
        """What its training ended with: unexplained variance and active latents a row."""
        record = self._learn(kind).record
        record = record.get("special", record)
        return {name: float(record[name]) for name in ("fvu", "l0") if name in record}

    def latents(self, kind: str) -> np.ndarray:
        """The best, best first: a fixed number, or all with the effect of the general SAE's last one."""
        n = self.config.selection.n_latents
        return self._found(kind, self._as_strong(kind, n) if self.setting.same_effect else n).latents

    def _as_strong(self, kind: str, n: int) -> int:
        """How many latents change at the concept's words as much as the general SAE's n-th does."""

        def strengths(of: str) -> np.ndarray:
            scores = self._found(of, n).scores
            # the score is relative to each SAE's own best; the first effect is in units of activation
            effect = np.abs(scores.effect[0][scores.score > 0])
            return np.sort(effect[effect > 0])[::-1]

        general = strengths("gsae")[:n]
        return max(1, int((strengths(kind) >= general[-1]).sum())) if len(general) else n

    def _found(self, kind: str, n: int) -> Selection:
        return self.seed.found(self.sae(kind), "concept", n)

    def _learn(self, kind: str) -> LearnedSAE:
        if kind not in self._learned:
            self._learned[kind] = self._general() if kind == "gsae" else self._special(kind)
        return self._learned[kind]

    def _general(self) -> LearnedSAE:
        corpus = self.seed.corpus
        return train_general_sae(
            corpus.encoder.language_model,
            self._general_texts,
            corpus.config.hookpoint,
            self.config,
            random_state=self.seed.number,
            cache_dir=corpus.cache_dir,
        )

    def _special(self, kind: str) -> LearnedSAE:
        corpus, seed = self.seed.corpus, self.seed
        config, texts, pool = self.config, seed.texts(seed.split.head), corpus.pool
        if kind != "ssae":
            config = config.updated(special={**config.special.model_dump(), "tilt": 0.0})
        if kind == "gsae_continued":
            # as many texts, drawn from the whole corpus instead of near the subdomain
            n, general = len(texts) + config.retrieval.n_texts, self._general_texts
            order = np.random.default_rng([seed.number, 1]).permutation(len(general))[:n]
            texts, pool = [general[i] for i in order], None
        return learn_ssae(
            corpus.encoder.language_model,
            texts,
            corpus.config.hookpoint,
            config,
            corpus=pool,
            general=self._learn("gsae").sae,
            held_out=seed.texts(seed.split.test),
            random_state=seed.number,
            cache_dir=corpus.cache_dir,
        )

    @cached_property
    def _general_texts(self) -> list[str]:
        """The corpus without what test texts say."""
        return without(self.seed.corpus.pool or (), self.seed.texts(self.seed.split.test))
