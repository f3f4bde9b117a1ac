"""Where the hookpoints of a transformer are, found from how it is built and not from its family's name.

Hookpoints: ``embeddings`` (what enters the first block), ``blocks.{i}`` (residual stream after block i),
``blocks.{i}.attn`` and ``blocks.{i}.mlp`` (what the attention and the feed-forward part of block i add to the
stream, before any norm that follows), ``final`` (last hidden state as the base model returns it).
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn
from transformers.pytorch_utils import Conv1D

from debias_ssae.core.errors import InputError

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
