"""Readers of other libraries' sparse autoencoders.

Each states its library's formula and folds it into ours, ``x_hat = act((x - b_dec) W_enc' + b_enc) W_dec +
b_dec``, in float64 where two of its tensors meet.
"""

import math
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError, brief, one_line
from debias_ssae.core.io import read_bytes, read_json, read_tensors, refuse_pointer
from debias_ssae.sae.model import SparseAutoencoder

MOST_DEFLATED = 1032
"""Bytes that a byte of deflate can stand for at most."""


class TensorReader:
    """Hands out tensors by name, checking that they are there and have the expected shape."""

    def __init__(self, tensors: dict[str, Tensor], source: Path) -> None:
        self.tensors, self.source = tensors, source
        self.taken: set[str] = set()

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

    def parts(
        self, architecture: str, encoder: str, b_enc: str | None, decoder: str, b_dec: str, **others: Any
    ) -> "Parts":
        """Return the parts of these names; a layer's ``.weight`` is [out, in], any other matrix [in, out].

        Raises InputError when one is missing or has another shape.
        """
        W_enc = self.matrix(encoder)
        W_enc = W_enc if encoder.endswith(".weight") else W_enc.T
        d_sae, d_in = W_enc.shape
        bias = torch.zeros(d_sae) if b_enc is None else self(b_enc, (d_sae,))
        is_layer = decoder.endswith(".weight")
        W_dec = self(decoder, (d_in, d_sae)).T if is_layer else self(decoder, (d_sae, d_in))
        return Parts(architecture, W_enc, bias, W_dec, self(b_dec, (d_in,)), **others)

    def refuse_others(self, *known: str) -> None:
        """Raise InputError when there are tensors that were not taken and are not ``known``: they mean something."""
        others = sorted(set(self.tensors) - self.taken - set(known))
        if others:
            raise InputError(
                f"{self.source} holds {brief(others)}, which this package does not know and without which the "
                "SAE would be another. Convert it with the library that wrote it"
            )

    def _get(self, name: str) -> Tensor:
        self.taken.add(name)
        if name not in self.tensors:
            raise InputError(
                f"{self.source} has no tensor {name!r}; it holds {one_line(sorted(self.tensors))}"
            )
        return self.tensors[name]


@dataclass
class Parts:
    """Another library's SAE in its own terms."""

    architecture: str
    W_enc: Tensor
    """[d_sae, d_in]"""
    b_enc: Tensor
    W_dec: Tensor
    """[d_sae, d_in]"""
    b_dec: Tensor
    threshold: Tensor | float = 0.0
    k: int | None = None
    widths: tuple[int, ...] = ()
    centres_input: bool = True
    """Whether b_dec is taken off the input."""
    counts_norm: bool = False
    """Whether latents are multiplied with the norm of their row of W_dec as it is here, and divided by it when
    decoding."""
    input_scale: float = 1.0
    """What rows are multiplied with on the way in."""
    output_scale: float = 1.0
    """What reconstructions are divided by on the way out."""

    def build(self, source: Path) -> SparseAutoencoder:
        """Return our module for it; raises InputError when the values make no sense."""
        d_sae, d_in = self.W_enc.shape
        dtype = "float64" if self.W_enc.dtype == torch.float64 else "float32"
        known = {} if self.k is None else {"k": self.k}
        values = {"architecture": self.architecture, "d_in": d_in, "d_sae": d_sae, "widths": self.widths}
        try:
            cfg = SAEConfig(**values, **known, dtype=dtype)  # type: ignore[arg-type]
        except ValidationError as error:
            raise InputError(f"{source}: {one_line('; '.join(e['msg'] for e in error.errors()))}") from error
        W_enc, W_dec = self.W_enc.double() * self.input_scale, self.W_dec.double() / self.output_scale
        b_enc, b_dec = self.b_enc.double(), self.b_dec.double() / self.output_scale
        if not self.centres_input:
            b_enc = b_enc + W_enc @ b_dec
        if self.counts_norm:
            norm = self.W_dec.double().norm(dim=1, keepdim=True).clamp_min(1e-30)
            W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm.squeeze(1), W_dec / norm
        sae = SparseAutoencoder(cfg, random_state=0)
        with torch.no_grad():
            for parameter, value in zip(
                (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec), (W_enc, b_enc, W_dec, b_dec), strict=True
            ):
                parameter.copy_(value)
            sae.threshold.copy_(torch.as_tensor(self.threshold))
        if not all(bool(torch.isfinite(value).all()) for value in sae.state_dict().values()):
            raise InputError(f"{source} holds NaN or infinity")
        return sae


