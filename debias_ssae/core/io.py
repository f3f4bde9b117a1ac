"""Files that are either whole or absent."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from filelock import FileLock

from debias_ssae.core.errors import InputError

T = TypeVar("T")
_CODES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "U8": "uint8"}


class Place(NamedTuple):
    """Where a tensor lies in a safetensors file."""

    offset: int
    """Bytes from the file's beginning."""
    shape: tuple[int, ...]
    dtype: str


def tensor_places(path: Path) -> dict[str, Place]:
    """Return where each tensor of a safetensors file lies; raises InputError naming a damaged file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(min(size, 10**8)))
        places = {
            name: Place(8 + size + e["data_offsets"][0], tuple(e["shape"]), _CODES[e["dtype"]])
            for name, e in entries.items()
            if name != "__metadata__"
        }
        end = 8 + size + max((e["data_offsets"][1] for n, e in entries.items() if n in places), default=0)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): run the same harvest again") from error
    if path.stat().st_size != end:
        raise InputError(f"{path} is damaged (it ends too early): run the same harvest again")
    return places


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name, then rename: a reader never sees half a file.

    Raises InputError when the disk is full or the folder cannot be written; nothing is left behind then.
    """
    # not tempfile's, which only the owner may read
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"The disk is full: {path} was not written. Free some space and run the same command again;"
                " what is finished is kept"
            ) from error
        raise InputError(f"Cannot write {path}: {error.strerror}") from error


def read_or_make(lock: Path, read: Callable[[], T | None], make: Callable[[], T], *, wait: bool = True) -> T:
    """Return what ``read`` finds or else what ``make`` makes and keeps; of processes that hold the same ``lock``, one
    makes it. Raises filelock.Timeout where another is at it and ``wait`` is false.
    """
    found = read()
    if found is not None:
        return found
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=-1 if wait else 0):
        found = read()
        return make() if found is None else found


def write_json(path: Path, values: Any) -> None:
    """Write ``values`` as JSON with sorted keys: equal values give equal bytes."""
    write_whole(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises InputError naming the file when it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return values


def file_digest(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
