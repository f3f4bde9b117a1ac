"""The user's cache: what fits of one corpus share, where the system keeps such things, and never beyond a bound."""

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from platformdirs import user_cache_path

from debias_ssae.core.errors import InputError, brief
from debias_ssae.core.io import writable_directory

VARIABLE = "DEBIAS_SSAE_CACHE"
"""Environment variable that names another directory, or turns the user's cache off."""
OFF = ("", "0", "off", "none", "false")
MOST_BYTES = 4 * 2**30
"""What the user's cache may hold; the entries that were not used for longest go first."""
LEAST_FREE = 2**30
"""With less free space on the disk nothing is kept by default."""
IN_USE = 3600
"""Seconds since the last use within which an entry stays: a fit that runs now may read it."""
KINDS = ("saes", "retrieved", "embeddings")
_OURS = re.compile(r"([a-z]+-)?[0-9a-f]{16,64}(-\d+)?(\.safetensors)?")
"""Names of entries; a folder that the variable names may hold things of others, which are never removed."""


class Entry(NamedTuple):
    """What is kept as one: a directory or a file."""

    path: Path
    n_bytes: int
    used: float
    """When it was last used, in seconds since 1970."""


def user_cache() -> Path | None:
    """Return the directory of the user's cache, whether it is there or not; None where it is turned off."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return user_cache_path("debias_ssae", appauthor=False)
    if named.strip().lower() in OFF:
        return None
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # ~somebody who is unknown
        raise InputError(f"{VARIABLE} is {brief(named)}: {error}; give a whole path, or off") from error


def cache_directory(asked: Any) -> Path | None:
    """Return what ``cache_dir=asked`` means: a path, None, or for "auto" the user's cache.

    That is None where it is turned off, cannot be written, or where the disk is almost full: a default never stops a
    fit.
    """
    if asked is None or str(asked) != "auto":
        return None if asked is None else Path(asked)
    directory = user_cache()
    if directory is None:
        return None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(writable_directory(directory)).free
    except (InputError, OSError):
        return None
    return directory if free > LEAST_FREE else None


def mark_used(path: Path) -> None:
    """Note that an entry was used now."""
    with suppress(OSError):
        os.utime(path)


def entries(directory: Path) -> list[Entry]:
    """Return what is kept in ``directory``, last used first."""
    found = []
    for path in (
        path for kind in KINDS for path in (directory / kind).glob("*") if _OURS.fullmatch(path.name)
    ):
        with suppress(OSError):  # another process has just removed it
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            found.append(Entry(path, sum(file.stat().st_size for file in files), path.stat().st_mtime))
    return sorted(found, key=lambda one: -one.used)


def trim(directory: Path, most: int = MOST_BYTES) -> int:
    """Remove what was not used for longest until ``most`` bytes are left; returns how many bytes went."""
    held, gone = 0, []
    for one in entries(directory):
        if held + one.n_bytes > most and time.time() - one.used > IN_USE:
            gone.append(one)
        else:
            held += one.n_bytes
    return _remove(gone, directory)


def clear(directory: Path) -> int:
    """Remove all that is kept; returns how many bytes went. Other files in ``directory`` stay."""
    return _remove(entries(directory), directory)


def _remove(some: list[Entry], directory: Path) -> int:
    """Remove entries, and what a killed process was removing; readers find a whole entry or none."""
    gone, n_bytes = directory / ".gone", 0
    for one in some:
        with suppress(OSError):
            gone.mkdir(exist_ok=True)
            one.path.rename(gone / uuid4().hex)
            n_bytes += one.n_bytes
    shutil.rmtree(gone, ignore_errors=True)
    return n_bytes