def detect_format(path: Path) -> str:
    """Return the format's name by the files that are there; raises InputError when none fits."""
    if path.suffix == ".pt" and path.is_file():
        return "dictionary_learning"
    if path.suffix == ".npz" or (path / "params.npz").is_file():
        return "gemma_scope"
    marks = {
        "sae_weights.safetensors": "saelens",
        "sae.safetensors": "sparsify",
        "ae.pt": "dictionary_learning",
        "hyperparams.json": "llama_scope",
        "cfg.json": "saelens",
    }
    for name, kind in marks.items():
        if (path / name).is_file():
            return kind
    raise InputError(
        f"{path} is no sparse autoencoder that this package knows: expected a directory with one of "
        f"{', '.join(marks)}, or a params.npz or .pt file"
    )


def read_saelens(path: Path) -> SparseAutoencoder:
    """SAELens's directory: ``relu|topk|jumprelu|gated((x - b_dec) W_enc + b_enc) W_dec + b_dec``.

    b_dec is taken off the input if apply_b_dec_to_input. Training directories of batchtopk and matryoshka
    hold topk_threshold. Gated is a jumprelu of the magnitudes.
    """
    cfg = read_json(path / "cfg.json")
    take = _safetensors(path / "sae_weights.safetensors")
    architecture = _saelens_architecture(cfg, path)
    names = {
        "standard": "relu",
        "topk": "topk",
        "jumprelu": "jumprelu",
        "gated": "jumprelu",
        "batchtopk": "batchtopk",
        "matryoshka_batchtopk": "matryoshka",
    }
    if architecture not in names:
        raise InputError(
            f"{path / 'cfg.json'}: unknown architecture {brief(architecture)}; known: {sorted(names)}"
        )
    normalisation = cfg.get("normalize_activations") or "none"
    if normalisation == "expected_average_only_in":
        warnings.warn(
            f"{path} expects rows scaled to a mean norm of sqrt(d_in); the scale is not in its files",
            UserWarning,
            stacklevel=3,
        )
    elif normalisation != "none":
        raise InputError(
            f"{path / 'cfg.json'}: normalize_activations={brief(normalisation)} is not supported; none is"
        )
    parts = take.parts(
        names[architecture],
        "W_enc",
        None if architecture == "gated" else "b_enc",
        "W_dec",
        "b_dec",
        k=_saelens_k(cfg, path) if architecture == "topk" else cfg.get("k"),
        centres_input=bool(cfg.get("apply_b_dec_to_input", True)),
        counts_norm=bool(cfg.get("rescale_acts_by_decoder_norm", False)),
    )
    d_sae, d_in = parts.W_enc.shape
    for name, there in (("d_in", d_in), ("d_sae", d_sae)):
        if cfg.get(name, there) != there:
            raise InputError(f"{path}: cfg.json says {name}={brief(cfg[name])}, the weights have {there}")
    if architecture == "jumprelu":
        parts.threshold = take("threshold", (d_sae,))
    elif architecture == "gated":
        _gate(parts, *(take(name, (d_sae,)) for name in ("r_mag", "b_mag", "b_gate")))
    elif architecture in ("batchtopk", "matryoshka_batchtopk"):
        parts.threshold = take("topk_threshold", ())
        parts.k = int(parts.k or 1)
        parts.widths = tuple(cfg.get("matryoshka_widths") or ())
        if parts.widths and parts.widths[-1] != d_sae:
            parts.widths = (*parts.widths, d_sae)
    for name in ("finetuning_scaling_factor", "scaling_factor"):
        # versions before 6: what latents are multiplied with before they are decoded
        if name in take:
            factor = take(name, (d_sae,))
            if not cfg.get("finetuning_scaling_factor") and not bool((factor == 1).all()):
                raise InputError(f"{path} holds {name}, but cfg.json does not say that it is used")
            parts.W_dec = parts.W_dec * factor.unsqueeze(1)
    take.refuse_others("b_enc", "sparsity", "log_feature_sparsity")
    return parts.build(path)


def _saelens_architecture(cfg: dict[str, Any], path: Path) -> str:
    """Before version 6 the activation function has a field of its own, and makes a standard SAE a topk one."""
    architecture = str(cfg.get("architecture", "standard"))
    activation = str(cfg.get("activation_fn") or cfg.get("activation_fn_str") or "relu")
    if architecture != "standard" or activation == "relu":
        return architecture
    if activation != "topk":
        raise InputError(
            f"{path / 'cfg.json'}: activation_fn={brief(activation)} is not supported; relu and topk are"
        )
    return "topk"


def _saelens_k(cfg: dict[str, Any], path: Path) -> int:
    """Return topk's k, which versions before 6 keep among the arguments of the activation function."""
    for place in (cfg, cfg.get("activation_fn_kwargs") or {}):
        if place.get("k") is not None:
            return int(place["k"])
    raise InputError(f"{path / 'cfg.json'} has no k, neither by itself nor in activation_fn_kwargs")


