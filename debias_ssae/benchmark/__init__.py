"""The benchmark: protocol, methods, seeds, intervals; ``compare`` takes estimators of your own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debias_ssae.benchmark.methods import METHODS, Context, Method
    from debias_ssae.benchmark.protocol import Protocol, Split, Supervision, demo_table, make_split, prepare
    from debias_ssae.benchmark.run import compare, one_thread, run_benchmark

# imported on first use: the report reads results without torch
_MODULES = {
    "METHODS": "methods",
    "Context": "methods",
    "Method": "methods",
    "Protocol": "protocol",
    "Split": "protocol",
    "Supervision": "protocol",
    "compare": "run",
    "demo_table": "protocol",
    "make_split": "protocol",
    "one_thread": "run",
    "prepare": "protocol",
    "run_benchmark": "run",
}
__all__ = [
    "METHODS",
    "Context",
    "Method",
    "Protocol",
    "Split",
    "Supervision",
    "compare",
    "demo_table",
    "make_split",
    "one_thread",
    "prepare",
    "run_benchmark",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
