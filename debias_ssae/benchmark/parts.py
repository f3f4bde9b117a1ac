"""What a run has finished, on disk: rows and predictions of one method in one seed, whole or not at all."""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout

from debias_ssae.core.errors import InputError


class Part(NamedTuple):
    """A finished piece of work."""

    rows: list[dict[str, Any]]
    predictions: pd.DataFrame
    skipped: list[dict[str, str]]
    """What could not run, and why."""
    processor_seconds: float | None
    """That the process which did it spent since the part before; None in parts of versions that did not count."""


class Parts:
    """A directory of finished parts; each has a group (a seed, or a setting and a seed) and a name."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._since = time.process_time()

    def __getstate__(self) -> dict[str, Any]:
        # in another process the clock begins at 0
        return vars(self) | {"_since": 0.0}

    def has(self, group: str, name: str) -> bool:
        """Whether this part was finished, here or in a run that was cut off."""
        return self._rows(group, name).exists()

    @contextmanager
    def claim(self, group: str, name: str) -> Iterator[bool]:
        """Whether this part is to be done here: it is not finished, and no other process is at it."""
        lock = FileLock(self._lock(group, name), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield not self.has(group, name)
        finally:
            lock.release()

    def read(self, group: str, name: str) -> Part:
        """The part as it was written."""
        kept = json.loads(self._rows(group, name).read_text(encoding="utf-8"))
        file = self._predictions(group, name)
        predictions = pd.read_parquet(file) if file.exists() else pd.DataFrame()
        return Part(kept["rows"], predictions, kept["skipped"], kept.get("processor_seconds"))

    def write(
        self,
        group: str,
        name: str,
        rows: list[dict[str, Any]],
        predictions: pd.DataFrame,
        skipped: Sequence[dict[str, str]] = (),
    ) -> None:
        """Keep a part; its rows come last, so that a part with rows is whole."""
        if len(predictions):
            goal = self._predictions(group, name)
            partial = goal.with_name(goal.name + ".partial")
            predictions.to_parquet(partial)
            partial.replace(goal)
        now = time.process_time()
        spent, self._since = now - self._since, now
        kept = {"rows": rows, "skipped": list(skipped), "processor_seconds": spent}
        write_json(self._rows(group, name), kept)

    def discard(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Remove these parts, which a results file holds now; others of a larger run that was cut off stay."""
        for one in wanted:
            for file in (self._rows(*one), self._predictions(*one), self._lock(*one)):
                file.unlink(missing_ok=True)
        for directory in (self.directory, self.directory.parent):
            with suppress(OSError):  # not empty
                directory.rmdir()

    def _lock(self, group: str, name: str) -> Path:
        return self.directory / f"{group}--{name}.lock"

    def _rows(self, group: str, name: str) -> Path:
        return self.directory / f"{group}--{name}.json"

    def _predictions(self, group: str, name: str) -> Path:
        return self.directory / f"{group}--{name}.parquet"


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