def _gate(parts: Parts, r_mag: Tensor, b_mag: Tensor, b_gate: Tensor) -> None:
    """Make gated latents jumprelu ones.

    With z = x W: a latent is exp(r) z + b_mag, if above 0 and z + b_gate > 0; the latter says that the latent
    is above b_mag - exp(r) b_gate.
    """
    gain = r_mag.double().exp()
    shift = parts.b_enc.double()
    parts.W_enc = parts.W_enc.double() * gain.unsqueeze(1)
    parts.b_enc = b_mag.double() + gain * shift
    parts.threshold = (b_mag.double() - gain * b_gate.double()).clamp_min(0.0)
    parts.W_enc = parts.W_enc.to(b_mag.dtype)


def read_dictionary_learning(path: Path) -> SparseAutoencoder:
    """dictionary_learning's ``ae.pt``, each of its classes by the tensors in it, and its mid-run backup.

    The backup's SAE is in normalised units; its norm_factor brings the biases back.
    """
    file = path if path.is_file() else path / "ae.pt"
    saved = _torch_file(file)
    factor = 1.0
    if isinstance(saved.get("ae"), dict):
        factor = float(saved.get("norm_factor") or 1.0)
        saved = saved["ae"]
    tensors = {name: value for name, value in saved.items() if isinstance(value, Tensor)}
    take = TensorReader(_floats(tensors, file), file)
    if "W_enc" in take:
        parts = _dictionary_learning_matrices(take)
    elif "encoder.weight" in take:
        parts = _dictionary_learning_layers(take)
    else:
        raise InputError(
            f"{file} is no class of dictionary_learning that is known; it holds {sorted(tensors)}"
        )
    take.refuse_others("threshold")  # that of topk is not used
    if factor != 1.0:
        parts.b_enc, parts.b_dec = parts.b_enc * factor, parts.b_dec * factor
        parts.threshold = torch.as_tensor(parts.threshold) * factor
    return parts.build(file)


def _dictionary_learning_matrices(take: TensorReader) -> Parts:
    """MatryoshkaBatchTopKSAE and JumpReluAutoEncoder; the latter does not take b_dec off its input."""
    parts = take.parts("jumprelu", "W_enc", "b_enc", "W_dec", "b_dec", centres_input="group_sizes" in take)
    if parts.centres_input:
        sizes = take.tensors["group_sizes"]
        widths = tuple(int(size) for size in take("group_sizes", (len(sizes),)).cumsum(0))
        threshold = take("threshold", ()).clamp_min(0.0)
        return replace(
            parts, architecture="matryoshka", threshold=threshold, k=int(take("k", ())), widths=widths
        )
    return replace(parts, threshold=take("threshold", (len(parts.b_enc),)))


def _dictionary_learning_layers(take: TensorReader) -> Parts:
    """AutoEncoder, AutoEncoderNew, GatedAutoEncoder, AutoEncoderTopK and BatchTopKSAE."""
    if "gate_bias" in take:
        parts = take.parts("jumprelu", "encoder.weight", None, "decoder.weight", "decoder_bias")
        _gate(parts, *(take(name, (len(parts.b_enc),)) for name in ("r_mag", "mag_bias", "gate_bias")))
        return parts
    layers = partial(take.parts, encoder="encoder.weight", b_enc="encoder.bias", decoder="decoder.weight")
    if "decoder.bias" in take:
        return layers("relu", b_dec="decoder.bias", centres_input=False)
    if "bias" in take:
        return layers("relu", b_dec="bias")
    k, threshold = int(take("k", ())), take("threshold", ())
    config = take.source.parent / "config.json"
    trainer = read_json(config).get("trainer") if config.exists() else None
    named = trainer.get("dict_class") if isinstance(trainer, dict) else None
    # the two classes hold the same tensors; without a config, a threshold that was trained says which
    is_topk = named == "AutoEncoderTopK" or (named != "BatchTopKSAE" and float(threshold) < 0)
    if is_topk:
        return layers("topk", b_dec="b_dec", k=k)
    return layers("batchtopk", b_dec="b_dec", k=k, threshold=threshold.clamp_min(0.0))


def read_sparsify(path: Path) -> SparseAutoencoder:
    """sparsify's directory: ``topk(relu((x - b_dec) W_enc + b_enc)) W_dec + b_dec``."""
    cfg = read_json(path / "cfg.json")
    for name in ("transcode", "skip_connection"):
        if cfg.get(name):
            raise InputError(f"{path}: {name} is set; a transcoder is no autoencoder and cannot be used here")
    if cfg.get("activation", "topk") != "topk":
        raise InputError(
            f"{path}: unknown architecture, activation {brief(cfg['activation'])}; known: ['topk']"
        )
    take = _safetensors(path / "sae.safetensors")
    parts = take.parts("topk", "encoder.weight", "encoder.bias", "W_dec", "b_dec", k=int(cfg.get("k", 32)))
    take.refuse_others()
    return parts.build(path)


