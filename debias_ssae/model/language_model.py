"""A Hugging Face model with its tokenizer, and where it can be hooked: found from how it is built, not by its name.

Hookpoints: ``embeddings`` (what enters the first block), ``blocks.{i}`` (residual stream after block i),
``blocks.{i}.attn`` and ``blocks.{i}.mlp`` (what the attention and the feed-forward part of block i add to the
stream, before any norm that follows), ``final`` (last hidden state as the base model returns it).
"""

import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from debias_ssae.core.device import hub_in_reach, lower_weights, pick_device, pick_dtype, resolve_model_name
from debias_ssae.core.errors import InputError
from debias_ssae.model.lowered import forget

_BLOCK = re.compile(r"blocks\.(\d+)(?:\.(attn|mlp))?")


class HookTarget(NamedTuple):
    """A module and whether its input or its output is the hookpoint's value."""

    module: nn.Module
    reads_input: bool


def find_blocks(module: nn.Module, n_blocks: int | None = None) -> nn.ModuleList:
    """Return the list of transformer blocks: the outermost ModuleList, of ``n_blocks`` entries if given.

    Raises InputError where there is none.
    """
    level: list[nn.Module] = [module]
    while level:
        for candidate in level:
            if (
                isinstance(candidate, nn.ModuleList)
                and len(candidate) > 0
                and (n_blocks is None or len(candidate) == n_blocks)
                and _attention(candidate[0]) is not None
            ):
                return candidate
        level = [child for parent in level for child in parent.children()]
    raise InputError(
        f"{type(module).__name__} holds no list of attention blocks to hook: give a transformer model"
    )


def hookpoint_names(blocks: nn.ModuleList) -> list[str]:
    """Return the valid hookpoints, in the order in which a forward pass reaches them."""
    names = ["embeddings"]
    for i, block in enumerate(blocks):
        if _attention(block) is not None:
            names.append(f"blocks.{i}.attn")
        if _mlp_output(block) is not None:
            names.append(f"blocks.{i}.mlp")
        names.append(f"blocks.{i}")
    return [*names, "final"]


def check_hookpoints(names: Sequence[str], valid: Sequence[str]) -> None:
    """Raise InputError for a name that is not in ``valid``, listing those that are."""
    for name in names:
        if name not in valid:
            raise InputError(f"Unknown hookpoint {name!r}: this model has {', '.join(valid)}")


def hook_target(base: nn.Module, blocks: nn.ModuleList, name: str) -> HookTarget:
    """Return the module to hook for the valid hookpoint ``name``."""
    if name == "embeddings":
        return HookTarget(blocks[0], reads_input=True)
    if name == "final":
        return HookTarget(base, reads_input=False)
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise InputError(f"Unknown hookpoint {name!r}")
    block = blocks[int(match[1])]
    if match[2] is None:
        return HookTarget(block, reads_input=False)
    part = _attention(block) if match[2] == "attn" else block
    target = _last_linear(part) if match[2] == "attn" and part is not None else _mlp_output(block)
    if target is None:
        raise InputError(f"Block {match[1]} has no {match[2]} part")
    return HookTarget(target, reads_input=False)


def _attention(block: nn.Module) -> nn.Module | None:
    """The child of a block that attends: its name says so in every family."""
    for name, child in _parts(block):
        if "att" in name.lower() and "norm" not in name.lower() and _last_linear(child) is not None:
            return child
    return None


def _mlp_output(block: nn.Module) -> nn.Module | None:
    """The feed-forward child as a whole where there is one, else the last linear layer outside attention."""
    for name, child in _parts(block):
        if re.search(r"mlp|feed_?forward|ffn|moe", name.lower()) and "norm" not in name.lower():
            return child
    found = None
    for name, child in _parts(block):
        if "att" not in name.lower():
            found = _last_linear(child) or found
    return found


