"""Checkpoints that survive a crash: written atomically, checked when read."""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import sealed_arrays, writable_directory, write_arrays

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


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write ``step-N.safetensors`` atomically and remove all but the newest two."""
    writable_directory(directory)
    arrays = {name: value.detach().cpu().numpy() for name, value in checkpoint.tensors.items()}
    about = {"step": checkpoint.step, "state": checkpoint.state}
    write_arrays(directory / f"step-{checkpoint.step:09d}.safetensors", arrays, about)
    for old in checkpoint_files(directory)[KEPT:]:
        old.unlink(missing_ok=True)  # another process may have done so


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in ``path``; raises InputError when it is truncated or was altered."""
    try:
        arrays, about = sealed_arrays(path)
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        return Checkpoint(int(about["step"]), tensors, dict(about["state"]))
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"The checkpoint {path} is damaged: {error}") from error


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint, or None where there is none; warns about each damaged one."""
    for path in checkpoint_files(directory):
        try:
            return read_checkpoint(path)
        except InputError as error:
            warnings.warn(f"{error}; the one before it is used", RuntimeWarning, stacklevel=2)
    return None
