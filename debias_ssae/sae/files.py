"""Files: damage is an InputError, and a crash leaves the old file or the whole new one."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from debias_ssae.core.errors import InputError


class TensorReader:
    """Hands out tensors by name, checking that they are there and have the expected shape."""

    def __init__(self, tensors: dict[str, Tensor], source: Path) -> None:
        self.tensors, self.source = tensors, source

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def matrix(self, name: str) -> Tensor:
        """Return a tensor of two dimensions; raises InputError when it is missing or has others."""
        tensor = self._get(name)
        if tensor.dim() != 2:
            raise InputError(f"{self.source}: {name} has shape {tuple(tensor.shape)}, expected a matrix")
        return tensor

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor; raises InputError when it is missing or has another shape."""
        tensor = self._get(name)
        if tuple(tensor.shape) != shape:
            raise InputError(f"{self.source}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
        return tensor

    def _get(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise InputError(f"{self.source} has no tensor {name!r}; it holds {sorted(self.tensors)}")
        return self.tensors[name]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``; raises InputError when it is missing or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, got a {type(value).__name__}")
    return value


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in ``path``; raises InputError when it is missing or damaged."""
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot read {path} as safetensors: {error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, then rename: a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