def _parts(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a block by name; of a list of sublayers (T5's ``layer``), the sublayers' children."""
    for name, child in block.named_children():
        if isinstance(child, nn.ModuleList):
            for sublayer in child:
                yield from sublayer.named_children()
        else:
            yield name, child


def _last_linear(module: nn.Module) -> nn.Module | None:
    """The last linear layer registered in ``module``: in every family the one that writes to the stream."""
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear | Conv1D)]
    return linears[-1] if linears else None


@dataclass(frozen=True)
class LanguageModel:
    """A base model (no language-modelling head), its tokenizer, and where it can be hooked."""

    name: str
    revision: str
    module: nn.Module
    tokenizer: Any
    blocks: nn.ModuleList
    hookpoints: list[str]
    """Valid hookpoints, in the order of the forward pass."""
    d_model: int
    dtype: torch.dtype
    """Precision of matrix products; residual stream, norms and results are float32."""
    max_length: int
    """Longest sequence in tokens, special ones included."""

    def check_spans(self) -> None:
        """Raise InputError where the tokenizer does not say which characters a token is: words cannot be found then."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise InputError(
                f"the tokenizer of {self.name} ({type(self.tokenizer).__name__}) does not say where in the text its "
                "tokens stand, so no word can be found among them; use a model with a fast tokenizer, or labels"
            )

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @cached_property
    def accepts_use_cache(self) -> bool:
        """Whether forward takes use_cache: keys and values are never needed again here."""
        return "use_cache" in inspect.signature(self.module.forward).parameters

    @cached_property
    def is_causal(self) -> bool:
        """Whether no token attends to a later one, so that padding on the right needs no mask."""
        flags = [m.is_causal for block in self.blocks for m in block.modules() if hasattr(m, "is_causal")]
        return bool(flags) and all(flag is True for flag in flags)

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal id of name, revision, precision, weights and tokenizer; equal ids give equal rows."""
        digest = hashlib.sha256(f"{self.name}\0{self.revision}\0{self.dtype}".encode())
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        digest.update(self.tokenizer_sha256.encode())
        return digest.hexdigest()

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hexadecimal id of the tokenizer, whatever it was last asked to truncate or pad to."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        state: Any = repr(self.tokenizer)
        if backend is not None:
            state = {
                k: v for k, v in json.loads(backend.to_str()).items() if k not in ("truncation", "padding")
            }
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, d_model={self.d_model}, n_blocks={self.n_blocks}, {self.dtype})"


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load the base model ``name`` ("minilm", a directory or a hub id) for hooking.

    ``dtype`` "auto" multiplies in bfloat16 where the device is faster with it. Raises InputError when there is
    no such model or it cannot be hooked.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    path = resolve_model_name(name)
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    here = Path(path).exists()
    options["local_files_only"] = here or not hub_in_reach()
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        module = AutoModel.from_pretrained(path, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        if not here and options["local_files_only"]:
            reason = "the hub cannot be reached, and it is not in the local cache"
        raise InputError(
            f"Cannot load the model {name!r} ({reason}): give a hub id, a model's directory, or minilm"
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()
    return wrap_model(module.to(where), tokenizer, name=name, dtype=precision, revision=revision)


def wrap_model(
    module: nn.Module,
    tokenizer: Any,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
) -> LanguageModel:
    """Make a Hugging Face model in memory hookable; its linear weights take ``dtype`` in place.

    A model with a head gives its base model, an encoder-decoder its encoder. Raises InputError where no list
    of attention blocks is found. Wrap it again after a change of its weights through ``.data``.
    """
    module = getattr(module, "base_model", module)
    config: Any = module.config
    if getattr(config, "is_encoder_decoder", False):
        module = module.get_encoder()  # type: ignore[operator]
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    blocks = find_blocks(module, getattr(text_config, "num_hidden_layers", None))
    if dtype == torch.bfloat16:
        lower_weights(module)
    forget(module)
    module.eval().requires_grad_(False)
    return LanguageModel(
        name=name or str(getattr(config, "name_or_path", "") or type(module).__name__),
        revision=revision or str(getattr(config, "_commit_hash", None) or ""),
        module=module,
        tokenizer=tokenizer,
        blocks=blocks,
        hookpoints=hookpoint_names(blocks),
        d_model=int(text_config.hidden_size),
        dtype=dtype,
        max_length=_longest(module, text_config, tokenizer),
    )


def _longest(module: nn.Module, config: Any, tokenizer: Any) -> int:
    limits = [10**6, int(getattr(tokenizer, "model_max_length", 10**6))]
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions:
        limits.append(int(positions))
    for name, layer in module.named_modules():
        # some families (RoBERTa, MPNet) count positions from behind the padding index
        if (
            isinstance(layer, nn.Embedding)
            and "position_embeddings" in name
            and layer.padding_idx is not None
        ):
            limits.append(layer.num_embeddings - layer.padding_idx - 1)
    return min(limits)
