"""The benchmark: protocol, methods, seeds, intervals."""

from debias_ssae.benchmark.curves import run_curves
from debias_ssae.benchmark.grid import GridSetting, run_grid
from debias_ssae.benchmark.methods import METHODS
from debias_ssae.benchmark.parts import writable_directory
from debias_ssae.benchmark.run import run_benchmark
from debias_ssae.benchmark.synthetic import demo_splits, demo_table

__all__ = [
    "METHODS",
    "GridSetting",
    "demo_splits",
    "demo_table",
    "run_benchmark",
    "run_curves",
    "run_grid",
    "writable_directory",
]
