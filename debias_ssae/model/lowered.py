"""A forward pass on the processor, faster than torch runs it by itself; the values differ in rounding only."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from debias_ssae.core.device import suits_mkl

LONGEST = 256
"""Tokens up to which attention by plain products beats torch's fused kernel (measured: 1.3 to 2 times)."""
_ROWS = 2048
_packed = WeakTensorKeyDictionary()


@contextmanager
def lowered(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Run a forward pass with matrix products in ``dtype``, float32 or bfloat16."""
    fast = device.type == "cpu" and dtype in _packable_dtypes()
    cast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    with cast, LoweredPass() if fast else nullcontext():
        yield


def forget(module: nn.Module) -> None:
    """Pack the weights of ``module`` anew when they are next used; only a change in place of ``.data`` needs it."""
    for parameter in module.parameters():
        _packed.pop(parameter, None)


@cache
def _packable_dtypes() -> frozenset[torch.dtype]:
    """Return the precisions in which products with packed weights are faster: the operators are not public.

    bfloat16 where the processor multiplies it, float32 where torch's own MKL is not made for the processor.
    """
    found = set()
    try:
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            found.add(torch.bfloat16)
        if not suits_mkl():
            found.add(torch.float32)
        for dtype in found:
            weight = torch.ones(4, 4, dtype=dtype)
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
            torch.ops.mkldnn._linear_pointwise(weight, packed, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return frozenset()
    return frozenset(found)


class LoweredPass(TorchFunctionMode):
    """While it is entered, two functions of torch are replaced where that is faster and no gradient is wanted.

    A linear layer runs on a copy of its weights that oneDNN has packed once; for bfloat16 weights its input is
    cast once for all layers that read it. Attention in bfloat16 over short sequences is two batched products
    and a softmax. Everything else runs as it would.
    """

    def __init__(self) -> None:
        super().__init__()
        self._input: tuple[Tensor, int, Tensor] | None = None
        self._mask: tuple[Tensor, int, Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            if func is linear and len(args) > 1 and self._is_packable(*args):
                return self._linear(*args, **kwargs)
            if func is scaled_dot_product_attention and _is_short(*args, **kwargs):
                return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def _is_packable(x: Tensor, weight: Tensor, *_: Any) -> bool:
        """Return whether this is a layer (other products' factors are new each time) that may be packed."""
        if not isinstance(weight, Parameter) or weight.device.type != "cpu" or x.numel() == 0:
            return False
        if weight.dtype == torch.bfloat16:
            return x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        return weight.dtype == x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.dtype != weight.dtype and x.is_inference():
            x = x.to(weight.dtype)  # nothing tells whether such a tensor has changed since
        elif x.dtype != weight.dtype:
            if self._input is None or self._input[0] is not x or self._input[1] != x._version:
                self._input = (x, x._version, x.to(weight.dtype))
            x = self._input[2]
        return torch.ops.mkldnn._linear_pointwise(x, _pack(weight), bias, "none", [], "")

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        b, h, n, d = query.shape
        q, k, v = (x.bfloat16().contiguous().view(b * h, n, d) for x in (query, key, value))
        scores = torch.baddbmm(
            q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=d**-0.5 if scale is None else scale
        )
        if attn_mask is not None:
            if self._mask is None or self._mask[0] is not attn_mask:
                self._mask = (attn_mask, *_penalty(attn_mask))
            _, first, penalty = self._mask
            if first < n:
                scores.view(b, h, n, n)[..., first:].add_(penalty)
        elif is_causal:
            scores.add_(scores.new_full((n, n), -math.inf).triu_(1))
        return torch.bmm(torch.softmax(scores, -1), v).view(b, h, n, d)


def _pack(weight: Tensor) -> Tensor:
    kept, state = _packed.get(weight), (weight._version, weight.dtype, weight.data_ptr())
    if kept is None or kept[0] != state:
        kept = (state, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS))
        _packed[weight] = kept
    return kept[1]


def _is_short(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Return whether attention is of the plain kind: bfloat16, equal shapes, no mask or one of yes and no."""
    return (
        {x.dtype for x in (query, key, value)} <= _lowered_dtypes()
        and query.device.type == "cpu"
        and query.dim() == 4
        and query.shape == key.shape == value.shape
        and query.shape[2] <= LONGEST
        and dropout_p == 0
        and (attn_mask is None or (attn_mask.dtype == torch.bool and attn_mask.dim() == 4 and not is_causal))
    )


def _lowered_dtypes() -> set[torch.dtype]:
    """Return what attention takes in bfloat16: autocast casts float32 as well."""
    return {torch.bfloat16} | ({torch.float32} if torch.is_autocast_enabled("cpu") else set())


def _penalty(mask: Tensor) -> tuple[int, Tensor]:
    """Return the first column that some row must not see, and what is added to the scores from there on."""
    hidden = (~mask).flatten(0, -2).any(0).nonzero()
    first = int(hidden[0]) if len(hidden) else mask.shape[-1]
    # finite, so that a row that may see nothing gives a mean and no NaN
    return first, torch.where(mask[..., first:], 0.0, -1e30).bfloat16()
