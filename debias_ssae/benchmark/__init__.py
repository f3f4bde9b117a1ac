"""The benchmark: protocol, methods, seeds, intervals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debias_ssae.benchmark.curves import run_curves
    from debias_ssae.benchmark.grid import GridSetting, grid_settings, run_grid
    from debias_ssae.benchmark.methods import METHODS
    from debias_ssae.benchmark.parts import writable_directory
    from debias_ssae.benchmark.run import run_benchmark
    from debias_ssae.benchmark.synthetic import demo_splits, demo_table

__all__ = [
    "METHODS",
    "GridSetting",
    "demo_splits",
    "demo_table",
    "grid_settings",
    "run_benchmark",
    "run_curves",
    "run_grid",
    "writable_directory",
]

# imported on first use: the report reads results without torch
_ROOMS = {
    "METHODS": "methods",
    "GridSetting": "grid",
    "demo_splits": "synthetic",
    "demo_table": "synthetic",
    "grid_settings": "grid",
    "run_benchmark": "run",
    "run_curves": "curves",
    "run_grid": "grid",
    "writable_directory": "parts",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
