"""Sparse autoencoders on disk: SAELens's layout, plus ssae.json for what is ours."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from debias_ssae.config import SAEConfig
from debias_ssae.exceptions import InputError
from debias_ssae.sae.model import SparseAutoencoder

WEIGHTS, CONFIG, OURS = "sae_weights.safetensors", "cfg.json", "ssae.json"
SAELENS_NAMES = {
    "relu": "standard",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
    "matryoshka": "jumprelu",
}
"""With its threshold fixed, a batchtopk or matryoshka SAE is a jumprelu one; SAELens does the same."""
SAELENS_VERSION = "6.54.12"
"""Configurations of version 6 or later are read as they are; older ones SAELens rewrites."""


def save_sae(
    sae: SparseAutoencoder, directory: str | Path, *, metadata: dict[str, Any] | None = None
) -> None:
    """Write cfg.json, sae_weights.safetensors (SAELens reads both) and ssae.json; each file atomically.

    ``metadata`` (JSON values) may hold model_name, hook_name and the like, which SAELens knows, and your own.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    cfg = sae.cfg
    tensors = {
        "W_enc": sae.W_enc.T,
        "b_enc": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    name = SAELENS_NAMES[cfg.architecture]
    if name == "jumprelu":
        tensors["threshold"] = sae.threshold.expand(cfg.d_sae)
    described = {
        "architecture": name,
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": cfg.dtype,
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": SAELENS_VERSION, **(metadata or {})},
    }
    if name == "topk":
        described |= {"k": cfg.k, "rescale_acts_by_decoder_norm": False}
    ours = {
        "debias_ssae_version": version("debias-ssae"),
        "cfg": cfg.model_dump(mode="json"),
        "fingerprint": sae.fingerprint(),
        "metadata": metadata or {},
    }
    data = save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
    write_atomically(directory / WEIGHTS, data)
    write_atomically(directory / CONFIG, json.dumps(described, indent=1).encode())
    write_atomically(directory / OURS, json.dumps(ours, indent=1).encode())


def load_sae(path: str | Path) -> SparseAutoencoder:
    """Read a sparse autoencoder from its directory.

    Raises InputError when files are missing, damaged, of wrong shapes or of an unknown architecture.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a directory; give the folder that holds {CONFIG} and {WEIGHTS}")
    tensors = read_safetensors(path / WEIGHTS)
    described = read_json(path / CONFIG)
    ours = read_json(path / OURS) if (path / OURS).exists() else None
    cfg = _config(described if ours is None else ours.get("cfg", {}), path, native=ours is not None)
    take = TensorReader(tensors, path / WEIGHTS)
    sae = SparseAutoencoder(cfg, random_state=0)
    with torch.no_grad():
        sae.W_enc.copy_(take("W_enc", (cfg.d_in, cfg.d_sae)).T)
        sae.b_enc.copy_(take("b_enc", (cfg.d_sae,)))
        sae.W_dec.copy_(take("W_dec", (cfg.d_sae, cfg.d_in)))
        sae.b_dec.copy_(take("b_dec", (cfg.d_in,)))
        if SAELENS_NAMES[cfg.architecture] == "jumprelu":
            threshold = take("threshold", (cfg.d_sae,))
            sae.threshold.copy_(threshold if cfg.architecture == "jumprelu" else threshold[0])
    return sae


class TensorReader:
    """Hands out tensors by name, checking that they are there and have the expected shape."""

    def __init__(self, tensors: dict[str, Tensor], source: Path) -> None:
        self.tensors, self.source = tensors, source

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor; raises InputError when it is missing or has another shape."""
        if name not in self.tensors:
            raise InputError(f"{self.source} has no tensor {name!r}; it holds {sorted(self.tensors)}")
        tensor = self.tensors[name]
        if tuple(tensor.shape) != shape:
            raise InputError(f"{self.source}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
        return tensor


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


def _config(values: dict[str, Any], path: Path, *, native: bool) -> SAEConfig:
    if not native:
        names = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
        architecture = values.get("architecture")
        if architecture not in names:
            raise InputError(
                f"{path / CONFIG}: architecture {architecture!r} is unknown; known: {sorted(names)}"
            )
        known: dict[str, Any] = {key: values[key] for key in ("d_in", "d_sae", "k") if key in values}
        values = {**known, "architecture": names[architecture]}
    try:
        return SAEConfig(**values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path / (OURS if native else CONFIG)}: {faults}") from error
