"""Dense products on the fastest library that torch brings for this processor."""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear

from debias_ssae.core.device import suits_mkl


def product(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """Return ``x @ W.T + b``, [n, m], of x [n, k], W [m, k] and b [m].

    torch multiplies float32 on the processor with MKL. Where that is not made for the processor, oneDNN takes
    10% less time; it is called by the operator that torch's compiler uses.
    """
    if x.device.type == "cpu" and x.dtype != torch.float64 and len(x) and _prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, W, b, "none", [], "")
    return linear(x, W, b)


@cache
def _prefers_onednn() -> bool:
    try:
        if suits_mkl():
            return False
        x = torch.arange(12.0).view(3, 4)
        found = torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], "")
        return bool(torch.equal(found, x @ x.T))
    except (AttributeError, RuntimeError, TypeError):
        return False
