"""Words that say one thing for each value of an attribute, and how a concept file writes them (docs/concepts.md)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from debias_ssae.core.errors import InputError, brief

When = Literal["", "possessive", "title", "person"]
_OPTIONS = {"neutral", "when", "only"}
"""Keys of a row that are neither its words nor its case."""


class WordRow(NamedTuple):
    """The same thing said for each value of the concept, in the order of its values; of two values a pair.

    An empty word is a gap: nothing says this for that value. ``neutral`` is what scrubbing writes ("" = it removes the
    word). ``when``: "possessive" (the start of a noun phrase follows), "title" (a name follows), "person" (one of the
    concept's ``persons`` follows) or "" (anywhere). ``only`` holds the indices of the values whose words are cues
    (empty: all): actress shows a gender, host need not; a word that is no cue is written, never searched. ``exact``:
    capitals must agree with the listed word.
    """

    words: tuple[str, ...]
    neutral: str = ""
    when: When = ""
    only: tuple[int, ...] = ()
    exact: bool = False
    section: str = "words"

    def is_cue(self, value: int) -> bool:
        """Whether the word of the value with this index counts when it is met in a text."""
        return bool(self.words[value]) and (not self.only or value in self.only)


def as_row(row: Any, n_values: int) -> WordRow:
    """Return ``row`` if it is one, else the row that a plain tuple of words holds; raises InputError."""
    if isinstance(row, WordRow) and not isinstance(row.words, str):
        return row._replace(words=tuple(row.words))
    plain = isinstance(row, Sequence) and not isinstance(row, str | WordRow)
    read = row_of_words(row, n_values) if plain else None
    if read is None:
        count = "a pair of words; give (word of a, word of b), (a, b, neutral word)"
        if n_values != 2:
            count = f"a row of words; give {n_values} words, perhaps a neutral one"
        raise InputError(f"{brief(row)} is not {count}, or a WordRow")
    return read


def row_of_words(words: Sequence[Any], n_values: int, section: str = "words") -> WordRow | None:
    """Return the row of a plain list: a word a value, then perhaps the neutral one; None where it is none."""
    if len(words) not in (n_values, n_values + 1):
        return None
    cells = ["" if word is None and n_values > 2 else word for word in words]
    if not all(isinstance(word, str) for word in cells):
        return None
    if n_values == 2:
        _check_pair(*cells[:2])
    return WordRow(tuple(cells[:n_values]), "".join(cells[n_values:]), section=section)


def _check_pair(a: str, b: str) -> None:
    if "" in (a, b) or a == b:
        raise InputError(f"{a!r} and {b!r} must be two different words")


def read_rows(sections: Any, values: Sequence[str], source: str) -> tuple[WordRow, ...]:
    """Read a list of rows, or a mapping from section names to such lists; faults raise InputError."""
    if sections is None:
        return ()
    if isinstance(sections, list):
        sections = {"words": sections}
    if not isinstance(sections, Mapping) or not all(isinstance(rows, list) for rows in sections.values()):
        raise InputError(
            f"{source}: 'pairs', 'table' and 'optional' must be a list of pairs or rows, or a mapping from section "
            "names to such lists"
        )
    return tuple(
        _read_row(row, str(section), values, source) for section, rows in sections.items() for row in rows
    )


def _read_row(row: Any, section: str, values: Sequence[str], source: str) -> WordRow:
    read = None
    if isinstance(row, list):
        read = row_of_words(row, len(values), section)
    elif isinstance(row, Mapping):
        read = _read_mapping(dict(row), section, values)
    if read is None:
        expected = "[a, b, neutral] or {a, b, neutral, when, only, case}"
        if len(values) > 2:
            expected = (
                f"a list of {len(values)} words (~ for a gap), perhaps with a neutral one, or "
                "{words, neutral, when, only, case}"
            )
        what = "a pair" if len(values) == 2 else "a row"
        raise InputError(
            f"{source}: section {section!r}: {brief(row)} is not {what}; expected {expected}, words quoted where "
            "YAML needs it"
        )
    return read


def _read_mapping(options: dict[Any, Any], section: str, values: Sequence[str]) -> WordRow | None:
    case = options.pop("case", "any")
    words, only = options.pop("words", None), options.get("only") or []
    if case not in ("any", "exact"):
        return None
    rest: dict[str, Any] = {"exact": case == "exact", "section": section}
    if words is None and {"a", "b"} <= set(options):
        words, values = [options.pop("a"), options.pop("b")], ["a", "b"]
        if not all(isinstance(word, str) for word in words):
            return None
        _check_pair(*words)
    named = [only] if isinstance(only, str) else only
    if not isinstance(words, list) or not isinstance(named, list) or not set(options) <= _OPTIONS:
        return None
    if not all(value in values for value in named) or len(words) != len(values):
        return None
    cells = ["" if word is None else word for word in words]
    texts = {key: options[key] for key in ("neutral", "when") if key in options}
    if not all(isinstance(text, str) for text in (*cells, *texts.values())):
        return None
    return WordRow(tuple(cells), only=tuple(sorted(map(values.index, named))), **texts, **rest)


def write_rows(rows: Iterable[WordRow], values: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what ``read_rows`` reads back as the same rows."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        pair = len(values) == 2 and all(row.words)
        written: dict[str, Any] = (
            dict(zip("ab", row.words, strict=True)) if pair else {"words": list(row.words)}
        )
        written |= {key: getattr(row, key) for key in ("neutral", "when") if getattr(row, key)}
        if row.only:
            written["only"] = "ab"[row.only[0]] if pair else [values[i] for i in row.only]
        if row.exact:
            written["case"] = "exact"
        sections.setdefault(row.section, []).append(written)
    return sections
