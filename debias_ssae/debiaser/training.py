"""From a corpus to a specialised SAE: retrieval, activations, general training, fine-tuning with TERM."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from debias_ssae.core.cache import mark_used
from debias_ssae.core.config import DebiasConfig, RetrievalConfig, SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import (
    fingerprint,
    kept,
    read_manifest,
    read_or_make,
    replace_directory,
    write_manifest,
)
from debias_ssae.core.steps import Steps
from debias_ssae.debiaser.matrix import MatrixEncoder
from debias_ssae.model import LanguageModel, harvest
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.retrieval import load_embedder, retrieve, without
from debias_ssae.sae.formats import load_sae, save_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.sae.training import shuffled_batches, train_sae
from debias_ssae.selection.attribute import FitData
from debias_ssae.text.checks import texts_sha256

_KIND = "debias-ssae cached SAE 1"

logger = logging.getLogger(__name__)


class LearnedSAE(NamedTuple):
    """An SAE with the record of how it came to be."""

    sae: SparseAutoencoder
    record: dict[str, Any]


def train_ssae(
    encoder: ActivationEncoder | MatrixEncoder,
    hookpoint: str,
    data: FitData,
    *,
    corpus: Sequence[str] | None = None,
    general: SparseAutoencoder | None = None,
    finished: SparseAutoencoder | None = None,
    cache_dir: str | Path | None = None,
) -> LearnedSAE:
    """Retrieve the subdomain, train a general SAE unless ``general`` is one, and fine-tune it.

    A ``finished`` one is taken as it is. Without an encoder there is nothing to retrieve: the SAE is trained on the
    matrix. Raises InputError for an SAE of another width.
    """
    if finished is not None:
        check_width(finished, width_of(encoder))
        return LearnedSAE(finished, {"sae": "taken as it was given"})
    options: dict[str, Any] = {"random_state": data.random_state}
    if isinstance(encoder, MatrixEncoder):
        x, config = encoder.rows(data.X, hookpoint).x, data.config
        if general is None:
            data.steps.begin("general SAE of the matrix")
            general = _fit(x, config.sae_config(x.shape[1], hookpoint), config.general, **options).sae
        check_width(general, x.shape[1])
        if config.special is None:
            return LearnedSAE(general, {})
        data.steps.begin("specialised SAE of the matrix")
        return _fit(x, general.cfg, config.special, init=general, **options)
    return learn_ssae(
        encoder.language_model,
        data.X,
        hookpoint,
        data.config,
        corpus=corpus,
        general=general,
        held_out=data.exclude,
        cache_dir=cache_dir,
        steps=data.steps,
        **options,
    )


def width_of(encoder: ActivationEncoder | MatrixEncoder) -> int:
    """The width of the activations that are edited."""
    return len(encoder.scale) if isinstance(encoder, MatrixEncoder) else encoder.language_model.d_model


def check_width(sae: SparseAutoencoder, width: int) -> None:
    """Raise InputError for an SAE of other rows than those of ``width``."""
    if sae.cfg.d_in != width:
        raise InputError(
            f"the SAE reads activations of width {sae.cfg.d_in}, but the encoder gives {width}; give an SAE of this "
            "model and hookpoint"
        )


def train_general_sae(
    model: LanguageModel,
    corpus: Sequence[str],
    hookpoint: str,
    config: DebiasConfig,
    *,
    random_state: int | None = None,
    cache_dir: str | Path | None = None,
) -> LearnedSAE:
    """Train a general SAE on the rows of randomly drawn corpus texts, about ``config.general_rows`` of them."""
    sae_config = config.sae_config(model.d_model, hookpoint)
    key = [
        model.fingerprint,
        hookpoint,
        texts_sha256(corpus),
        sae_config,
        config.general,
        config.general_rows,
        random_state,
        model.limit,
    ]

    def train() -> LearnedSAE:
        n_rows = min(config.general_rows, config.general.n_steps * config.general.batch_size)
        texts = _draw(corpus, n_rows, _longest(model), random_state)
        x = harvest(model, texts, hookpoint).x
        return _fit(x, sae_config, config.general, random_state=random_state)

    return _cached(cache_dir, "general", key, train)


def learn_ssae(
    model: LanguageModel,
    texts: Sequence[str],
    hookpoint: str,
    config: DebiasConfig,
    *,
    corpus: Sequence[str] | None = None,
    general: SparseAutoencoder | None = None,
    held_out: Sequence[str] = (),
    random_state: int | None = None,
    cache_dir: str | Path | None = None,
    steps: Steps | None = None,
) -> LearnedSAE:
    """Fine-tune ``general`` with TERM on ``texts`` and on what they retrieve from ``corpus``.

    Without ``general`` one is trained on the corpus first; without a corpus, on the texts alone, which the log
    says. ``held_out`` texts are never retrieved nor trained on.
    """
    options: dict[str, Any] = {"random_state": random_state, "cache_dir": cache_dir}
    begin = (steps or Steps()).begin
    record: dict[str, Any] = {"n_training_texts": len(texts)}
    subdomain = list(texts)
    if corpus is None:
        logger.info("no corpus given: the SAE is trained on the %d training texts alone", len(texts))
    elif config.special is not None:
        begin(f"retrieval from {len(corpus):,} texts")
        n_wanted = _worth_retrieving(texts, corpus, _longest(model), _rows_read(config))
        retrieval = config.retrieval.updated(n_texts=min(config.retrieval.n_texts, n_wanted))
        nearest, record["retrieval"] = _retrieved(
            model, texts, corpus, held_out, retrieval, config.general.device, **options
        )
        subdomain += nearest
    if general is None:
        begin(f"general SAE at {hookpoint}")
        pool = texts if corpus is None else without(corpus, held_out)
        base = train_general_sae(model, pool, hookpoint, config, **options)
        general, record["general"] = base.sae, base.record
    else:
        check_width(general, model.d_model)
    start, fine_tuning = general, config.special
    if fine_tuning is None:
        return LearnedSAE(start, record)
    begin(f"specialised SAE at {hookpoint}")
    subdomain = _at_most(subdomain, _rows_read(config), _longest(model), random_state)
    key = [
        model.fingerprint,
        hookpoint,
        texts_sha256(subdomain),
        start.fingerprint(),
        fine_tuning,
        random_state,
        model.limit,
    ]

    def train() -> LearnedSAE:
        x = harvest(model, subdomain, hookpoint).x
        return _fit(x, start.cfg, fine_tuning, init=start, random_state=random_state)

    special = _cached(cache_dir, "special", key, train)
    return LearnedSAE(special.sae, {**record, "special": special.record})


def _retrieved(
    model: LanguageModel,
    texts: Sequence[str],
    corpus: Sequence[str],
    held_out: Sequence[str],
    config: RetrievalConfig,
    device: str,
    *,
    random_state: int | None,
    cache_dir: str | Path | None,
) -> tuple[list[str], dict[str, Any]]:
    """The texts of ``corpus`` nearest to ``texts``, and the report; kept under ``cache_dir``.

    A ``model`` of the embedder's name is not loaded once more.
    """
    embedder = model if config.embedder == model.name else load_embedder(config.embedder, device)

    def find() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        options: dict[str, Any] = {"random_state": random_state, "cache_dir": cache_dir}
        settings = {**config.model_dump(), "embedder": embedder}
        found = retrieve(texts, corpus, held_out=held_out, **options, **settings)
        return {"corpus_ids": found.corpus_ids}, found.report

    key = [embedder.fingerprint, config, random_state, *map(texts_sha256, (texts, corpus, held_out))]
    file = (
        None if cache_dir is None else Path(cache_dir) / "retrieved" / f"{fingerprint(*key)[:24]}.safetensors"
    )
    arrays, report = kept(file, find)
    return [corpus[i] for i in arrays["corpus_ids"].tolist()], dict(report)


def _fit(x: Tensor, sae_config: SAEConfig, train: TrainConfig, **options: Any) -> LearnedSAE:
    if not len(x):
        raise InputError("the texts hold no tokens to train on; they are all empty")
    stream = shuffled_batches(x, min(train.batch_size, len(x)), options["random_state"])
    result = train_sae(stream, sae_config, train, **options)
    return LearnedSAE(result.sae, {"n_rows": len(x), **result.history[-1]})


def _longest(model: LanguageModel) -> int:
    return min(model.max_length, model.limit or model.max_length)


def _rows_read(config: DebiasConfig) -> int:
    """Rows that fine-tuning reads: what it does not come to is worth no pass."""
    train = config.special
    return 0 if train is None else min(config.special_rows, train.n_steps * train.batch_size)


def _worth_retrieving(texts: Sequence[str], corpus: Sequence[str], longest: int, n_rows: int) -> int:
    """How many texts of ``corpus`` hold what the training ``texts`` leave of ``n_rows``, or half of it."""
    held, total = (sum(_tokens(text, longest) for text in some) for some in (texts, corpus))
    missing = max(n_rows - held, n_rows / 2)
    return max(1, math.ceil(missing / max(total / max(len(corpus), 1), 1)))


def _draw(corpus: Sequence[str], n_rows: int, longest: int, random_state: int | None) -> list[str]:
    """Draw texts until they hold about ``n_rows`` tokens that the model reads."""
    order = np.random.default_rng(random_state).permutation(len(corpus))
    lengths = np.cumsum([_tokens(corpus[i], longest) for i in order])
    return [corpus[i] for i in order[: int(np.searchsorted(lengths, n_rows)) + 1]]


def _at_most(texts: list[str], n_rows: int, longest: int, random_state: int | None) -> list[str]:
    """The texts, or where they hold more tokens than that as many of them as are drawn."""
    held = sum(_tokens(text, longest) for text in texts)
    return texts if held <= n_rows else _draw(texts, n_rows, longest, random_state)


def _tokens(text: str, longest: int) -> float:
    """Four bytes each: English has as many letters in one, and other scripts more bytes in a letter."""
    return min(len(text.encode("utf-8", "surrogatepass")) / 4, longest)


def _cached(
    cache_dir: str | Path | None, kind: str, key: Sequence[Any], train: Callable[[], LearnedSAE]
) -> LearnedSAE:
    """Train once for each key; a directory under the cache is there whole or not at all. Of processes that want the
    same SAE, one trains it.
    """
    if cache_dir is None:
        return train()
    directory = Path(cache_dir) / "saes" / f"{kind}-{fingerprint(*key)[:24]}"
    lock = Path(cache_dir) / "locks" / directory.name
    return read_or_make(lock, lambda: _kept(directory), lambda: _keep(train(), directory))


def _kept(directory: Path) -> LearnedSAE | None:
    """What :func:`_keep` has kept, or None where there is nothing or where it is damaged: then it is trained again."""
    if not directory.is_dir():
        return None
    try:
        manifest = read_manifest(directory, _KIND).check()
        mark_used(directory)
        return LearnedSAE(load_sae(directory), manifest.about)
    except InputError:
        return None


def _keep(learned: LearnedSAE, directory: Path) -> LearnedSAE:
    def fill(partial: Path) -> None:
        save_sae(learned.sae, partial)
        write_manifest(partial, _KIND, learned.record)

    replace_directory(directory, fill)
    return learned
