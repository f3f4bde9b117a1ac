"""A model's activations on a corpus, into a store; interrupted or shared between processes, the same bytes."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.core.shards import process_share
from debias_ssae.core.steps import bar
from debias_ssae.model import Activations, LanguageModel, harvest_many
from debias_ssae.model.language_model import check_hookpoints
from debias_ssae.model.store import ActivationStore, StoreWriter
from debias_ssae.text.checks import texts_sha256


def harvest_to_store(
    model: LanguageModel,
    texts: Iterable[str | None],
    directory: str | Path,
    hookpoints: Sequence[str] = ("embeddings",),
    *,
    store_dtype: str = "auto",
    texts_per_shard: int = 1024,
    rank: int | None = None,
    world_size: int | None = None,
) -> ActivationStore | None:
    """Write the rows of ``texts`` at ``hookpoints`` (one pass) into ``directory`` and return the open store.

    ``texts`` may be any iterable; one shard of ``texts_per_shard`` texts is in memory at a time. What is not a
    string becomes an empty text; empty, cut and repaired texts are counted in the store. Finished shards are
    kept when the same harvest runs again; damaged ones are named in the log and redone. Under ``torchrun``
    (or with ``rank`` and ``world_size``) each process is given all texts and writes every ``world_size``-th shard;
    None is returned while others are at work. ``store_dtype`` "auto" is the precision of the model. Raises InputError
    for a folder that holds something else, an unknown hookpoint, a full disk.
    """
    if texts_per_shard < 1:
        raise InputError(f"texts_per_shard={texts_per_shard}: give at least 1")
    share = process_share(rank, world_size)
    check_hookpoints(hookpoints, model.hookpoints)
    source = iter(texts)
    pieces = iter(lambda: list(islice(source, texts_per_shard)), [])
    first = next(pieces, None)  # a corpus that cannot be read leaves no folder behind
    if first is None:
        raise InputError("The corpus holds no texts")
    settings: dict[str, Any] = {
        "model": model.name,
        "revision": model.revision,
        "fingerprint": model.fingerprint,
        "tokenizer_sha256": model.tokenizer_sha256,
        "hookpoints": list(hookpoints),
        "d_model": model.d_model,
        "dtype": str(model.dtype).removeprefix("torch.") if store_dtype == "auto" else store_dtype,
        "max_length": model.length,
        "token_budget": model.token_budget,
        "texts_per_shard": texts_per_shard,
    }
    writer = StoreWriter(directory, settings)

    def digest(chunk: Sequence[Any]) -> str:
        return texts_sha256(text if isinstance(text, str) else None for text in chunk)

    def make(number: int, chunk: Sequence[Any], texts_digest: str) -> None:
        clean = [text if isinstance(text, str) else "" for text in chunk]
        found = harvest_many(model, clean, hookpoints)
        one = found[hookpoints[0]]
        tensors = {"text_ids": one.text_ids + number * texts_per_shard, "token_ids": one.token_ids}
        tensors |= {"offsets": one.offsets, **{f"x/{name}": rows.x for name, rows in found.items()}}
        writer.write_rows(number, tensors, _record(chunk, clean, one, texts_digest, model.length))

    with bar(f"harvest (rank {share[0]})") as drawn:
        about = writer.fill(chain([first], pieces), share, digest, make, drawn)
    return None if about is None else ActivationStore(directory)


def summary(totals: Mapping[str, int]) -> str:
    """Say in one line what went in and what was passed over."""
    return (
        f"{totals['n_texts']} texts, {totals['n_rows']} rows; {totals.get('n_missing', 0)} texts missing, "
        f"{totals.get('n_empty', 0)} without tokens, {totals.get('n_cut', 0)} cut at the length limit, "
        f"{totals.get('n_repaired', 0)} with broken characters replaced"
    )


def _record(
    raw: Sequence[Any], texts: Sequence[str], found: Activations, digest: str, max_length: int
) -> dict[str, Any]:
    counts = np.bincount(found.text_ids.numpy(), minlength=len(texts))
    last = np.zeros(len(texts), np.int64)
    np.maximum.at(last, found.text_ids.numpy(), found.offsets[:, 1].numpy())
    ends = np.asarray([len(text.rstrip()) for text in texts])
    # special tokens are not rows: at most two or three of a full sequence
    full = counts >= max_length - 3
    cut = int((full & (last < ends)).sum())
    missing = sum(not isinstance(text, str) for text in raw)
    return {
        "texts_sha256": digest,
        "n_texts": len(texts),
        "n_rows": len(found.x),
        "n_missing": missing,
        "n_empty": int((counts == 0).sum()) - missing,
        "n_cut": cut,
        "n_repaired": sum(
            text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass") for text in texts
        ),
    }
