"""The time left of long work: by the pace of the steps that worked, not of those that a cache answered."""

import io

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


def test_one_bar_on_a_terminal_where_it_was_asked_for(terminal: io.StringIO) -> None:
    def work() -> None:
        with steps.bar("outer", range(3)) as outer:
            for _ in outer:
                with steps.bar("inner", total=1) as inner:
                    inner.update(1)

    work()
    with steps.show_progress(False):
        work()
    assert not terminal.getvalue()
    with steps.show_progress(), steps.show_progress(False):
        work()
    assert "outer" in terminal.getvalue()
    assert "inner" not in terminal.getvalue()
    before = terminal.getvalue()
    work()
    assert terminal.getvalue() == before


def test_no_bar_goes_into_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "DELAY", 0)
    with steps.show_progress():
        steps.to_stderr("a line")
        with steps.bar("what", range(3)) as things:
            assert list(things) == [0, 1, 2]
    assert capsys.readouterr().err == "a line\n"
