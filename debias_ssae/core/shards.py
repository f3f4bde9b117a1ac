"""A folder that is filled shard by shard: killed, run again or shared between processes, it holds the same bytes.

``DIR/settings.json``: what was asked. ``DIR/shard-00000.json``: counts, text hash and checksum of a shard, whose file
lies beside it or in a folder of ``DIR``; without it the shard is not finished. ``DIR/manifest.json``: settings and all
records, written last. A shard's bytes depend on its texts and the settings only, so who wrote it, and when, does not
matter.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from debias_ssae.core.device import process_number
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import (
    file_digest,
    file_record,
    read_json,
    read_manifest,
    read_or_make,
    seal,
    writable_directory,
    write_json,
    write_manifest,
)

logger = logging.getLogger(__name__)


def process_share(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return this process's number and how many there are, as given, or as torchrun says in RANK and WORLD_SIZE.

    Raises InputError for numbers that do not fit together.
    """
    rank = process_number("RANK") if rank is None else rank
    world_size = process_number("WORLD_SIZE", 1) if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise InputError(f"rank={rank}, world_size={world_size}: expected 0 <= rank < world_size")
    return rank, world_size


class ShardWriter:
    """Writes shards into a folder, and knows which are already there."""

    def __init__(
        self, directory: str | Path, kind: str, settings: Mapping[str, Any], *, ending: str, folder: str = ""
    ) -> None:
        """Open ``directory`` for shards made with ``settings`` (JSON values), files ``folder/shard-00000{ending}``.

        Raises InputError when the folder holds shards made with other settings, or other files.
        """
        self.directory, self.kind = Path(directory), kind
        self._ending, self._folder = ending, folder
        self.settings = {"format": kind, **settings}
        file = self.directory / "settings.json"
        # listed before the test: another process may begin this folder at any moment
        held = list(self.directory.iterdir()) if self.directory.is_dir() else []
        held += (self.directory / folder).iterdir() if folder and (self.directory / folder).is_dir() else ()
        strange = {p.name for p in held if not p.name.startswith(".")} - {folder}
        if strange and not file.exists():
            raise InputError(f"{self.directory} is not empty and holds no store: give another folder")
        writable_directory(self.directory)

        def begin() -> dict[str, Any]:
            write_json(file, self.settings)
            return read_json(file)

        # whoever is first says what the folder holds
        there = read_or_make(
            self.directory / ".lock", lambda: read_json(file) if file.exists() else None, begin
        )
        other = sorted(k for k in {*there, *self.settings} if there.get(k) != self.settings.get(k))
        if other:
            differ = ", ".join(f"{k} (there {there.get(k)!r}, now {self.settings.get(k)!r})" for k in other)
            raise InputError(f"{self.directory} holds a store that differs in {differ}: give another folder")
        writable_directory(self.directory / folder)

    def path(self, number: int) -> Path:
        """Return the file of shard ``number``."""
        return self.directory / self._folder / f"shard-{number:05d}{self._ending}"

    def record_path(self, number: int) -> Path:
        """Return the file that says that shard ``number`` is finished."""
        return self.directory / f"shard-{number:05d}.json"

    def is_done(self, number: int, texts_sha256: str) -> bool:
        """Return whether shard ``number`` is there and whole; a damaged one is named in the log and redone.

        Raises InputError when it was made from other texts, and where a finished folder has no such shard.
        """
        if not self.record_path(number).exists():
            if number >= self._n_finished:
                raise InputError(
                    f"{self.directory} was finished with {self._n_finished:.0f} shards, and now there are more texts: "
                    "give another folder"
                )
            return False
        try:
            record = _unsealed(self.record_path(number))
            problem = shard_problem(self.path(number), record)
        except InputError as error:
            problem = str(error)
        if problem is not None:
            logger.warning("%s: redone", problem)
            return False
        if record["texts_sha256"] != texts_sha256:
            raise InputError(
                f"Shard {number} of {self.directory} was made from other texts: give another folder"
            )
        return True

    @cached_property
    def _n_finished(self) -> float:
        """How many shards the finished folder has; infinity where it is not finished."""
        try:
            return len(read_manifest(self.directory, self.kind).about["shards"])
        except (InputError, KeyError, TypeError):
            return math.inf

    def write(self, number: int, fill: Callable[[Path], None], record: Mapping[str, Any]) -> None:
        """Have ``fill`` write the file of shard ``number`` atomically, then the record that says it is finished."""
        self.record_path(number).unlink(missing_ok=True)
        fill(self.path(number))
        body = {**record, **file_record(self.path(number))}
        write_json(self.record_path(number), {**body, "seal": seal(body)})

    def fill(
        self,
        pieces: Iterable[Any],
        share: tuple[int, int],
        digest: Callable[[Any], str],
        make: Callable[[int, Any, str], None],
        bar: Any,
    ) -> dict[str, Any] | None:
        """Have ``make(number, piece, digest)`` write this process's ``share`` (number, how many) of the shards.

        Whoever makes the last shard finds all records there and finishes the folder; two at once write the same
        manifest. Returns what it says, or None while others are at work.
        """
        n = 0
        for piece in pieces:
            if n % share[1] == share[0]:
                texts = digest(piece)
                if not self.is_done(n, texts):
                    make(n, piece, texts)
            bar.update(len(piece))
            n += 1
        finished = all(self.record_path(number).exists() for number in range(n))
        return self.finish(n) if finished else None

    def finish(self, n_shards: int) -> dict[str, Any]:
        """Write the manifest over shards 0 to ``n_shards`` - 1 and return what it says.

        Raises InputError naming a shard that is not there, and where there are more, of texts that have become fewer.
        """
        if self.record_path(n_shards).exists():
            raise InputError(
                f"{self.directory} holds more shards than the {n_shards} of these texts: give another folder"
            )
        records = [
            {"name": self.path(number).name, **_unsealed(self.record_path(number))}
            for number in range(n_shards)
        ]
        about = {"settings": self.settings, "shards": records, "totals": totals(records)}
        prefix = f"{self._folder}/" if self._folder else ""
        files = {prefix + record["name"]: {k: record[k] for k in ("n_bytes", "sha256")} for record in records}
        return write_manifest(self.directory, self.kind, about, files).about


def _unsealed(file: Path) -> dict[str, Any]:
    """Return a record; raises InputError where it is not what was written."""
    record = read_json(file)
    if record.pop("seal", None) != seal(record):
        raise InputError(f"The record {file} is damaged")
    return record


def shard_problem(path: Path, record: Mapping[str, Any], *, contents: bool = True) -> str | None:
    """Return what is wrong with the shard ``path`` of which ``record`` was written, naming it, or None.

    Without ``contents`` only its size is compared.
    """
    if not path.exists():
        return f"{path} is missing"
    if path.stat().st_size != record["n_bytes"]:
        return f"{path} is damaged ({path.stat().st_size} bytes, {record['n_bytes']} expected)"
    if contents and file_digest(path) != record["sha256"]:
        return f"{path} is damaged (its checksum differs)"
    return None


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Sum every count ("n_...") of the records."""
    keys = sorted({key for record in records for key in record if key.startswith("n_")})
    return {key: sum(int(record.get(key, 0)) for record in records) for key in keys}
