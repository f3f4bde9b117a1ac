"""Pairs of words that differ in one attribute, and how a concept file writes them (docs/concepts.md)."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from debias_ssae.core.errors import InputError

_EXPECTED = "[a, b, neutral] or {a, b, neutral, when, only, case}, words quoted where YAML needs it"


class SwapPair(NamedTuple):
    """A word of value a, the same word with value b, and a neutral word ("" = scrubbing removes it).

    ``when``: "possessive" (the start of a noun phrase follows), "title" (a name follows) or "" (anywhere).
    ``only``: "a" or "b" where just that word is a cue: actress shows a gender, host need not.
    ``exact``: capitals must agree with the listed word.
    """

    a: str
    b: str
    neutral: str = ""
    when: Literal["", "possessive", "title"] = ""
    only: Literal["", "a", "b"] = ""
    exact: bool = False
    section: str = "words"

    def word(self, side: int) -> str:
        """The word of value b (side +1) or of value a (side -1)."""
        return self.b if side > 0 else self.a

    def is_cue(self, side: int) -> bool:
        """Whether that side's word counts when it is met in a text."""
        return self.only != ("a" if side > 0 else "b")


def read_pairs(sections: Any, source: str) -> tuple[SwapPair, ...]:
    """Read a list of pairs, or a mapping from section names to such lists; faults raise InputError."""
    if not sections:
        return ()
    if isinstance(sections, list):
        sections = {"words": sections}
    if not isinstance(sections, Mapping) or not all(isinstance(rows, list) for rows in sections.values()):
        raise InputError(
            f"{source}: 'pairs' must be a list of pairs or a mapping from section names to such lists"
        )
    return tuple(_read_pair(row, str(section), source) for section, rows in sections.items() for row in rows)


def _read_pair(row: Any, section: str, source: str) -> SwapPair:
    try:
        if isinstance(row, str) or len(row) > (6 if isinstance(row, Mapping) else 3):
            raise TypeError
        options = (
            dict(row) if isinstance(row, Mapping) else dict(zip(("a", "b", "neutral"), row, strict=False))
        )
        case = options.pop("case", "any")
        if case not in ("any", "exact") or not all(isinstance(value, str) for value in options.values()):
            raise TypeError
        return SwapPair(**options, exact=case == "exact", section=section)
    except TypeError:
        raise InputError(
            f"{source}: section {section!r}: {row!r} is not a pair; expected {_EXPECTED}"
        ) from None


def write_pairs(pairs: Iterable[SwapPair]) -> dict[str, list[dict[str, str]]]:
    """Return what ``read_pairs`` reads back as the same pairs."""
    sections: dict[str, list[dict[str, str]]] = {}
    for pair in pairs:
        options = pair._asdict()
        row = {key: value for key, value in options.items() if value and key not in ("exact", "section")}
        if pair.exact:
            row["case"] = "exact"
        sections.setdefault(pair.section, []).append(row)
    return sections
