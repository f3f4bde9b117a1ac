"""What the processor of this machine is good at, read from what the system says of it; torch does not tell."""

from functools import cache
from pathlib import Path


@cache
def suits_mkl() -> bool:
    """Whether torch's own MKL is made for this processor: Intel's, and such as nothing is known of."""
    return "GenuineIntel" in _description() or not _description()


@cache
def multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 ones.

    With AMX, with AMD's avx512_bf16 and with ARM's bf16 they are. Intel's avx512_bf16 without AMX, as virtual
    machines often have it, does 85 GFLOP/s on a core that does 150 in float32 (Xeon, model 207).
    """
    known = _description().split()
    return "amx_bf16" in known or "bf16" in known or ("avx512_bf16" in known and not suits_mkl())


def _description() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
