"""The benchmark: protocol, methods, seeds, intervals; ``compare`` takes estimators of your own."""

from debias_ssae.benchmark.methods import METHODS as METHODS
from debias_ssae.benchmark.methods import Context as Context
from debias_ssae.benchmark.methods import Method as Method
from debias_ssae.benchmark.protocol import Protocol as Protocol
from debias_ssae.benchmark.protocol import Split as Split
from debias_ssae.benchmark.protocol import Supervision as Supervision
from debias_ssae.benchmark.protocol import make_split as make_split
from debias_ssae.benchmark.protocol import prepare as prepare
from debias_ssae.benchmark.run import compare as compare
from debias_ssae.benchmark.run import one_thread as one_thread
from debias_ssae.benchmark.run import run_benchmark as run_benchmark
