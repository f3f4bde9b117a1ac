"""Words that say one thing for each value of an attribute, and how a concept file writes them (docs/concepts.md)."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from debias_ssae.core.config import faults_of
from debias_ssae.core.errors import InputError, brief


def clean(word: str) -> str:
    """Return ``word``; raises InputError for an empty one, and for one with spaces around it or doubled inside."""
    if not word or " ".join(word.split()) != word:
        raise InputError(f"{brief(word)} is no word: it is empty or has spaces around it or doubled inside")
    return word


_Cell = Annotated[str, AfterValidator(lambda word: word and clean(word))]


class WordRow(BaseModel):
    """The same thing said for each value of the concept, in the order of its values; of two values a pair.

    An empty word is a gap: nothing says this for that value. ``neutral`` is what scrubbing writes ("" = it removes the
    word). ``when``: "possessive" (the start of a noun phrase follows), "title" (a name follows), "person" (one of the
    concept's ``persons`` follows) or "" (anywhere). ``only`` holds the indices of the values whose words are cues
    (empty: all): actress shows a gender, host need not; a word that is no cue is written, never searched. ``case``
    "exact": capitals must agree with the listed word. Raises InputError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    words: tuple[_Cell, ...]
    neutral: _Cell = ""
    when: Literal["", "possessive", "title", "person"] = ""
    only: tuple[int, ...] = ()
    case: Literal["any", "exact"] = "any"
    section: str = "words"

    def __init__(self, words: tuple[str, ...], neutral: str = "", **more: Any) -> None:
        try:
            super().__init__(words=words, neutral=neutral, **more)
        except ValidationError as error:
            raise InputError(faults_of(WordRow, error)) from error

    @property
    def exact(self) -> bool:
        return self.case == "exact"

    def is_cue(self, value: int) -> bool:
        """Whether the word of the value with this index counts when it is met in a text."""
        return bool(self.words[value]) and (not self.only or value in self.only)


def listed(values: Any, name: str, *, ordered: bool = True) -> list[Any]:
    """The members of a list; raises InputError for a string, which would become letters, and for a set where order
    counts.
    """
    if isinstance(values, str | Mapping | (Set if ordered else str)) or not isinstance(values, Iterable):
        raise InputError(f"{name!r} must be a list, got {brief(values)}")
    return list(values)


def read_rows(given: Any, values: Sequence[str], name: str) -> tuple[WordRow, ...]:
    """Read a list of rows, or a mapping from section names to such lists. Raises InputError."""
    sections = given if isinstance(given, Mapping) else {"words": given}
    return tuple(
        _read_row(row, values, str(section))
        for section, rows in sections.items()
        for row in listed(rows, name)
    )


def _read_row(row: Any, values: Sequence[str], section: str) -> WordRow:
    if isinstance(row, WordRow):
        return row
    try:
        return WordRow(**_told(row, values), section=section)
    except (KeyError, TypeError, ValueError) as error:
        kind, form = "pair", "[a, b, neutral] or {a, b, neutral, when, only, case}"
        if len(values) > 2:
            words = f"a list of {len(values)} words (~ for a gap), perhaps with a neutral one"
            kind, form = "row", words + ", or {words, neutral, when, only, case}"
        why = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(
            f"section {section!r}: {brief(row)} is not a {kind} of words{why}; expected {form}, or a WordRow; quote "
            "words where YAML needs it"
        ) from error


def _told(row: Any, values: Sequence[str]) -> dict[str, Any]:
    """What a row of a file says of a WordRow."""
    n, named, pair = len(values), list(values), len(values) == 2
    if isinstance(row, Mapping):
        told = dict(row)
        if pair := pair and "words" not in told:
            told["words"], named = [told.pop("a"), told.pop("b")], ["a", "b"]
    elif isinstance(row, list | tuple) and len(row) in (n, n + 1):
        told = {"words": row[:n], "neutral": "" if len(row) == n else row[n]}
    else:
        raise ValueError
    cells = tuple("" if word is None else word for word in listed(told["words"], "words"))
    if len(cells) != n or (pair and ("" in cells or cells[0] == cells[1])):
        raise InputError(f"{n} words are needed, of two values two different words")
    only = told.get("only") or []
    only = sorted(named.index(value) for value in ([only] if isinstance(only, str) else only))
    return {**told, "words": cells, "only": tuple(only)}


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
            written["case"] = row.case
        sections.setdefault(row.section, []).append(written)
    return sections
