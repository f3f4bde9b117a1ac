"""One forward pass with hooks: read some hookpoints, edit others, stop after the last one needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from debias_ssae.core.errors import InputError
from debias_ssae.model.batching import token_batches
from debias_ssae.model.language_model import LanguageModel
from debias_ssae.model.lowered import lowered
from debias_ssae.model.structure import HookTarget, check_hookpoints, hook_target
from debias_ssae.model.tokens import TokenizedTexts

Edit = Callable[[Tensor], Tensor]
"""Rows [n, d] of real tokens, float32, to rows of the same shape."""


class _StopForwardError(Exception):
    """Raised in a hook: everything wanted has been read."""


@dataclass
class Batch:
    """Padded sequences and, after the pass, the hidden states read."""

    sequences: NDArray[np.int64]
    """Their numbers in the TokenizedTexts."""
    ids: Tensor
    attention: Tensor
    real: Tensor
    """[b, t] True for tokens that are neither padding nor special."""
    states: dict[str, Tensor] = field(default_factory=dict)
    """Hookpoint to [b, t, d]."""


def iter_states(
    model: LanguageModel,
    tokens: TokenizedTexts,
    hookpoints: Sequence[str],
    *,
    edits: Mapping[str, Edit] | None = None,
    token_budget: int = 2048,
) -> Iterator[Batch]:
    """Yield batches, longest sequences first, with the states of ``hookpoints`` after the ``edits``.

    An edit sees the real tokens' rows only. Raises InputError for an unknown hookpoint, and for an edit that
    comes after the last hookpoint read and so would change nothing.
    """
    edits = dict(edits or {})
    last_hookpoint(model, hookpoints, edits)
    for sequences in token_batches(tokens.lengths, token_budget):
        batch = make_batch(model, tokens, sequences)
        run_batch(model, batch, hookpoints, edits)
        yield batch


def last_hookpoint(model: LanguageModel, hookpoints: Sequence[str], edits: Mapping[str, Edit]) -> str:
    """Return where the pass may stop. Raises InputError for an unknown hookpoint or an edit behind that."""
    check_hookpoints([*hookpoints, *edits], model.hookpoints)
    order = {name: i for i, name in enumerate(model.hookpoints)}
    last = max(hookpoints, key=order.__getitem__)
    for name in edits:
        if order[name] > order[last]:
            raise InputError(
                f"The edit at {name} comes after {last}, the last hookpoint read: it would do nothing"
            )
    return last


def run_batch(
    model: LanguageModel,
    batch: Batch,
    hookpoints: Sequence[str],
    edits: Mapping[str, Edit],
    *,
    with_grad: bool = False,
) -> None:
    """Run the model once and leave the states of ``hookpoints`` in ``batch.states``. Hooks do not outlive it."""
    last = last_hookpoint(model, hookpoints, edits)
    hooks = _hooks(model, hookpoints, edits, last, batch)
    with torch.set_grad_enabled(with_grad), hooks, lowered(model.device, model.dtype):
        # without a mask attention takes its fast causal path; what padding gives is never read
        mask = None if model.is_causal else batch.attention
        kwargs = {"use_cache": False} if model.accepts_use_cache else {}
        with suppress(_StopForwardError):
            model.module(input_ids=batch.ids, attention_mask=mask, **kwargs)


def make_batch(model: LanguageModel, tokens: TokenizedTexts, sequences: NDArray[np.int64]) -> Batch:
    """Return the ``sequences`` padded to the longest of them, on the model's device."""
    starts, lengths = tokens.starts[sequences], tokens.lengths[sequences]
    columns = np.arange(int(lengths.max()))
    inside = columns[None, :] < lengths[:, None]
    flat = np.where(inside, starts[:, None] + columns[None, :], 0)
    pad = model.tokenizer.pad_token_id
    ids = np.where(inside, tokens.ids[flat], 0 if pad is None else pad)
    real = inside & ~tokens.special[flat]
    device = model.device
    return Batch(
        sequences,
        ids=torch.from_numpy(ids).to(device),
        attention=torch.from_numpy(inside.astype(np.int64)).to(device),
        real=torch.from_numpy(real).to(device),
    )


@contextmanager
def _hooks(
    model: LanguageModel, hookpoints: Sequence[str], edits: Mapping[str, Edit], last: str, batch: Batch
) -> Iterator[None]:
    with ExitStack() as stack:
        for name in model.hookpoints:
            if name not in hookpoints and name not in edits:
                continue

            def visit(value: Tensor, name: str = name) -> Tensor:
                # OPT's feed-forward part sees [b * t, d], Longformer's blocks padding of its own behind
                whole = value.view(*batch.real.shape, value.shape[-1]) if value.dim() == 2 else value
                t = batch.real.shape[1]
                hidden = whole[:, :t]
                if hidden.shape[-1] != model.d_model:
                    raise InputError(
                        f"{name} of {model.name} gives rows of width {hidden.shape[-1]}, not {model.d_model}; "
                        "name another hookpoint or layer"
                    )
                if name in edits:
                    hidden = _apply(edits[name], hidden, batch.real, name)
                if name in hookpoints:
                    batch.states[name] = hidden
                if name == last:
                    raise _StopForwardError
                if whole.shape[1] > t:
                    hidden = torch.cat([hidden, whole[:, t:]], dim=1)
                return hidden.view_as(value)

            stack.callback(_register(hook_target(model.module, model.blocks, name), visit).remove)
        yield


def _register(target: HookTarget, visit: Callable[[Tensor], Tensor]) -> Any:
    if target.reads_input:

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (visit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": visit(kwargs["hidden_states"])}

        return target.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return visit(output)
        if isinstance(output, tuple):
            return (visit(output[0]), *output[1:])
        output["last_hidden_state"] = visit(output["last_hidden_state"])
        return output

    return target.module.register_forward_hook(after)


def _apply(edit: Edit, hidden: Tensor, real: Tensor, name: str) -> Tensor:
    # the edit's own matrix products must not be lowered by the pass's autocast
    with torch.autocast(hidden.device.type, enabled=False):
        rows = hidden[real]
        edited = edit(rows.float())
        if edited.shape != rows.shape:
            shapes = f"{tuple(rows.shape)} to {tuple(edited.shape)}"
            raise InputError(f"The edit at {name} changed the shape of its rows from {shapes}")
        changed = hidden.clone()
        changed[real] = edited.to(hidden.dtype)
    return changed
