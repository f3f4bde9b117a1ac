"""Files: one writer (the old one or the whole new one), one strict reader of JSON and YAML, one manifest with hashes.

Everything that the package writes goes through :func:`writing` (a file) or :func:`replace_directory`. Temporary
names are unique, so that processes never meet in one; they hold the process, so that the next write to the same
folder removes what a killed one has left. Everything that is read is taken for damaged or hostile: sizes are
compared before anything is allocated, hashes before anything is used.
"""

import ctypes
import hashlib
import json
import math
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

from debias_ssae.core.errors import InputError, brief, cannot_write, one_line

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")
JSON_BYTES = 64 * 2**20
YAML_BYTES = 2**19
DEPTH = 64
"""Levels of nesting that a file of settings may have."""
MANIFEST = "manifest.json"
_STALE_SECONDS = 24 * 3600
_NODE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<node>[0-9a-f]{8})\.(?P<pid>\d+)\.[0-9a-f]{12}\.(?P<kind>tmp|partial|old)"
)
_LIVE: set[str] = set()
"""Temporary names that this process is writing."""


# ---------------------------------------------------------------- writing


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; what was written there takes the place of ``path`` at the end.

    A reader, a killed process and a full disk find the old file or the whole new one. Raises InputError that
    names ``path`` and the cure when the system refuses; nothing is left behind then.
    """
    path = Path(path)
    _sweep(path.parent)
    temporary = _temporary(path, "tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
        _LIVE.discard(temporary.name)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` atomically; errors as in :func:`writing`."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; half surrogate pairs become ``?``."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` as JSON with sorted keys, atomically: equal values give equal bytes.

    Numbers that JSON does not know (NaN, infinity) become null, NumPy's numbers plain ones.
    """
    text = json.dumps(as_json(values), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n")


def check_writable(path: str | Path) -> None:
    """Raise InputError, before long work begins, where the directory could be neither made nor written into."""
    place = Path(path).absolute()
    place = next(one for one in (place, *place.parents) if one.exists())
    if not place.is_dir():
        raise InputError(f"Cannot write {path}: {place} is not a folder; give another place")
    if not os.access(place, os.W_OK):
        raise InputError(f"Cannot write into {place}: give another folder, or take leave to write there")


def writable_directory(path: str | Path) -> Path:
    """Make the directory and return it; raises InputError where nothing can be written."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    check_writable(path)
    return path


def check_folder(path: str | Path, kind: str, is_one: Callable[[set[str]], bool]) -> None:
    """Raise InputError where ``path`` is a file or a folder of something that is no ``kind``, such as "debiaser".

    ``is_one`` judges the names in a folder that is not empty; hidden ones, which other processes are writing, are
    left out.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    held = {one.name for one in path.iterdir() if one.name[0] != "."} if path.is_dir() else set()
    if held and not is_one(held):
        raise InputError(f"{path} holds something that is no {kind}; give another folder")


def replace_directory(path: str | Path, fill: Callable[[Path], None]) -> None:
    """Have ``fill`` write into a new folder beside ``path``, which then takes the place of ``path`` as a whole.

    Whoever is killed leaves the old folder or the new one; of two processes the last one's folder stays, whole.
    Raises InputError when the system refuses.
    """
    goal = Path(os.path.realpath(path))
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(goal, error) from error
    _sweep(goal.parent)
    partial = _temporary(goal, "partial")
    try:
        partial.mkdir()
        fill(partial)
        _sync(partial)
        while not _settle(partial, goal):
            continue
        _sync(goal.parent)
    except OSError as error:
        raise cannot_write(goal, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _LIVE.discard(partial.name)


def _settle(partial: Path, goal: Path) -> bool:
    """Put ``partial`` in the place of ``goal``; the old folder, if any, is ``partial`` afterwards or gone.

    False: another process was faster and it has to be tried again.
    """
    if not goal.exists():
        try:
            partial.rename(goal)
        except OSError:
            if not goal.exists():
                raise
            return False
        return True
    if _exchange(partial, goal):
        return True
    old = _temporary(goal, "old")  # two steps, and the old folder is put back by whoever comes after a kill
    try:
        goal.rename(old)
        partial.rename(goal)
    except OSError:
        with suppress(OSError):
            old.rename(goal)
        if not partial.exists() or goal.exists():
            return False
        raise
    finally:
        _LIVE.discard(old.name)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step where the system can (renameat2 of Linux)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0)


def _temporary(path: Path, kind: str) -> Path:
    begin = os.fsencode(path.name)[:160].decode("utf-8", "ignore")  # a file's name holds 255 bytes
    name = f".{begin}.{_NODE}.{os.getpid()}.{uuid4().hex[:12]}.{kind}"
    _LIVE.add(name)
    return path.with_name(name)


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in ``folder``; an old directory whose successor never came is put back."""
    try:
        entries = [entry.name for entry in os.scandir(folder or ".")]
    except OSError:
        return  # the writer says what is wrong with the folder
    for name in entries:
        match = _TEMPORARY.fullmatch(name)
        left = folder / name
        if match is None or name in _LIVE or not _is_stale(left, match["node"], int(match["pid"])):
            continue
        with suppress(OSError):
            if match["kind"] == "old" and not (folder / match["name"]).exists():
                left.rename(folder / match["name"])
            elif left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _is_stale(left: Path, node: str, pid: int) -> bool:
    """Whether the process that made ``left`` is gone; of another machine's, whether it is a day old."""
    if node != _NODE:
        with suppress(OSError):
            return time.time() - left.lstat().st_mtime > _STALE_SECONDS
        return False
    if pid == os.getpid():
        return True  # not among those being written: of an earlier process of this number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _sync(path: Path) -> None:
    """Have the system bring ``path`` to the disk, so that a power failure finds what a reader would."""
    flags = os.O_RDONLY
    if path.is_dir():
        if os.name == "nt":
            return
        flags |= getattr(os, "O_DIRECTORY", 0)
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def as_json(values: Any) -> Any:
    """Return ``values`` as JSON can hold them: undefined and infinite numbers None, NumPy's plain, settings as their
    fields, others strings; half surrogate pairs become ``?``.
    """
    if values is None or isinstance(values, bool | int):
        return values
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {as_json(str(key)): as_json(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [as_json(value) for value in values]
    if hasattr(values, "tolist"):
        return as_json(values.tolist())
    if hasattr(values, "model_dump"):
        return as_json(values.model_dump(mode="json"))
    return str(values).encode("utf-8", "replace").decode("utf-8")


# ---------------------------------------------------------------- one process at a time


def read_or_make(lock: Path, read: Callable[[], T | None], make: Callable[[], T]) -> T:
    """Return what ``read`` finds or else what ``make`` makes and keeps; of processes that hold the same ``lock``, one
    makes it.
    """
    found = read()
    if found is not None:
        return found
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(lock, error) from error
    with FileLock(lock):
        found = read()
        return make() if found is None else found


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold ``directory``, made where it is absent; raises InputError where another process is writing it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"Another process is writing {directory}: wait until it has ended, or give another folder"
        ) from None
    except OSError as error:
        raise cannot_write(directory, error) from error
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------- reading


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """Return a file's bytes; raises InputError where there is none, or one larger than ``limit``, or no permission."""
    path = Path(path)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            what = "a folder" if stat.S_ISDIR(about.st_mode) else "a device or pipe"
            raise InputError(f"{path} is {what}, expected a file")
        if limit is not None and about.st_size > limit:
            raise InputError(
                f"{path} has {about.st_size} bytes; such a file has at most {limit}: is it the right one?"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, FileNotFoundError):
            raise InputError(f"There is no file {path}") from error
        raise InputError(
            f"Cannot read {brief(str(path))}: {getattr(error, 'strerror', None) or error}"
        ) from error


def read_text(path: str | Path, limit: int | None = None) -> str:
    """Return a file's text; raises InputError where it is no UTF-8 (a byte order mark is left out)."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): save it as UTF-8"
        ) from error


def read_json(path: str | Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object; raises InputError naming the file when it is missing, damaged or not strict JSON."""
    values = parse_json(read_text(path, limit), str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {brief(values)}, expected a JSON object")
    return values


def parse_json(text: str | bytes, source: str) -> Any:
    """Return the value of a JSON text.

    Raises InputError for what the standard does not allow or leaves open: NaN and infinite numbers, a name given
    twice, half surrogate pairs, more than 64 levels.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        _check_nesting(values)
        return values
    except RecursionError:
        raise InputError(f"{source} is nested more than {DEPTH} levels deep") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise InputError(f"Cannot read {source} as JSON: {one_line(error)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_unique(name for name, _ in pairs)
    return dict(pairs)


def _check_unique(names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the name {brief(name)} is given twice")
        seen.add(name)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{brief(text)} is beyond the range of numbers")
    return value


def _check_nesting(values: Any) -> None:
    """Raise ValueError for more than 64 levels or for strings that UTF-8 cannot hold."""
    level: list[Any] = [values]
    for _ in range(DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [*value, *value.values()]
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and not value.isascii():
                value.encode("utf-8")
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {DEPTH} levels deep")


def read_yaml(path: str | Path, limit: int = YAML_BYTES) -> Any:
    """Return the value of a YAML file; raises InputError as :func:`parse_yaml` does, and for a missing file."""
    return parse_yaml(read_text(path, limit), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text, its plain words read as YAML 1.2 reads them: ``no`` and ``010`` are strings.

    Raises InputError for what is no YAML, for unknown tags, a name given twice, more than 64 levels, aliases, and
    NaN and infinite numbers.
    """
    import yaml

    try:
        loader = _yaml_loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_yaml(node, set())
            values = loader.construct_document(node)
        finally:
            loader.dispose()
        _check_nesting(values)
        return values
    except RecursionError:
        raise InputError(f"{source} is nested more than {DEPTH} levels deep") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        reason = getattr(error, "problem", None) or error
        raise InputError(f"Cannot read {brief(source)[1:-1]} as YAML{where}: {one_line(reason)}") from error


def _check_yaml(node: Any, seen: set[int]) -> None:
    """Raise ValueError for an alias, of which a few can stand for millions of values, and for a name given twice."""
    if id(node) in seen:
        raise ValueError("it holds an alias (*name): write its values out")
    seen.add(id(node))
    inner = node.value if isinstance(node.value, list) else []
    if inner and isinstance(inner[0], tuple):
        _check_unique(key.value for key, _ in inner if isinstance(key.value, str))
        inner = [part for pair in inner for part in pair]
    for part in inner:
        _check_yaml(part, seen)


@cache
def _yaml_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's core words; neither dates nor base 60 nor yes and no."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def words(tag: str, pattern: str, first: str) -> None:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), list(first))

    words("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
    words("null", "~|null|Null|NULL|", "~nN")
    Loader.yaml_implicit_resolvers[""] = Loader.yaml_implicit_resolvers["~"]
    words("int", "[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
    words(
        "float",
        r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+|(?<=[0-9])\.|(?<=[0-9])(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        "-+.0123456789",
    )
    words("merge", "<<", "<")
    Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _finite(str(node.value)))
    return Loader


def file_digest(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file, read piece by piece; raises InputError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}") from error


# ---------------------------------------------------------------- arrays


def mapped_tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file, which are read from the disk where they are looked at.

    Raises InputError naming a missing or damaged file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}") from error
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def read_tensors(path: Path, data: bytes | None = None) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file; raises InputError where it is damaged or a number is not finite.

    ``data`` are its bytes where they have been read already.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path) if data is None else data
    refuse_pointer(path, data)
    try:  # the library compares all claims of the header with the size of the data
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise _damaged(path, error) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{path} is damaged: {brief(name)} holds numbers that are not finite")
    return tensors


def read_arrays(path: Path, data: bytes | None = None) -> "dict[str, np.ndarray]":
    """Like :func:`read_tensors`, as arrays; NumPy has no bfloat16."""
    try:
        return {name: tensor.numpy() for name, tensor in read_tensors(path, data).items()}
    except TypeError as error:
        raise _damaged(path, error) from error


def write_arrays(
    path: Path, arrays: "Mapping[str, np.ndarray]", about: Mapping[str, Any] | None = None
) -> None:
    """Write arrays, and JSON values about them, as one safetensors file with a sha256 of its content, atomically."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(as_json(about or {}), sort_keys=True)
    write_bytes(path, save(arrays, {"about": text, "sha256": _arrays_digest(arrays, text)}))


def sealed_arrays(path: Path) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """Return what :func:`write_arrays` wrote; raises InputError where it is missing or not what was written."""
    data = read_bytes(path)
    arrays = read_arrays(path, data)
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], str(path)).get("__metadata__")
    text = header.get("about") if isinstance(header, dict) else None
    if type(text) is not str or header != {"about": text, "sha256": _arrays_digest(arrays, text)}:
        raise InputError(
            f"{path} is not what was written there (its checksum differs): make or download it again"
        )
    about = parse_json(text, str(path))
    return arrays, about if isinstance(about, dict) else {}


def kept(
    file: Path | None, make: "Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]"
) -> "tuple[Mapping[str, np.ndarray], Mapping[str, Any]]":
    """Return the arrays of ``file`` and what is said of them (:func:`sealed_arrays`).

    Where there are none, or damaged ones, ``make`` makes them and they are written there; of processes that want the
    same file, one makes it. With None nothing is kept.
    """
    if file is None:
        return make()

    def read() -> "tuple[Mapping[str, np.ndarray], Mapping[str, Any]] | None":
        with suppress(InputError):
            found = sealed_arrays(file)
            with suppress(OSError):
                os.utime(file)  # the user's cache removes what was not used for longest
            return found
        return None

    def write() -> "tuple[Mapping[str, np.ndarray], Mapping[str, Any]]":
        arrays, about = make()
        writable_directory(file.parent)
        write_arrays(file, arrays, about)
        return arrays, as_json(about)

    return read_or_make(file.parent / ".locks" / file.stem, read, write)


def _arrays_digest(arrays: "Mapping[str, np.ndarray]", about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def refuse_pointer(path: Path, data: bytes) -> None:
    """Raise InputError where ``data``, the beginning of ``path``, is of a pointer that stands for the file."""
    if data.startswith(b"version "):
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({one_line(error)}): make or download it again")


# ---------------------------------------------------------------- manifests


@dataclass(frozen=True)
class Manifest:
    """What a directory of ours holds: its kind, what is said of it, and size and sha256 of each file."""

    directory: Path
    kind: str
    about: dict[str, Any]
    files: dict[str, dict[str, Any]]
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    def file(self, name: str) -> Path:
        """Return the path of a file whose bytes are what was written; raises InputError where they are not."""
        path = self._path(name)
        if name not in self._checked:
            if (
                path.stat().st_size != self.files[name]["n_bytes"]
                or file_digest(path) != self.files[name]["sha256"]
            ):
                raise self._differs(path)
            self._checked.add(name)
        return path

    def bytes(self, name: str) -> bytes:
        """Return a file's content as it was written; raises InputError where it is another."""
        path = self._path(name)
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != self.files[name]["sha256"]:
            raise self._differs(path)
        return data

    def check(self) -> "Manifest":
        """Compare every file and return the manifest; raises InputError naming the first that differs."""
        for name in self.files:
            self.file(name)
        return self

    def arrays(self, name: str) -> "dict[str, np.ndarray]":
        """Return the arrays of a safetensors file of the manifest, checked."""
        return read_arrays(self.directory / name, self.bytes(name))

    def tensors(self, name: str) -> "dict[str, Tensor]":
        """Return the tensors of a safetensors file of the manifest, checked."""
        return read_tensors(self.directory / name, self.bytes(name))

    def _path(self, name: str) -> Path:
        path = self.directory / name
        if name not in self.files:
            raise InputError(
                f"{self.directory / MANIFEST} names no file {brief(name)}: {self.directory} is damaged"
            )
        if not path.is_file():
            raise InputError(f"{path} is missing: make or download {self.directory} again")
        return path

    def _differs(self, path: Path) -> InputError:
        return InputError(
            f"{path} is not the file that was written there (its checksum differs): make or download"
            f" {self.directory} again"
        )


def write_manifest(
    directory: Path,
    kind: str,
    about: Mapping[str, Any] | None = None,
    files: Mapping[str, Mapping[str, Any]] | None = None,
) -> Manifest:
    """Write ``manifest.json`` over ``files`` (by default over everything in ``directory``) and return it.

    ``kind`` names the artefact and its format's number, ``about`` is any JSON object.
    """
    if files is None:
        files = {
            path.relative_to(directory).as_posix(): file_record(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
        }
    body = {"kind": kind, "about": as_json(about or {}), "files": {k: dict(v) for k, v in files.items()}}
    write_json(directory / MANIFEST, {**body, "sha256": seal(body)})
    return Manifest(directory, kind, body["about"], body["files"])


def file_record(path: Path) -> dict[str, Any]:
    """Return what a manifest holds of a file: size and sha256."""
    return {"n_bytes": path.stat().st_size, "sha256": file_digest(path)}


def read_manifest(directory: str | Path, kind: str) -> Manifest:
    """Read ``manifest.json`` of an artefact of ``kind``; its files are compared when they are asked for.

    Raises InputError where there is none, where it is damaged or of another kind, and where it names files
    outside of ``directory``.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    if not path.exists():
        _sweep(
            directory.absolute().parent
        )  # an old directory whose successor was never put in place comes back
    if not directory.is_dir():
        raise InputError(f"There is no folder {directory}")
    values = read_json(path)
    body = {name: values.get(name) for name in ("kind", "about", "files")}
    files, about = body["files"], body["about"]
    if values.get("sha256") != seal(body) or not isinstance(files, dict) or not isinstance(about, dict):
        raise InputError(f"{path} is damaged (its checksum differs): make or download {directory} again")
    if body["kind"] != kind:
        raise InputError(f"{directory} holds {brief(body['kind'])}, expected {kind!r}")
    for name, told in files.items():
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
            raise InputError(f"{path} names a file outside of its folder: {brief(name)}")
        if (
            not isinstance(told, dict)
            or type(told.get("n_bytes")) is not int
            or type(told.get("sha256")) is not str
        ):
            raise InputError(f"{path} is damaged: no size and checksum of {brief(name)}")
    return Manifest(directory, kind, about, files)


def fingerprint(*values: Any) -> str:
    """Return a sha256 of ``values`` as :func:`as_json` writes them: what follows from them alone can be kept by it."""
    return seal(values)


def seal(body: Any) -> str:
    """Return the checksum of JSON values that is kept beside them."""
    return hashlib.sha256(json.dumps(as_json(body), sort_keys=True).encode()).hexdigest()
