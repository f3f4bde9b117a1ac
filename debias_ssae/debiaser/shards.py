"""Representations of more texts than memory holds: a folder of shards, resumable and shared between processes."""

from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import joblib
import numpy as np
import pandas as pd

from debias_ssae.core.config import ROWS_PER_SHARD
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import write_bytes
from debias_ssae.core.shards import ShardWriter, process_share
from debias_ssae.core.steps import bar
from debias_ssae.text.checks import texts_sha256
from debias_ssae.text.tables import stream_tables, write_table

if TYPE_CHECKING:
    from debias_ssae.debiaser.estimator import SSAEDebiaser

KIND = "debias-ssae representations 1"
DATA = "data"
"""Folder of the shards, in which there is nothing else, so that readers of folders take it as it is."""


def transform_to_shards(
    debiaser: "SSAEDebiaser",
    source: str | Path | Iterable[str],
    directory: str | Path,
    *,
    text: str = "text",
    ids: Sequence[str] = (),
    split: str = "train",
    form: Literal["parquet", "csv", "npy"] = "parquet",
    rows_per_shard: int = ROWS_PER_SHARD,
    rank: int | None = None,
    world_size: int | None = None,
) -> dict[str, int] | None:
    """Write the debiased representations of ``source`` into ``directory``, shard by shard, in the order of the texts.

    ``source`` is a table, a folder or pattern of tables, a .txt file, a hub data set, or an iterable of texts; it is
    read as a stream, and one shard of ``rows_per_shard`` texts is in memory at a time. ``directory/data`` receives one
    file a shard: the columns ``ids`` as they are, then a column a dimension (npy: the dimensions alone, float32
    ``[n, d]``).

    When it is run again after an interruption, finished shards are kept, and compared with the texts by a hash. Under
    torchrun, or with ``rank`` and ``world_size``, each process reads the source and makes every ``world_size``-th
    shard; with as many threads each, the bytes are those of one process.

    Returns the counts of the finished folder (n_texts, n_bytes), or None while other processes are at work.

    Raises
    ------
    InputError
        For a debiaser of a matrix, an unreadable source, a row without a text, and for a folder that holds something
        else or was begun with another model, other settings or other texts.
    """
    if form not in ("parquet", "csv", "npy"):
        raise InputError(f"form is {form!r}; expected parquet, csv or npy")
    if rows_per_shard < 1:
        raise InputError(f"rows_per_shard={rows_per_shard}: give at least 1")
    if form == "npy" and ids:
        raise InputError("an npy file holds no columns besides the dimensions; give parquet or csv for ids")
    share = process_share(rank, world_size)
    encoder, ids = debiaser.text_encoder_, list(dict.fromkeys(ids))
    if taken := set(ids) & set(debiaser.get_feature_names_out()):
        raise InputError(f"the column {min(taken)} has the name of a dimension; rename it")
    columns = list(dict.fromkeys([text, *ids]))
    tables = stream_tables(source, columns, rows_per_shard, split=split)
    first = next(tables, None)  # a source that cannot be read leaves no folder behind
    if first is None:
        raise InputError("the source holds no texts")
    settings = {
        "encoder": encoder.key(debiaser.edits),
        "output": joblib.hash((debiaser.output_eraser_, debiaser.shift_), "sha1"),
        "token_budget": encoder.token_budget,
        "columns": columns,
        "ids": list(ids),
        "form": form,
        "rows_per_shard": rows_per_shard,
    }
    writer = ShardWriter(directory, KIND, settings, ending=f".{form}", folder=DATA)

    def digest(table: pd.DataFrame) -> str:
        return texts_sha256(None if v is None else str(v) for name in columns for v in table[name])

    def make(number: int, table: pd.DataFrame, texts: str) -> None:
        fill = partial(_fill, debiaser, table, text, list(ids), form)
        writer.write(number, fill, {"texts_sha256": texts, "n_texts": len(table)})

    with bar(f"transform (rank {share[0]})") as drawn:
        about = writer.fill(chain([first], tables), share, digest, make, drawn)
    return None if about is None else about["totals"]


def _fill(
    debiaser: "SSAEDebiaser", table: pd.DataFrame, text: str, ids: list[str], form: str, path: Path
) -> None:
    X = np.asarray(debiaser.transform(table[text].tolist()))
    if form == "npy":
        buffer = BytesIO()
        np.save(buffer, X, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
        return
    names: Any = debiaser.get_feature_names_out()
    write_table(table[ids].join(pd.DataFrame(X, columns=names)), path)
