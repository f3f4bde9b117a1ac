"""The benchmark: every method on every seed, resumable, to results.json, predictions.parquet and table.md."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.benchmark.answers import Answers
from debias_ssae.benchmark.comparisons import compare, compare_sums
from debias_ssae.benchmark.evaluation import evaluate, frozen_heads
from debias_ssae.benchmark.heads import Head
from debias_ssae.benchmark.methods import METHODS, AttributeSet, Corpus, Seed, variants
from debias_ssae.benchmark.parts import Part, Parts, writable_directory, write_json
from debias_ssae.benchmark.splits import Split, drop_duplicates, majority_values, make_split
from debias_ssae.benchmark.summary import summarise
from debias_ssae.benchmark.tables import markdown_table
from debias_ssae.benchmark.words import LEAST, association
from debias_ssae.benchmark.workers import run_parts, with_helpers
from debias_ssae.core.config import BenchmarkConfig, dump_config
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.retrieval.duplicates import fold
from debias_ssae.text.concept import Concept

logger = logging.getLogger(__name__)
_PACKAGES = (
    "debias-ssae",
    "torch",
    "transformers",
    "scikit-learn",
    "fairlearn",
    "sentence-transformers",
    "numpy",
)
QUICK_POOL = 5_000
"""Texts of the corpus that a quick look uses."""


def run_benchmark(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    out: str | Path,
    *,
    corpus: Sequence[str] | None = None,
    data: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    splits: Callable[[pd.DataFrame], list[Split]] | None = None,
    attribute_data: pd.DataFrame | None = None,
    jobs: int | None = None,
    command: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the protocol on ``table`` with columns text, target and sensitive; return what results.json holds.

    ``corpus`` is the pool for retrieval and the general SAE, ``data`` describes where the table came from
    (path, sha256). ``splits`` maps the table without its repeated texts to one split a seed; by default the
    protocol's are drawn. ``attribute_data`` (text, sensitive) serves the regime labelled_gap. ``jobs``: processes
    over seeds, one thread each; None runs here with all threads. Finished (seed, method) pairs are kept under
    ``out`` until the run ends, and not run again with the same settings and data. ``made`` in the results holds
    what differs between two runs of the same seed: date, seconds, the command given.
    Raises InputError for unknown methods, cells that are too small, or a directory that cannot be written.
    """
    started = time.monotonic()
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise InputError(f"unknown methods {', '.join(unknown)}; there are {', '.join(METHODS)}")
    ready = prepare(table, config, corpus, cache_dir, splits=splits, attribute_data=attribute_data)
    seeds = range(len(ready.splits))
    out = writable_directory(out)
    (out / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    parts = Parts(out / "seeds" / ready.key)
    wanted = [(str(number), method) for number in seeds for method in config.methods]
    # a helper takes SAEs and passes from the cache, or would have to make them again
    groups = with_helpers(seeds, jobs if cache_dir else None)
    finished, resumed = run_parts(
        _run_seed, ready, parts, groups, wanted, jobs=jobs, progress=progress, unit="method"
    )
    every = pd.concat([part.predictions for part in finished], ignore_index=True)
    runs = [row for part in finished for row in part.rows]
    skipped = {tuple(note.items()): note for part in finished for note in part.skipped}
    if not runs:
        reasons = "; ".join(dict.fromkeys(f"{note['method']}: {note['reason']}" for note in skipped.values()))
        raise InputError(f"no method could be run ({reasons})")
    answers = Answers(every)
    summary = summarise(runs, answers)
    results = {
        **provenance(ready, data, command, finished, None if resumed else started),
        "runs": runs,
        "summary": summary,
        "comparisons": compare(summary, answers),
        "comparisons_of_default": compare(summary, answers, of="ssae_default"),
        "sums": compare_sums(summary, answers),
        "skipped": list(skipped.values()),
    }
    write_json(out / "results.json", results)
    every.to_parquet(out / "predictions.parquet")
    (out / "table.md").write_text(markdown_table(results), encoding="utf-8")
    parts.discard(wanted)
    return results


@dataclass(frozen=True)
class Ready:
    """A run about to begin."""

    corpus: Corpus
    splits: list[Split]
    """One a seed; rows of ``corpus``."""
    n_texts: int
    """Distinct texts of the table; the corpus holds those that a seed uses."""
    key: str
    """Names settings and data: work is kept under it."""


def _run_seed(shared: tuple[Ready, Parts], group: tuple[int, bool], on_part: Callable[[], Any]) -> None:
    """Run what is left of one seed, or help the process that does, from the last method on."""
    ready, parts = shared
    number, helps = group
    methods = ready.corpus.config.methods
    # each seed starts elsewhere, so that processes do not wait for one another's passes over all texts
    start = number * len(methods) // max(len(ready.splits), 1)
    ordered = (*methods[start:], *methods[:start])
    seed, frozen = Seed(ready.corpus, ready.splits[number], number), None
    for method in reversed(ordered) if helps else ordered:
        with parts.claim(str(number), method) as is_mine:
            if is_mine:
                frozen = frozen or frozen_heads(seed)
                _run_method(seed, method, frozen, parts)
                on_part()


def _run_method(seed: Seed, method: str, frozen: list[Head], parts: Parts) -> None:
    seed.skipped.clear()
    found = [pair for variant in variants(seed, method) for pair in evaluate(seed, variant, frozen)]
    predictions = [predicted for _, predicted in found]
    parts.write(
        str(seed.number),
        method,
        [row for row, _ in found],
        pd.concat(predictions, ignore_index=True) if predictions else pd.DataFrame(),
        seed.skipped,
    )


def prepare(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    corpus: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    *,
    splits: Callable[[pd.DataFrame], list[Split]] | None = None,
    attribute_data: pd.DataFrame | None = None,
) -> Ready:
    """Return what all seeds share and each seed's split; texts that no seed uses are left out.

    Raises InputError, before any work, for a cell that is too small.
    """
    table = _unique(table)
    shared = replace(
        _shared(table, config, _pool(corpus, config), cache_dir),
        attribute_texts=_labelled(attribute_data, table["text"].tolist()),
    )
    concept = shared.concept
    if concept is not None and concept.pairs and association(concept, shared.texts, shared.z) < LEAST:
        logger.warning(
            "the words of the concept %r do not go with the attribute's values in these texts: regimes of words are "
            "told of another attribute",
            concept.name,
        )
    parts = splits(table) if splits is not None else _protocol_splits(shared)
    return Ready(*_only_used(shared, parts), n_texts=len(shared.texts), key=_key(shared, config))


def provenance(
    ready: Ready,
    data: dict[str, Any] | None,
    command: str | None,
    finished: Sequence[Part],
    started: float | None,
) -> dict[str, Any]:
    """What stands at the head of each results file; ``started`` is of the monotonic clock, None in a run that
    went on from another, whose wall time is not known. Processor seconds are those of the parts, whichever run and
    process did them; not counted are the preparation, the statistics at the end, and what was cut off.
    """
    spent = [part.processor_seconds for part in finished]
    known = [seconds for seconds in spent if seconds is not None]
    config, concept = ready.corpus.config, ready.corpus.concept
    model = ready.corpus.encoder.language_model
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seconds": None if started is None else round(time.monotonic() - started),
        "processor_seconds": round(sum(known)) if len(known) == len(spent) else None,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    return {
        "quick": config.quick,
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in _PACKAGES},
        "data": {**(data or {}), "n": ready.n_texts},
        "concept": None if concept is None else {"name": concept.name, "sha256": concept.sha256},
        "made": made,
    }


