"""The time left of long work: by the pace of the steps that worked, not of those that a cache answered."""

import pytest

from debias_ssae.core import steps


def test_a_cache_says_nothing_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(steps.time, "monotonic", lambda: now)
    said: list[str] = []
    work = steps.Steps(said.append)
    work.expect(100.0, 0.0, 10.0, 50.0)
    for step, took in (("cached", 0.1), ("nothing to do", 0.0), ("twice as slow", 20.0), ("last", 0.0)):
        work.begin(step)
        now += took
    assert [line.split("about ")[1] for line in said] == [
        "3 min left)",
        "60 s left)",
        "60 s left)",
        "100 s left)",
    ]
    assert work.ended
