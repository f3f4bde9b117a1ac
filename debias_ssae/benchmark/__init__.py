"""The benchmark: protocol, methods, seeds, intervals; ``compare`` takes estimators of your own."""

from debias_ssae.benchmark.methods import METHODS as METHODS
from debias_ssae.benchmark.methods import Method as Method
from debias_ssae.benchmark.run import compare as compare
from debias_ssae.benchmark.run import run_benchmark as run_benchmark
