"""How long the attacks run: a short form with the other tests, the long one with ``make faults``.

The long form keeps the counts of each test in ``benchmarks/results/faults.json``, so that it may be run in pieces.
"""

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

LONG = os.environ.get("DEBIAS_SSAE_FAULTS") == "long"


@pytest.fixture(scope="session")
def amount():
    """Returns its second argument in the long form (``make faults``), else its first."""
    return lambda short, long: long if LONG else short


COUNTS: dict[str, dict[str, int]] = {}
"""Test to kind of attack to how many."""
SECONDS: dict[str, float] = {}
"""Test to the seconds of the clock that it took."""
KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"


@pytest.fixture
def counted(request):
    """How many attacks of each kind a test has run; shown at the end."""
    begin = time.monotonic()
    yield COUNTS.setdefault(request.node.nodeid, {})
    SECONDS[request.node.nodeid] = round(time.monotonic() - begin, 1)


def pytest_terminal_summary(terminalreporter):
    passed = {report.nodeid for report in terminalreporter.stats.get("passed", ()) if report.when == "call"}
    found = {test: counts for test, counts in COUNTS.items() if test in passed and counts}
    if found and LONG:
        kept = json.loads(KEPT.read_text())["tests"] if KEPT.exists() else {}
        kept |= {test: {"attacks": counts, "seconds": SECONDS[test]} for test, counts in found.items()}
        told = {"attacks": dict(sum((Counter(one["attacks"]) for one in kept.values()), Counter()))}
        KEPT.write_text(json.dumps(told | {"tests": kept}, indent=1, sort_keys=True) + "\n")
    if found:
        total = sum(map(Counter, found.values()), Counter())
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(total.items()))
        terminalreporter.write_line(
            f"attacks without a wrong reading, a foreign exception or a hang: {listed}"
        )
