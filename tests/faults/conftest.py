"""How long the attacks run: a short form with the other tests, the long one with ``make faults``.

The long form keeps its counts in ``benchmarks/results/faults.json``, file by file.
"""

import json
import os
import time
from pathlib import Path

import pytest

LONG = os.environ.get("DEBIAS_SSAE_FAULTS") == "long"


@pytest.fixture(scope="session")
def amount():
    """Returns its second argument in the long form (``make faults``), else its first."""
    return lambda short, long: long if LONG else short


COUNTS: dict[str, int] = {}
BEGIN = time.monotonic()
KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"


@pytest.fixture(scope="session")
def counted():
    """How many attacks of each kind ran; shown at the end."""
    return COUNTS


def pytest_terminal_summary(terminalreporter, exitstatus):
    if COUNTS and LONG and exitstatus == 0:
        kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        files = sorted({Path(r.location[0]).name for r in terminalreporter.stats.get("passed", ())})
        kept[", ".join(files)] = {
            "attacks": dict(sorted(COUNTS.items())),
            "seconds": round(time.monotonic() - BEGIN),
        }
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    if COUNTS:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(COUNTS.items()))
        terminalreporter.write_line(
            f"attacks without a wrong reading, a foreign exception or a hang: {listed}"
        )
