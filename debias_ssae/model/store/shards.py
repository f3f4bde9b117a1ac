"""Activations on disk: shards of whole texts, a record beside each, one manifest.

``DIR/settings.json``: what was run. ``DIR/shard-00000.safetensors``: ``x/{hookpoint}`` [n, d], ``text_ids``,
``token_ids`` [n], ``offsets`` [n, 2]. ``DIR/shard-00000.json``: counts, text hash and checksum; a shard
without it is not finished. ``DIR/manifest.json``: settings and all records, written last. A shard's bytes
depend on its texts and the settings only, so who wrote it, and when, does not matter.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import file_digest, read_json, write_bytes, write_json

FORMAT = "debias-ssae activations 1"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
logger = logging.getLogger(__name__)


class StoreWriter:
    """Writes shards into a folder, and knows which are already there."""

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]) -> None:
        """Open ``directory`` for shards made with ``settings`` (JSON values, "dtype" among them).

        Raises InputError when the folder holds a store made with other settings, or other files.
        """
        self.directory = Path(directory)
        self.settings = {"format": FORMAT, **settings}
        if self.settings.get("dtype") not in DTYPES:
            raise InputError(
                f"Unknown store dtype {settings.get('dtype')!r}: give one of {', '.join(DTYPES)}"
            )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot make the folder {self.directory}: {error.strerror}") from error
        file = self.directory / "settings.json"
        # listed before the test: another process may begin this store at any moment
        is_empty = not any(p for p in self.directory.iterdir() if not p.name.startswith("."))
        if not file.exists():
            if not is_empty:
                raise InputError(f"{self.directory} is not empty and holds no store: give another folder")
            write_json(file, self.settings)
        there = read_json(file)
        other = sorted(k for k in {*there, *self.settings} if there.get(k) != self.settings.get(k))
        if other:
            differ = ", ".join(f"{k} (there {there.get(k)!r}, now {self.settings.get(k)!r})" for k in other)
            raise InputError(f"{self.directory} holds a store that differs in {differ}: give another folder")

    def is_done(self, number: int, texts_sha256: str) -> bool:
        """Return whether shard ``number`` is there and whole; a damaged one is named in the log and redone.

        Raises InputError when it was made from other texts.
        """
        record_file = shard_path(self.directory, number).with_suffix(".json")
        if not record_file.exists():
            return False
        problem = shard_problem(self.directory, number)
        if problem is not None:
            logger.warning("%s: redone", problem)
            return False
        if read_json(record_file)["texts_sha256"] != texts_sha256:
            raise InputError(
                f"Shard {number} of {self.directory} was made from other texts: give another folder"
            )
        return True

    def write(self, number: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write shard ``number``: rows first, then the record that says it is finished.

        Raises InputError when the disk is full, or when a value does not fit float16.
        """
        dtype = DTYPES[self.settings["dtype"]]
        lowered = {}
        for name, tensor in tensors.items():
            value = tensor.to(dtype) if name.startswith("x/") else tensor
            if dtype == torch.float16 and name.startswith("x/") and not bool(value.isfinite().all()):
                raise InputError(f"{name[2:]} has values beyond float16: give dtype bfloat16 or float32")
            lowered[name] = value.contiguous()
        path = shard_path(self.directory, number)
        path.with_suffix(".json").unlink(missing_ok=True)
        data = save(lowered)
        write_bytes(path, data)
        checksum = {"sha256": hashlib.sha256(data).hexdigest(), "n_bytes": len(data)}
        write_json(path.with_suffix(".json"), {**record, **checksum})

    def finish(self, n_shards: int) -> dict[str, Any]:
        """Write the manifest over shards 0 to ``n_shards`` - 1 and return it.

        Raises InputError naming a shard that is not there.
        """
        records = []
        for number in range(n_shards):
            path = shard_path(self.directory, number)
            record = {"name": path.name, **read_json(path.with_suffix(".json"))}
            records.append(record)
        for stray in self.directory.glob(".*.tmp"):  # of a run that was killed while it wrote
            stray.unlink(missing_ok=True)
        manifest = {"settings": self.settings, "shards": records, "totals": totals(records)}
        write_json(self.directory / "manifest.json", manifest)
        return manifest


def shard_path(directory: Path, number: int) -> Path:
    """Return the file of shard ``number``."""
    return directory / f"shard-{number:05d}.safetensors"


def shard_problem(directory: Path, number: int) -> str | None:
    """Return what is wrong with shard ``number``, naming it, or None."""
    path = shard_path(directory, number)
    try:
        record = read_json(path.with_suffix(".json"))
        if not path.exists():
            return f"{path} is missing"
        if path.stat().st_size != record["n_bytes"]:
            return f"{path} is damaged ({path.stat().st_size} bytes, {record['n_bytes']} expected)"
        if file_digest(path) != record["sha256"]:
            return f"{path} is damaged (its checksum differs)"
    except (InputError, KeyError) as error:
        return f"The record of {path} is damaged ({error})"
    return None


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Sum every count ("n_...") of the records."""
    keys = sorted({key for record in records for key in record if key.startswith("n_")})
    return {key: sum(int(record.get(key, 0)) for record in records) for key in keys}


def texts_sha256(texts: Iterable[str | None]) -> str:
    """Return a hexadecimal id of the texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        raw = (text or "").encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def chunks(texts: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut an iterable into lists of ``size``, the last one shorter."""
    piece: list[Any] = []
    for text in texts:
        piece.append(text)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
