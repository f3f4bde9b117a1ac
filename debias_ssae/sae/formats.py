"""Sparse autoencoders on disk: SAELens's layout plus ssae.json, and other libraries' files."""

import json
import re
import warnings
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from debias_ssae.core.config import SAEConfig, make_config
from debias_ssae.core.device import resolve_model_name
from debias_ssae.core.errors import InputError, one_line
from debias_ssae.core.io import (
    as_json,
    read_bytes,
    read_json,
    read_tensors,
    seal,
    writable_directory,
    write_bytes,
)
from debias_ssae.sae.foreign_formats import READERS, TensorReader, detect_format
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
    directory, cfg, about = writable_directory(directory), sae.cfg, as_json(metadata or {})
    tensors = {"W_enc": sae.W_enc.T, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
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
        "metadata": {"sae_lens_version": SAELENS_VERSION, **about},
    }
    if name == "topk":
        described |= {"k": cfg.k, "rescale_acts_by_decoder_norm": False}
    weights = save({key: _plain(value) for key, value in tensors.items()})
    ours = {
        "debias_ssae_version": version("debias-ssae"),
        "cfg": cfg.model_dump(mode="json"),
        "cfg_sha256": seal(cfg.model_dump(mode="json")),
        "fingerprint": sae.fingerprint(),
        "weights_sha256": sha256(weights).hexdigest(),
        "metadata": about,
    }
    write_bytes(directory / WEIGHTS, weights)
    write_bytes(directory / CONFIG, json.dumps(described, indent=1).encode())
    write_bytes(directory / OURS, json.dumps(ours, indent=1).encode())


def load_sae(
    path: str | Path, *, model: str | None = None, hookpoint: str | None = None
) -> SparseAutoencoder:
    """Read a sparse autoencoder: this package's directory, or another library's files.

    Known: SAELens (inference and training directories), dictionary_learning (directory or .pt),
    sparsify, Gemma Scope (params.npz), Llama Scope. All become the same module; the differences of the
    formats (scales, decoder norms, gates) are folded into the weights. With ``model`` and
    ``hookpoint``, where it is to be used, a UserWarning says when the files name others.

    Raises InputError when files are missing, damaged, of wrong shapes, of an unknown architecture, or hold
    anything but tensors (nothing is ever executed).
    """
    path = Path(path)
    kind = "ours" if (path / OURS).exists() else detect_format(path)
    try:
        sae = _load_native(path) if kind == "ours" else READERS[kind](path)
    except InputError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # values of files that no reader foresaw
        raise InputError(f"{path} cannot be read as an SAE ({kind}): {one_line(error)}") from error
    _check_origin(path, model=model, hookpoint=hookpoint)
    return sae


def _check_origin(path: Path, *, model: str | None, hookpoint: str | None) -> None:
    """Warn where the files name another model or place than the one it is to be used at."""
    about = load_metadata(path)
    said, named = about.get("model_name"), about.get("hook_name")
    differs = []
    if hookpoint is not None and isinstance(named, str) and _place(named) not in ("", hookpoint):
        differs.append(f"hookpoint {named!r}, not {hookpoint!r}")
    if model is not None and isinstance(said, str) and said and not _same_model(said, model):
        differs.append(f"model {said!r}, not {model!r}")
    if differs:
        warnings.warn(
            f"{path} says that it was trained on {' and on '.join(differs)}: its latents mean nothing elsewhere. Give "
            "the SAE of this model and hookpoint",
            UserWarning,
            stacklevel=3,
        )


def _place(hook_name: str) -> str:
    """Return our hookpoint for TransformerLens's name of it; others stay as they are."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_(resid_post|resid_pre|mlp_out|attn_out)", hook_name)
    if found is None:
        return "embeddings" if hook_name == "hook_embed" else hook_name
    block, kind = int(found[1]), found[2]
    if kind == "resid_pre":
        return f"blocks.{block - 1}" if block else "embeddings"
    return f"blocks.{block}" + {"resid_post": "", "mlp_out": ".mlp", "attn_out": ".attn"}[kind]


def _same_model(said: str, model: str) -> bool:
    """Whether two names may mean one model: the last part of one stands somewhere in the other."""
    one, other = resolve_model_name(said), resolve_model_name(model)
    plain = ["".join(filter(str.isalnum, name.lower())) for name in (one, other)]
    last = ["".join(filter(str.isalnum, Path(name).name.lower())) for name in (one, other)]
    return last[0] in plain[1] or last[1] in plain[0]


def load_metadata(path: str | Path) -> dict[str, Any]:
    """Return what ``save_sae`` was given as metadata, or SAELens's; empty for other files."""
    for name in (OURS, CONFIG):
        file = Path(path) / name
        if file.exists():
            found = read_json(file).get("metadata")
            return found if isinstance(found, dict) else {}
    return {}


def _load_native(path: Path) -> SparseAutoencoder:
    ours, weights = read_json(path / OURS), path / WEIGHTS
    described = ours.get("cfg")
    if not isinstance(described, dict) or ours.get("cfg_sha256") not in (None, seal(described)):
        raise InputError(f"{path / OURS} is damaged: its cfg is not what was written; save the SAE again")
    cfg = make_config(SAEConfig, described, str(path / OURS))
    data = read_bytes(weights)
    if ours.get("weights_sha256") not in (None, sha256(data).hexdigest()):  # older files do not tell
        raise InputError(
            f"{weights} is not what {OURS} describes: saving was interrupted, or a file was changed; "
            "save the SAE again"
        )
    take = TensorReader(read_tensors(weights, data), weights)
    # shapes are compared before anything of the described size is made
    W_enc, W_dec = take("W_enc", (cfg.d_in, cfg.d_sae)), take("W_dec", (cfg.d_sae, cfg.d_in))
    sae = SparseAutoencoder(cfg, random_state=0)
    with torch.no_grad():
        sae.W_enc.copy_(W_enc.T)
        sae.b_enc.copy_(take("b_enc", (cfg.d_sae,)))
        sae.W_dec.copy_(W_dec)
        sae.b_dec.copy_(take("b_dec", (cfg.d_in,)))
        if SAELENS_NAMES[cfg.architecture] == "jumprelu":
            threshold = take("threshold", (cfg.d_sae,))
            sae.threshold.copy_(threshold if cfg.architecture == "jumprelu" else threshold[0])
    return sae


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()
