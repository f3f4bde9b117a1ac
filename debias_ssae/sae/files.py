"""Tensors of an SAE's file, by name and shape."""

from pathlib import Path

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
