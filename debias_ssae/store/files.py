"""Files that are either whole or absent."""

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from debias_ssae.exceptions import InputError


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
