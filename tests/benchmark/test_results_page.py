"""The tables of README.md and docs/results.md are the committed results, to the digit."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMPTY = {
    "",
    "The tables of this page are made by `python benchmarks/readme_table.py` from `benchmarks/results`.\n",
}
"""What stands there before a first run; any other text must be what the script makes."""


def test_the_tables_are_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    tables = importlib.import_module("readme_table")
    for page, made in ((tables.README, tables.readme()), (tables.PAGE, tables.page())):
        assert "`ssae_default`" in made
        text = page.read_text(encoding="utf-8")
        begin, end = tables.MARKS[page].search(text).groups()
        shown = text.partition(begin)[2].partition(end)[0]
        assert shown in EMPTY or shown == made, page
