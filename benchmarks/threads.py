"""What idle threads cost: CPU-seconds of one transform of 120 texts in plain Python, against one thread.

Each run is a process of its own without environment variables of OpenMP, beside as many busy processes as there are
cores (``--busy``): threads that spin while they wait take the processor from those that work. "torch first" imports
torch before this package. Writes benchmarks/results/threads.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

MOST = 1.2
CODE = """
import sys, time
{first}
import numpy as np
from debias_ssae import ActivationEncoder
rng = np.random.default_rng(0)
words = np.array("she he a nurse surgeon works in the clinic of this city and was born with degree".split())
texts = [" ".join(rng.choice(words, rng.integers(20, 90))) for _ in range(120)]
encoder = ActivationEncoder("minilm", device="cpu").fit(texts)
encoder.transform(texts[:8])
start = time.process_time()
encoder.transform(texts)
print(time.process_time() - start)
"""
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "one thread": ("", {"OMP_NUM_THREADS": "1"}),
    "plain Python": ("", {}),
    "plain Python, torch first": ("import torch", {}),
    "plain Python, threads spin": ("", {"OMP_WAIT_POLICY": "active"}),
}


def run(way: str) -> float:
    """CPU-seconds of transform in a new process."""
    first, settings = WAYS[way]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "KMP", "MKL"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(first=first)], env={**env, **settings}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "threads.json")
    arguments = parser.parse_args()
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        seen: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way, times in seen.items():
                times.append(run(way))
    finally:
        for burner in burners:
            burner.kill()
    one = statistics.median(seen["one thread"])
    ratios = {way: statistics.median(times) / one for way, times in seen.items()}
    results = {"cpu_seconds": seen, "times one thread": ratios, "busy_processes": arguments.busy, "bar": MOST}
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(ratios, indent=1))
    if ratios["plain Python"] > MOST:
        raise SystemExit(
            f"plain Python costs {ratios['plain Python']:.2f} times one thread; at most {MOST} is the bar"
        )


if __name__ == "__main__":
    main()
