"""The benchmark: protocol, methods, seeds, intervals."""

from debias_ssae.benchmark.methods import METHODS
from debias_ssae.benchmark.parts import writable_directory
from debias_ssae.benchmark.run import run_benchmark
from debias_ssae.benchmark.synthetic import demo_splits, demo_table

__all__ = ["METHODS", "demo_splits", "demo_table", "run_benchmark", "writable_directory"]
