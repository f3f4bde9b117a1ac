"""How long the attacks run: a short form with the other tests, the long one with ``make faults``."""

import os

import pytest

LONG = os.environ.get("DEBIAS_SSAE_FAULTS") == "long"


@pytest.fixture(scope="session")
def amount():
    """Returns its second argument in the long form (``make faults``), else its first."""
    return lambda short, long: long if LONG else short


COUNTS: dict[str, int] = {}


@pytest.fixture(scope="session")
def counted():
    """How many attacks of each kind ran; shown at the end."""
    return COUNTS


def pytest_terminal_summary(terminalreporter):
    if COUNTS:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(COUNTS.items()))
        terminalreporter.write_line(
            f"attacks without a wrong reading, a foreign exception or a hang: {listed}"
        )