def _unique(table: pd.DataFrame) -> pd.DataFrame:
    kept = drop_duplicates(table.dropna(subset=["text", "target", "sensitive"]))
    if len(kept) < len(table):
        logger.info(
            "%d of %d rows dropped: repeated texts or unknown attribute", len(table) - len(kept), len(table)
        )
    return kept


def _pool(corpus: Sequence[str] | None, config: BenchmarkConfig) -> list[str] | None:
    if corpus is None:
        return None
    if not config.quick or len(corpus) <= QUICK_POOL:
        return list(corpus)
    picked = np.sort(np.random.default_rng(0).choice(len(corpus), QUICK_POOL, replace=False))
    return [corpus[i] for i in picked]


def _labelled(table: pd.DataFrame | None, texts: Sequence[str]) -> AttributeSet | None:
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
    return AttributeSet(
        kept["text"].tolist(), kept["sensitive"].astype(str).to_numpy(dtype=object).astype(str)
    )


def _protocol_splits(shared: Corpus) -> list[Split]:
    config = shared.config
    return [
        make_split(
            shared.y,
            shared.z,
            setting=config.setting,
            n_test=config.n_test,
            n_attribute=config.n_attribute,
            max_head=config.max_head,
            random_state=number,
        )
        for number in range(config.seeds)
    ]


def _only_used(shared: Corpus, splits: list[Split]) -> tuple[Corpus, list[Split]]:
    """Leave out texts that no seed uses, so that a large data set costs no more than a small one."""
    used = np.unique(np.concatenate([rows for split in splits for rows in split]))
    kept = replace(
        shared, texts=[shared.texts[i] for i in used], y=shared.y[used], z=shared.z[used], text_ids=used
    )
    return kept, [Split(*(np.searchsorted(used, rows) for rows in split)) for split in splits]


def _shared(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    pool: list[str] | None,
    cache_dir: str | Path | None,
) -> Corpus:
    activations = config.debias.activations
    encoder = ActivationEncoder(
        config.encoder,
        layer=config.layer,
        pooling=config.pooling,
        dtype=activations.dtype,
        max_length=activations.max_length,
        token_budget=activations.token_budget,
    )
    y = table["target"].astype(str).to_numpy(dtype=object).astype(str)
    z = table["sensitive"].astype(str).to_numpy(dtype=object).astype(str)
    return Corpus(
        texts=table["text"].tolist(),
        text_ids=np.arange(len(table)),
        y=y,
        z=z,
        majority=majority_values(y, z),
        pool=pool,
        config=config,
        encoder=encoder,
        concept=None if config.concept is None else Concept.load(config.concept),
        cache_dir=None if cache_dir is None else str(cache_dir),
    )


def _key(shared: Corpus, config: BenchmarkConfig) -> str:
    """Parts are shared between runs that differ in nothing but how many seeds and which methods there are."""
    settings = config.model_dump(mode="json", exclude={"seeds", "methods"})
    # another precision, other weights or another version give other parts
    made_with = [version("debias-ssae"), shared.encoder.language_model.fingerprint]
    digest = sha256(json.dumps([settings, made_with]).encode())
    for text, y, z in zip(shared.texts, shared.y, shared.z, strict=True):
        digest.update(f"{text}\0{y}\0{z}\0".encode("utf-8", "surrogatepass"))
    for text in shared.pool or ():
        digest.update(f"{text}\0".encode("utf-8", "surrogatepass"))
    if shared.attribute_texts is not None:
        for text, z in zip(shared.attribute_texts.texts, shared.attribute_texts.z, strict=True):
            digest.update(f"{text}\0{z}\0".encode("utf-8", "surrogatepass"))
    if shared.concept is not None:
        digest.update(json.dumps(shared.concept.to_dict()).encode())
    return digest.hexdigest()[:16]
