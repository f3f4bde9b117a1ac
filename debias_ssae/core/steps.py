"""What long work is doing: "[3/7] general SAE"."""

import sys
from collections.abc import Callable


class Steps:
    """Says which step of how many begins."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """``say`` takes one line at each step; None says nothing."""
        self.say = say
        self.planned = self.begun = 0

    def expect(self, n: int) -> None:
        """Announce steps to come."""
        self.planned += n

    def begin(self, step: str) -> None:
        """Say that the next step begins."""
        self.begun += 1
        if self.say is not None:
            self.say(f"[{self.begun}/{max(self.planned, self.begun)}] {step}")


def to_stderr(line: str) -> None:
    """One line on standard error, where progress belongs."""
    sys.stderr.write(line + "\n")
