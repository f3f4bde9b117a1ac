"""One pass: texts to tokens, tokens to batches of like length, a batch through the model with hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from debias_ssae.core.device import plain_precision
from debias_ssae.core.errors import InputError, is_lack_of_memory
from debias_ssae.model.language_model import HookTarget, LanguageModel, check_hookpoints, lock_of
from debias_ssae.model.readout import first_of, with_first
from debias_ssae.text.checks import check_texts

Edit = Callable[[Tensor], Tensor]
"""Rows [n, d] of real tokens, float32, to rows of the same shape."""


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts laid end to end; text i owns tokens starts[i]:starts[i + 1]."""

    ids: NDArray[np.int64]
    special: NDArray[np.bool_]
    """True where the tokenizer added the token or it is a special one (the unknown one is real)."""
    spans: NDArray[np.int64]
    """Start and end character of each token in its text; zeros where the tokenizer does not know."""
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, special ones included."""
        return np.diff(self.starts)

    @property
    def text_ids(self) -> NDArray[np.int64]:
        """Numbers of the texts."""
        return np.arange(len(self.lengths))


def clean_texts(texts: Sequence[str]) -> list[str]:
    """Return :func:`check_texts` as a tokenizer can read them: lone surrogates become "?"."""
    checked = check_texts(texts, may_be_empty=True)
    return [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in checked]


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int, *, prompt: str = "") -> TokenizedTexts:
    """Tokenise ``texts`` with special tokens, at most ``max_length`` tokens a text; what is longer is cut off.

    ``prompt`` stands in front of every text; its tokens count as special, and spans are in the text without it.
    """
    if not texts:
        empty = np.zeros(0, np.int64)
        return TokenizedTexts(empty, empty.astype(bool), empty.reshape(0, 2), np.zeros(1, np.int64))
    fast = bool(getattr(tokenizer, "is_fast", False))
    with lock_of(tokenizer):  # where it cuts is a state of its own, which threads share
        out = tokenizer(
            [prompt + text for text in texts] if prompt else list(texts),
            add_special_tokens=True,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_special_tokens_mask=True,
            return_offsets_mapping=fast,
        )
    lengths = [len(ids) for ids in out["input_ids"]]
    n = sum(lengths)
    ids = np.fromiter(chain.from_iterable(out["input_ids"]), np.int64, n)
    added = np.fromiter(chain.from_iterable(out["special_tokens_mask"]), bool, n)
    spans = np.zeros((n, 2), np.int64)
    if fast:
        flat = chain.from_iterable(chain.from_iterable(out["offset_mapping"]))
        spans = np.fromiter(flat, np.int64, 2 * n).reshape(n, 2)
    special_ids = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    special = added | np.isin(ids, sorted(special_ids))
    if prompt and fast:
        spans -= len(prompt)
        special |= spans[:, 1] <= 0
        spans = spans.clip(min=0)
    return TokenizedTexts(
        ids=ids,
        special=special,
        spans=spans,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def tokens_of(model: LanguageModel, texts: Sequence[str]) -> TokenizedTexts:
    """Return ``texts`` as ``model`` reads them: behind its prompt, cut where it cuts."""
    return tokenize(model.tokenizer, texts, model.length, prompt=model.prompt)


def token_batches(lengths: Sequence[int] | NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of each batch, longest sequences first.

    A batch holds at most ``budget`` tokens, padding included, and at least one sequence. Sequences of length
    0 are in no batch. The same lengths give the same batches.
    """
    widths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-widths, kind="stable")
    order = order[widths[order] > 0]
    start = 0
    while start < len(order):
        stop = start + max(1, budget // int(widths[order[start]]))
        yield order[start:stop]
        start = stop


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
) -> Iterator[Batch]:
    """Yield batches, longest sequences first, with the states of ``hookpoints`` after the ``edits``.

    An edit sees the real tokens' rows only. Raises InputError for an unknown hookpoint, and for an edit that
    comes after the last hookpoint read and so would change nothing.
    """
    edits = dict(edits or {})
    last_hookpoint(model, hookpoints, edits)
    for sequences in token_batches(tokens.lengths, model.token_budget):
        yield from _run_or_halve(model, tokens, sequences, hookpoints, edits)


