"""Checkpoints that survive a crash: written atomically, checked when read."""

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import writable_directory, write_bytes

KEPT = 2
"""Checkpoints that stay: should the newest be damaged, there is the one before it."""


class Checkpoint(NamedTuple):
    """What a training needs to go on."""

    step: int
    """Steps done."""
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    """Numbers, history and the configuration, as JSON."""


def checkpoint_files(directory: Path) -> list[Path]:
    """Return the checkpoints in ``directory``, newest first."""
    found = [path for path in directory.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", path.stem)]
    return sorted(found, key=lambda path: int(path.stem[5:]), reverse=True)


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write ``step-N.safetensors`` atomically and remove all but the newest two; returns its path."""
    writable_directory(directory)
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    state = json.dumps(checkpoint.state)
    header = {
        "step": str(checkpoint.step),
        "state": state,
        "sha256": _digest(checkpoint.step, tensors, state),
    }
    path = directory / f"step-{checkpoint.step:09d}.safetensors"
    write_bytes(path, save(tensors, header))
    for old in checkpoint_files(directory)[KEPT:]:
        old.unlink(missing_ok=True)  # another process may have done so
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in ``path``; raises InputError when it is truncated or was altered."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, state = int(header["step"]), header["state"]
        if header["sha256"] != _digest(step, tensors, state):
            raise InputError("its content does not match its sha256")
        return Checkpoint(step, tensors, json.loads(state))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"The checkpoint {path} is damaged: {error}") from error


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint, or None where there is none; warns about each damaged one."""
    for path in checkpoint_files(directory):
        try:
            return read_checkpoint(path)
        except InputError as error:
            warnings.warn(f"{error}; the one before it is used", RuntimeWarning, stacklevel=2)
    return None


def _digest(step: int, tensors: dict[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(f"{step}\n{state}".encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
