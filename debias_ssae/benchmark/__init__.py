"""The benchmark: protocol, methods, seeds, intervals; ``compare`` takes estimators of your own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debias_ssae.benchmark.methods import METHODS as METHODS
    from debias_ssae.benchmark.methods import Context as Context
    from debias_ssae.benchmark.methods import Method as Method
    from debias_ssae.benchmark.protocol import Protocol as Protocol
    from debias_ssae.benchmark.protocol import Split as Split
    from debias_ssae.benchmark.protocol import Supervision as Supervision
    from debias_ssae.benchmark.protocol import demo_table as demo_table
    from debias_ssae.benchmark.protocol import make_split as make_split
    from debias_ssae.benchmark.protocol import prepare as prepare
    from debias_ssae.benchmark.run import compare as compare
    from debias_ssae.benchmark.run import one_thread as one_thread
    from debias_ssae.benchmark.run import run_benchmark as run_benchmark


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use: the report reads results without torch."""
    for module in ("protocol", "methods", "run") if not name.startswith("__") else ():
        found = import_module(f"{__name__}.{module}")
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