def _run_or_halve(
    model: LanguageModel,
    tokens: TokenizedTexts,
    sequences: NDArray[np.int64],
    hookpoints: Sequence[str],
    edits: Mapping[str, Edit],
) -> Iterator[Batch]:
    """Yield the batch, or where memory does not hold it, its halves."""
    try:
        batch = make_batch(model, tokens, sequences)
        run_batch(model, batch, hookpoints, edits)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        if len(sequences) == 1:
            raise InputError(
                f"Memory does not hold one text of {tokens.lengths[sequences[0]]} tokens: give a smaller max_length"
            ) from error
        batch = None
    if batch is not None:
        yield batch
        return
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    middle = len(sequences) // 2
    for half in (sequences[:middle], sequences[middle:]):
        yield from _run_or_halve(model, tokens, half, hookpoints, edits)


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
    # hooks belong to the module, which threads and other wrappers of it share
    with lock_of(model.module), plain_precision(), torch.set_grad_enabled(with_grad):
        if model.module.training:
            model.module.eval()
        # a model that was put into half precision as a whole runs as it is
        low = model.dtype == torch.bfloat16 and next(model.module.parameters()).dtype == torch.float32
        cast = torch.autocast(model.device.type, torch.bfloat16, enabled=low)
        with _hooks(model, hookpoints, edits, last, batch), cast:
            # without a mask attention takes its fast causal path; what padding gives is never read
            mask = None if model.is_causal else batch.attention
            with suppress(_StopForwardError):
                model.module(input_ids=batch.ids, attention_mask=mask, **model.options)


def make_batch(model: LanguageModel, tokens: TokenizedTexts, sequences: NDArray[np.int64]) -> Batch:
    """Return the ``sequences`` padded to the longest of them, on the model's device."""
    starts, lengths = tokens.starts[sequences], tokens.lengths[sequences]
    columns = np.arange(int(lengths.max()))
    inside = columns[None, :] < lengths[:, None]
    flat = np.where(inside, starts[:, None] + columns[None, :], 0)
    pad = model.tokenizer.pad_token_id
    ids = np.where(inside, tokens.ids[flat], 0 if pad is None else pad)
    if ids.max() >= model.n_embeddings:
        raise InputError(
            f"The tokenizer of {model.name} gives the token {ids.max()}, but the model knows {model.n_embeddings} "
            "tokens: give the tokenizer that belongs to the model"
        )
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
                if hidden.shape[:2] != batch.real.shape:
                    raise InputError(
                        f"{name} of {model.name} gives states of shape {tuple(value.shape)}, not texts x tokens x "
                        f"width for {tuple(batch.real.shape)} texts and tokens; this architecture is not read"
                    )
                if hidden.shape[-1] != model.d_model:
                    raise InputError(
                        f"{name} of {model.name} gives rows of width {hidden.shape[-1]}, not {model.d_model}; "
                        "name another hookpoint or layer"
                    )
                if name in edits:
                    hidden = _apply(edits[name], hidden, batch.real, name)
                if name in hookpoints:
                    batch.states[name] = hidden
                # a graph has no early end, and leaves out by itself what nothing reads
                if name == last and not torch.compiler.is_exporting():
                    raise _StopForwardError
                if whole.shape[1] > t:
                    hidden = torch.cat([hidden, whole[:, t:]], dim=1)
                return hidden.view_as(value)

            stack.callback(_register(model.targets[name], visit).remove)
        yield


def _register(target: HookTarget, visit: Callable[[Tensor], Tensor]) -> Any:
    if target.reads_input:

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (visit(args[0]), *args[1:]), kwargs
            name = next(k for k, v in kwargs.items() if isinstance(v, Tensor) and v.dim() == 3)
            return args, {**kwargs, name: visit(kwargs[name])}

        return target.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: Any, output: Any) -> Any:
        return with_first(output, visit(first_of(output)))

    return target.module.register_forward_hook(after)


def _apply(edit: Edit, hidden: Tensor, real: Tensor, name: str) -> Tensor:
    if torch.compiler.is_exporting():  # a graph edits every token, and takes the real ones
        edited = edit(hidden.flatten(0, 1)).view_as(hidden)
        return torch.where(real[:, :, None], edited, hidden)
    # the edit's own matrix products must keep their precision under the pass's autocast
    with torch.autocast(hidden.device.type, enabled=False):
        rows = hidden[real]
        edited = edit(rows.float())
        if edited.shape != rows.shape:
            shapes = f"{tuple(rows.shape)} to {tuple(edited.shape)}"
            raise InputError(f"The edit at {name} changed the shape of its rows from {shapes}")
        changed = hidden.clone()
        changed[real] = edited.to(hidden.dtype)
    return changed
