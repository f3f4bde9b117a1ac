"""What long work is doing: "[3/7] general SAE (about 1.2 min left)", and bars of progress."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

CACHED = 0.02
"""A step that took less than this share of its plan was answered by a cache: it says nothing of the pace."""


class Steps:
    """Says which step begins, and how long the rest may take: by the plan, and from what the steps so far took."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """``say`` takes one line at each step; None says nothing."""
        self.say = say
        self.plan: list[float] = []
        self.done, self.spent, self.planned = 0, 0.0, 0.0
        self.began: float | None = None

    def expect(self, *seconds: float) -> None:
        """Announce steps to come, with about how long each takes."""
        self.plan += seconds

    def begin(self, step: str) -> None:
        """End the step before, and say that the next begins."""
        self.end()
        self.began = time.monotonic()
        if self.say is not None:
            pace = self.spent / self.planned if self.planned else 1.0
            left = pace * sum(self.plan[self.done :])
            self.say(f"[{self.done + 1}/{len(self.plan)}] {step} (about {duration(left)} left)")

    @property
    def ended(self) -> bool:
        """Whether nothing of the plan is left."""
        return self.done + (self.began is not None) >= len(self.plan)

    def end(self) -> None:
        """Count the step as done."""
        if self.began is not None:
            took, planned = time.monotonic() - self.began, sum(self.plan[self.done : self.done + 1])
            if took >= CACHED * planned:
                self.spent, self.planned = self.spent + took, self.planned + planned
            self.done += 1
        self.began = None


def duration(seconds: float) -> str:
    """Seconds, or from two minutes on minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


DELAY = 1.0
"""Seconds after which a bar is drawn: what is done by then needs none."""
_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)


def show_progress(shown: bool = True) -> AbstractContextManager[None]:
    """Show the progress of what is done inside the ``with``; False leaves it as it is."""
    return _set_shown(shown or _SHOWN.get())


@contextmanager
def _set_shown(shown: bool) -> Iterator[None]:
    before = _SHOWN.get()
    _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.set(before)


def to_stderr(line: str) -> None:
    """One line on standard error, if progress is shown."""
    if _SHOWN.get():
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@contextmanager
def bar(what: str, things: Iterable[Any] | None = None, *, unit: str = "text", **told: Any) -> Iterator[Any]:
    """A bar of tqdm, if progress is shown, on a terminal, after a second; work inside it draws no other."""
    disable = None if _SHOWN.get() else True
    with tqdm(things, what, unit=unit, disable=disable, delay=DELAY, **told) as drawn, _set_shown(False):
        yield drawn
