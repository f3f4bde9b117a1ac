"""The short form of ``benchmarks/soak.py``: memory stays flat, and threads get what each would get alone."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def test_a_stream_and_many_threads(amount, counted, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)  # as for a script that is run: it imports from its neighbours
    n_requests = amount(60, 2000)
    found = runpy.run_path(str(SCRIPT))["soak"](amount(5000, 40_000), n_requests)
    assert found["stream"]["grown_mib_after_the_first_tenth"] < 60
    assert found["stream"]["grown_mib_when_sent_again"] < 5
    assert found["requests"]["answers_that_differ"] == 0
    assert found["requests"]["grown_mib"] < 60
    counted["requests"] = counted.get("requests", 0) + n_requests