_NPZ_FAULTS = (
    OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What damaged archives and arrays raise; one that claims terabytes is a MemoryError."""


def read_gemma_scope(path: Path) -> SparseAutoencoder:
    """Gemma Scope's params.npz: ``pre = x W_enc + b_enc; f = pre (pre > threshold); f W_dec + b_dec``.

    SAEs of the embedding (by the name of their folder) were trained on rows divided by sqrt(d_in).
    """
    file = path if path.is_file() else path / "params.npz"
    arrays = _npz(file)
    named = {("W_" + name[2:] if name.startswith("w_") else name): value for name, value in arrays.items()}
    take = TensorReader(_floats(named, file), file)
    if "scaling_factor" in take and not bool((take.tensors["scaling_factor"] == 1).all()):
        raise InputError(f"{file} has a scaling_factor other than 1, which is not supported")
    parts = take.parts("jumprelu", "W_enc", "b_enc", "W_dec", "b_dec", centres_input=False)
    parts.threshold = take("threshold", (len(parts.b_enc),))
    take.refuse_others("scaling_factor")
    if any("embedding" in part for part in file.parts[-4:-1]):
        scale = math.sqrt(len(parts.b_dec))
        parts.W_enc, parts.W_dec = parts.W_enc / scale, parts.W_dec * scale
    return parts.build(file)


def read_llama_scope(path: Path) -> SparseAutoencoder:
    """Llama Scope's directory: one threshold, on rows scaled to a mean norm of sqrt(d_in).

    With sparsity_include_decoder_norm, which is its library's default, a latent is on where it is above the
    threshold after multiplication with the norm of its decoder row.
    """
    cfg = read_json(path / "hyperparams.json")
    take = _safetensors(path / "checkpoints" / "final.safetensors")
    parts = take.parts(
        "jumprelu", "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias", centres_input=False
    )
    scale = math.sqrt(len(parts.b_dec))
    try:
        norms = cfg["dataset_average_activation_norm"]
        parts.input_scale = scale / float(norms["in"])
        parts.output_scale = scale / float(norms.get("out", norms["in"]))
        parts.counts_norm = bool(cfg.get("sparsity_include_decoder_norm", True))
        parts.threshold = float(cfg["jump_relu_threshold"]) * (
            1.0 if parts.counts_norm else parts.input_scale
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path / 'hyperparams.json'}: bad or missing {error}") from error
    take.refuse_others()
    return parts.build(path)


READERS: dict[str, Callable[[Path], SparseAutoencoder]] = {
    "saelens": read_saelens,
    "dictionary_learning": read_dictionary_learning,
    "sparsify": read_sparsify,
    "gemma_scope": read_gemma_scope,
    "llama_scope": read_llama_scope,
}


def _safetensors(file: Path) -> TensorReader:
    return TensorReader(_floats(read_tensors(file), file), file)


def _floats(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Half precision becomes float32; float64 and integers stay. A tensor may not claim more than its bytes."""
    for name, value in tensors.items():
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_complex()
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{source}: {brief(name)} is no plain tensor of its own size")
    half = (torch.float16, torch.bfloat16)
    return {name: value.float() if value.dtype in half else value for name, value in tensors.items()}


def _npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an npz file; raises InputError for one that claims more than the file can hold."""
    try:
        data = read_bytes(path)
        refuse_pointer(path, data)
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for entry in archive.infolist():
                _check_claim(archive, entry)
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except _NPZ_FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"Cannot read {path} as arrays: {one_line(error) or type(error).__name__}"
        ) from error


def _check_claim(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Compare what an array's header claims with the bytes that are there, before anything is allocated."""
    if entry.file_size > MOST_DEFLATED * max(entry.compress_size, 1):
        raise ValueError(f"{brief(entry.filename)} claims {entry.file_size} bytes")
    with archive.open(entry) as file:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{brief(entry.filename)} claims shape {brief(shape)}, more than the file holds")


def _torch_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            refuse_pointer(path, file.read(8))
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler's own errors and whatever damaged bytes cause in it
        if isinstance(error, InputError):
            raise
        reason = one_line(error) or type(error).__name__
        raise InputError(f"{path} does not hold plain tensors and is not loaded: {reason}") from error
    if not isinstance(saved, dict):
        raise InputError(f"{path} must hold named tensors, got a {type(saved).__name__}")
    return saved
