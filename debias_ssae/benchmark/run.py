"""The benchmark: every method on every seed, resumable seed by seed, to results.json and predictions.parquet."""

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from debias_ssae.benchmark.evaluation import evaluate
from debias_ssae.benchmark.heads import fit_heads
from debias_ssae.benchmark.methods import METHODS, Corpus, Seed
from debias_ssae.benchmark.splits import Split, drop_duplicates, majority_values, make_split
from debias_ssae.benchmark.summary import summarise
from debias_ssae.concept import Concept
from debias_ssae.config import BenchmarkConfig, dump_config
from debias_ssae.encoder import ActivationEncoder
from debias_ssae.exceptions import InputError

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


def run_benchmark(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    out: str | Path,
    *,
    corpus: Sequence[str] | None = None,
    data: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    splits: Callable[[pd.DataFrame], list[Split]] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the protocol on ``table`` with columns text, target and sensitive; return what results.json holds.

    ``corpus`` is the pool for retrieval and the general SAE, ``data`` describes where the table came from
    (path, sha256). ``splits`` maps the table without its repeated texts to one split a seed; by default the
    protocol's are drawn. Finished seeds are kept under ``out`` and not run again with the same settings and data.
    Raises InputError for unknown methods, cells that are too small, or a directory that cannot be written.
    """
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise InputError(f"unknown methods {', '.join(unknown)}; there are {', '.join(METHODS)}")
    table = _unique(table)
    shared = _prepare(table, config, corpus, cache_dir, progress)
    # before any work: a cell that is too small ends the run here
    parts_of_seeds = splits(table) if splits is not None else _protocol_splits(shared)
    n_texts, key = len(shared.texts), _key(shared, config)
    shared, parts_of_seeds = _only_used(shared, parts_of_seeds)
    out = writable_directory(out)
    (out / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    parts = out / "seeds" / key
    parts.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    predictions = []
    for number, split in enumerate(tqdm(parts_of_seeds, desc="seeds", disable=not progress)):
        seed_runs, seed_predictions = _run_seed(Seed(shared, split, number), parts)
        runs += seed_runs
        predictions.append(seed_predictions)
    every = pd.concat(predictions, ignore_index=True)
    concept = shared.concept
    results = {
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in _PACKAGES},
        "data": {**(data or {}), "n": n_texts},
        "concept": None if concept is None else {"name": concept.name, "sha256": concept.sha256},
        "runs": runs,
        "summary": summarise(runs, every),
    }
    write_json(out / "results.json", results)
    every.to_parquet(out / "predictions.parquet")
    shutil.rmtree(out / "seeds")
    return results


def writable_directory(path: str | Path) -> Path:
    """Make the directory; raises InputError where nothing can be written."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the directory {path}: {error.strerror}; give another --out") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"the directory {path} is not writable; give another --out")
    return path


def write_json(path: Path, content: Any) -> None:
    """Write JSON beside the goal, then rename; what is undefined is null."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_defined(content), indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _unique(table: pd.DataFrame) -> pd.DataFrame:
    kept = drop_duplicates(table.dropna(subset=["text", "target", "sensitive"]))
    if len(kept) < len(table):
        logger.info(
            "%d of %d rows dropped: repeated texts or unknown attribute", len(table) - len(kept), len(table)
        )
    return kept


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


def _prepare(
    table: pd.DataFrame,
    config: BenchmarkConfig,
    corpus: Sequence[str] | None,
    cache_dir: str | Path | None,
    progress: bool,
) -> Corpus:
    activations = config.debias.activations
    encoder = ActivationEncoder(
        config.encoder,
        layer=config.layer,
        pooling=config.pooling,
        dtype=activations.dtype,
        max_length=activations.max_length,
        token_budget=activations.token_budget,
        verbose=progress,
    )
    y = table["target"].astype(str).to_numpy(dtype=object).astype(str)
    z = table["sensitive"].astype(str).to_numpy(dtype=object).astype(str)
    return Corpus(
        texts=table["text"].tolist(),
        text_ids=np.arange(len(table)),
        y=y,
        z=z,
        majority=majority_values(y, z),
        pool=None if corpus is None else list(corpus),
        config=config,
        encoder=encoder,
        concept=None if config.concept is None else Concept.load(config.concept),
        cache_dir=None if cache_dir is None else str(cache_dir),
        progress=progress,
    )


def _run_seed(seed: Seed, parts: Path) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Run one seed, or read what a run that was cut off had finished."""
    rows_file, predictions_file = parts / f"{seed.number}.json", parts / f"{seed.number}.parquet"
    if rows_file.exists():
        return json.loads(rows_file.read_text(encoding="utf-8")), pd.read_parquet(predictions_file)
    frozen = fit_heads(seed.plain_head, seed.corpus.y[seed.split.head], random_state=seed.number)
    runs, predictions = [], []
    bar = tqdm(
        seed.corpus.config.methods, desc=f"seed {seed.number}", disable=not seed.corpus.progress, leave=False
    )
    for method in bar:
        bar.set_postfix_str(method)
        for variant in seed.variants(method):
            for row, predicted in evaluate(seed, variant, frozen):
                runs.append(row)
                predictions.append(predicted)
    every = pd.concat(predictions, ignore_index=True)
    every.to_parquet(predictions_file)
    write_json(rows_file, runs)
    return runs, every


def _key(shared: Corpus, config: BenchmarkConfig) -> str:
    """Seeds are shared between runs that differ in nothing but how many there are."""
    digest = sha256(json.dumps(config.model_dump(mode="json", exclude={"seeds"})).encode())
    for text, y, z in zip(shared.texts, shared.y, shared.z, strict=True):
        digest.update(f"{text}\0{y}\0{z}\0".encode("utf-8", "surrogatepass"))
    digest.update(str(None if shared.pool is None else len(shared.pool)).encode())
    return digest.hexdigest()[:16]
