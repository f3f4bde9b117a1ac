"""Errors and warnings that users may want to catch; each message names what came, what was expected and the cure."""

import errno
import reprlib
from importlib import import_module
from operator import index
from pathlib import Path
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = 4


class InputError(ValueError):
    """What the user gave cannot be used. The command line prints it as one line and ends with code 2."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}. Install it with: pip install 'debias-ssae[{extra}]'"
        )


def optional_module(name: str, extra: str) -> Any:
    """Import a module of an optional dependency; raises MissingExtraError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(name.partition(".")[0], extra) from error


class FewWordsWarning(UserWarning):
    """Hardly any text holds a word of the concept."""


class NothingRemovedWarning(UserWarning):
    """The debiaser was fitted without a way to find the attribute, so transform returns its input unchanged."""


def brief(value: Any) -> str:
    """Return ``value`` as one short line, however large or nested it is."""
    if type(value) is int and abs(value) >= 10**80:
        return f"an int of {value.bit_length()} bits"  # Python refuses to print the longest ones
    return one_line(_SHORT.repr(value))


def one_line(error: object, limit: int = 200) -> str:
    """Return the beginning of a message without line breaks."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


_NO_MEMORY = (
    "out of memory", "allocate memory", "not enough memory", "bad_alloc", "could not create a ", "start new thread",
)  # fmt: skip
"""What libraries say where memory runs out: torch, CUDA, C++, oneDNN ("could not create a primitive") and Python."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out: less at once may go through."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)
    )


def check_seed(random_state: Any) -> int | None:
    """Return ``random_state`` as a plain number or None; raises InputError for what NumPy could not start from."""
    if random_state is None:
        return None
    try:
        seed = index(random_state)
    except TypeError:
        seed = -1
    if isinstance(random_state, bool) or not 0 <= seed < 2**32:
        raise InputError(
            f"random_state is {brief(random_state)}; expected None or a whole number from 0 to 4294967295"
        )
    return seed


def cannot_write(path: str | Path, error: OSError) -> InputError:
    """Return the InputError for a file that the system would not write: which one, why, and the cure."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InputError(
            f"The disk is full: {path} was not written. Free some space and run the same command again; what is"
            " finished is kept"
        )
    parent = Path(path).absolute().parent
    cures = {
        errno.EROFS: "the file system is read-only; give another place",
        errno.EACCES: f"no permission; change the rights of {parent} or give another place",
        errno.EPERM: f"no permission; change the rights of {parent} or give another place",
        errno.ENOENT: f"there is no folder {parent}; make it first",
        errno.ENOTDIR: f"{parent} is not a folder; give another place",
        errno.EISDIR: "it is a folder; give the name of a file",
        errno.ENAMETOOLONG: "the name is too long; give a shorter one",
    }
    why = cures.get(error.errno or 0) or error.strerror or one_line(error)
    return InputError(f"Cannot write {path}: {why}")
