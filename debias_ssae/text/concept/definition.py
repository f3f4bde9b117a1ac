"""The ``Concept``: made from the shipped lists, a file or a few words; swaps, counterfactuals and scrubs texts."""

import itertools
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from debias_ssae.core.errors import InputError, brief
from debias_ssae.core.io import fingerprint, read_yaml
from debias_ssae.text.concept.matching import CounterfactualPair, Match, Matcher, make_pair, rewrite
from debias_ssae.text.concept.rows import WordRow, clean, listed, read_rows, write_rows

_SHIPPED = Path(__file__).parents[1] / "concepts"
_KEYS = {
    "name", "values", "pairs", "table", "optional", "ignore", "not_possessed", "persons", "a_an",
}  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """An attribute of two or more values, given by words of each value.

    ``pairs`` holds the rows of words: WordRow, or plain tuples of each value's word and perhaps a neutral one, such as
    ``("dad", "mum", "parent")``; ``optional`` holds rows that are used only when ``with_optional`` asks for their
    section; ``ignore`` holds phrases that are never touched; ``not_possessed`` the words that cannot begin what a
    possessive owns; ``persons`` the words that the rule "person" asks for; ``a_an`` turns the English indefinite
    article where the word after it changes.

    Raises InputError for an empty concept, for a word that shows two values, for words with spaces around them and
    for equal values.
    """

    pairs: tuple[WordRow, ...] = ()
    name: str = "concept"
    values: tuple[str, ...] = ("a", "b")
    optional: tuple[WordRow, ...] = ()
    ignore: tuple[str, ...] = ()
    not_possessed: frozenset[str] = frozenset()
    persons: frozenset[str] = frozenset()
    a_an: bool = False

    def __post_init__(self) -> None:
        def store(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if not isinstance(self.name, str) or not isinstance(self.a_an, bool):
            raise InputError("'name' must be a string and 'a_an' true or false; quote what YAML converts")
        store("values", _values_of(self.name, self.values))
        store("ignore", tuple(_words(self.ignore, "ignore")))
        for name in ("pairs", "optional"):
            store(name, read_rows(getattr(self, name), self.values, name))
        for name in ("not_possessed", "persons"):
            store(name, frozenset(word.lower() for word in _words(getattr(self, name), name)))
        _check(self)

    def __hash__(self) -> int:
        return hash(self.sha256)

    @classmethod
    def shipped(cls) -> tuple[str, ...]:
        """Names of the concepts that come with the package."""
        return tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))

    @classmethod
    def load(cls, name_or_path: "str | Path | Self", *, optional: Iterable[str] = ()) -> Self:
        """Read a concept that ships with the package ("gender") or a YAML or JSON file (docs/concepts.md); a Concept is
        returned as it is.

        ``optional`` names sections that are off by default, such as gender's "names". Raises InputError for an unknown
        name or section, and for a faulty file.
        """
        concept = name_or_path
        if not isinstance(concept, cls):
            path = cls.path(concept)
            concept = cls.from_dict(read_yaml(path), source=str(path))
        return concept.with_optional(*_words(optional, "optional"))

    @classmethod
    def path(cls, name_or_path: Any) -> Path:
        """Return the file of a shipped concept's name, or the path that was given. Raises InputError."""
        if not isinstance(name_or_path, str | Path):
            raise InputError(f"a concept is named by a string or a path, got {brief(name_or_path)}")
        path = Path(name_or_path)
        if path.suffix or str(name_or_path) != path.name:
            return path
        if str(name_or_path) not in cls.shipped():
            raise InputError(
                f"Unknown concept {name_or_path!r}; known: {', '.join(cls.shipped())}; or give a .yaml or .json file"
            )
        return _SHIPPED / f"{name_or_path}.yaml"

    @classmethod
    def from_dict(cls, values: Any, *, source: str = "the concept") -> Self:
        """Build from the file format's mapping. Raises InputError that names the source and the fault."""
        if not isinstance(values, Mapping):
            raise InputError(
                f"{source}: expected a mapping with name, values and pairs, got {type(values).__name__}"
            )
        if "seed_texts" in values:
            raise InputError(
                f"{source}: 'seed_texts' are labelled texts, not words; give them as AnnotatedTexts(texts, "
                "sensitive_features), or --annotated FILE"
            )
        unknown = {str(key) for key in values} - _KEYS
        if unknown:
            raise InputError(f"{source}: unknown {brief(sorted(unknown))}; known: {sorted(_KEYS)}")
        given = {key: value for key, value in values.items() if value is not None}
        try:
            named = _values_of(given.get("name", "concept"), given.get("values", ("a", "b")))
            if "pairs" in given and len(named) > 2:
                raise InputError(f"'pairs' need two values, but there are {len(named)}; write a 'table'")
            rows = [read_rows(given.pop(key, ()), named, key) for key in ("pairs", "table")]
            return cls(pairs=rows[0] + rows[1], **given)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    @classmethod
    def from_words(
        cls,
        words: Sequence[str] | Sequence[Sequence[str]],
        *,
        values: Sequence[str] = ("a", "b"),
        name: str = "words",
    ) -> Self:
        """Build from two words, ``["he", "she"]``, or pairs, ``[("he", "she"), ("dad", "mum", "parent")]``.

        With more ``values`` give as many words: ``from_words(["church", "mosque", "synagogue"], values=["christian",
        "muslim", "jewish"])``. One word more is the neutral one; without it, scrubbing removes the word. Raises
        InputError.
        """
        n, rows = len(_values_of(name, values)), words
        if isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words):
            rows = [words]  # type: ignore[list-item]
        if not isinstance(rows, list | tuple) or not rows or not all(_may_be_row(row, n) for row in rows):
            kinds = "two words or a list of pairs" if n == 2 else f"{n} words or a list of rows"
            raise InputError(f"from_words takes {kinds} of words, got {brief(words)}")
        return cls(pairs=tuple(rows), values=tuple(values), name=name)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return the file format's mapping: ``Concept.from_dict(c.to_dict()) == c``."""
        two = len(self.values) == 2
        return {
            "name": self.name,
            "values": list(self.values),
            "pairs" if two else "table": write_rows(self.pairs, self.values),
            "optional": write_rows(self.optional, self.values),
            "ignore": list(self.ignore),
            "not_possessed": sorted(self.not_possessed),
            **({"persons": sorted(self.persons)} if self.persons else {}),
            **({"a_an": True} if self.a_an else {}),
        }

    def with_optional(self, *sections: str) -> Self:
        """Return a concept that also uses these sections of ``optional``; unknown ones raise InputError."""
        if not sections:
            return self
        known = {row.section for row in self.optional}
        strange = sorted(set(sections) - known)
        if strange:
            raise InputError(
                f"Concept {self.name!r} has no optional section {strange}; it has {sorted(known)}"
            )
        chosen = tuple(row for row in self.optional if row.section in sections)
        rest = tuple(row for row in self.optional if row.section not in sections)
        return replace(self, pairs=self.pairs + chosen, optional=rest, name="+".join([self.name, *sections]))

    def subset(self, *sections: str) -> Self:
        """Return a concept with these sections' rows only: ``subset("pronouns")``. Unknown ones raise InputError."""
        strange = sorted(set(sections) - set(self.sections))
        if strange:
            raise InputError(f"Concept {self.name!r} has no section {strange}; it has {list(self.sections)}")
        rows = tuple(row for row in self.pairs if row.section in sections)
        return replace(self, pairs=rows, optional=(), name=f"{self.name}:{'+'.join(sections)}")

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections in use, in the file's order."""
        return tuple(dict.fromkeys(row.section for row in self.pairs))

    def words_of(self, value: str) -> tuple[str, ...]:
        """Words that show ``value``, as listed. Raises InputError for a value that the concept has not."""
        i = self._index(value)
        return tuple(dict.fromkeys(row.words[i] for row in self.pairs if row.is_cue(i)))

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that shows the attribute, as listed, sorted."""
        return tuple(sorted({word for value in self.values for word in self.words_of(value)}))

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides what is swapped or scrubbed; not of the name."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("name", "optional")}
        return fingerprint(content)

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.pairs, self.ignore, self.not_possessed, self.persons)

    def hits(self, text: str) -> Iterator[tuple[str, Match | None]]:
        """Yield each listed word or ignored phrase in ``text``, in lower case, with its match; None: passed over."""
        return self._matcher.hits(text)

    def find(self, text: str) -> list[Match]:
        """Return the words of ``text`` that show the attribute, left to right, each with its place and value."""
        return [match for _, match in self.hits(text) if match is not None]

    def _index(self, value: str) -> int:
        if value not in self.values:
            raise InputError(f"Concept {self.name!r} has no value {value!r}; it has {list(self.values)}")
        return self.values.index(value)

    def _others(self, found: Sequence[Match]) -> tuple[int, list[int]]:
        """The value that most of these words show (the first met of equals), and those others that all can show."""
        shown = [f.value for f in found]
        own = max(shown, key=shown.count)
        sayable = [i for i in range(len(self.values)) if all(f.row.words[i] for f in found)]
        return own, [i for i in sayable if i != own] if own in sayable else []

    def _targets(self, text: str, found: Sequence[Match], to: str | None) -> list[int] | None:
        """Which value each of ``found`` is to show; None where the words cannot."""
        if to is not None:
            targets = [self._index(to)] * len(found)
        elif len(self.values) == 2:
            targets = [1 - f.value for f in found]
        else:
            _, others = self._others(found)
            if not others:
                return None
            targets = [others[zlib.crc32(text.encode("utf-8", "replace")) % len(others)]] * len(found)
        return targets if all(f.row.words[i] for f, i in zip(found, targets, strict=True)) else None

    def counterfactual(self, text: str, to: str | None = None) -> str | None:
        """Return ``text`` with each marked word replaced by that of the value ``to``; None if it has no marked word, or
        one without a word for that value.

        Without ``to`` and with two values, each word becomes that of the other value. With more, all become those of
        one value that the text's own characters draw: always the same for a text, and balanced over texts.
        """
        found = self.find(text)
        targets = self._targets(text, found, to) if found else None
        if targets is None:
            return None
        edits = [(f.start, f.end, f.said(i, text)) for f, i in zip(found, targets, strict=True)]
        return rewrite(text, edits, a_an=self.a_an)[0]

    def counterfactual_pairs(
        self, texts: Iterable[str], *, limit: int | None = None, random_state: int = 0
    ) -> list[CounterfactualPair]:
        """Return both versions of the first ``limit`` texts that have a counterfactual; others are left out.

        With more than two values, a pair holds the value that most of the text's words show, and another that they all
        can show: the one that it was paired with least often so far, drawn by ``random_state`` among equals.
        """
        if isinstance(texts, str):
            raise InputError(f"counterfactual_pairs takes a list of texts, got one string, {brief(texts)}")
        pairs: list[CounterfactualPair] = []
        drawn: Counter[tuple[int, int]] = Counter()
        draw = random.Random(random_state)
        for index, text in enumerate(texts):
            if limit is not None and len(pairs) >= limit:
                break
            found = self.find(text)
            own, others = self._others(found) if found else (0, [])
            if not others:
                continue
            order = others if len(others) == 1 else draw.sample(others, len(others))
            choices = [(min(own, i), max(own, i)) for i in order]
            values = choices[min((drawn[values], k) for k, values in enumerate(choices))[1]]
            drawn[values] += 1
            pairs.append(make_pair(index, text, found, values, a_an=self.a_an))
        return pairs

    def check_occurs(self, texts: Sequence[str], enough: int = 1) -> int:
        """Return how many of ``texts`` have a counterfactual, at most ``enough``. Raises InputError where none has."""
        having = (text for text in texts if self.counterfactual(text) is not None)
        if n := sum(1 for _ in itertools.islice(having, enough)):
            return n
        fault, cure = "holds a word of", "give a concept whose words occur in the texts"
        if any(self.find(text) for text in texts):
            fault, cure = "has a counterfactual by", "fill the gaps of its table"
        raise InputError(
            f"none of the {len(texts)} texts {fault} the concept {self.name!r} "
            f"({', '.join(list(self.words)[:4])}, ...); {cure}"
        )

    def scrub(self, text: str) -> str:
        """Return ``text`` with each marked word replaced by its neutral word, or removed if it has none."""
        edits = [(f.start, f.scrub_end(text), f.cased(f.row.neutral)) for f in self.find(text)]
        return rewrite(text, edits, a_an=self.a_an)[0] if edits else text


def _may_be_row(row: Any, n: int) -> bool:
    return isinstance(row, list | tuple) and len(row) in (n, n + 1) and all(isinstance(w, str) for w in row)


def _words(values: Any, name: str) -> list[str]:
    found = listed(values, name, ordered=name == "values")
    if strange := [value for value in found if not isinstance(value, str)]:
        raise InputError(f"{name!r} must hold strings, got {brief(strange[0])}; quote what YAML converts")
    try:
        return [clean(value) for value in found]
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from None


def _values_of(name: Any, values: Any) -> tuple[str, ...]:
    found = tuple(_words(values, "values"))
    if len(found) < 2 or len(set(found)) != len(found):
        raise InputError(f"Concept {brief(name)} needs two different values or more, got {brief(found)}")
    return found


def _check(concept: Concept) -> None:
    """Raise InputError for a concept that cannot be used."""
    name, values = concept.name, concept.values
    if not concept.pairs:
        raise InputError(f"Concept {name!r} is empty: give a word for each of {brief(values)}")
    for row in concept.pairs + concept.optional:
        where, n = f"Concept {name!r}, section {row.section!r}: {brief(row.words)}", len(values)
        if len(row.words) != n:
            raise InputError(f"{where} has {len(row.words)} words, but there are {n} values")
        if not all(i in range(n) for i in row.only):
            raise InputError(f"{where}: 'only' must hold indices of values; got {row.only!r}")
        if not any(row.is_cue(i) for i in range(n)):
            raise InputError(f"{where} has no word that counts when it is met")
        if row.when == "person" and not concept.persons:
            raise InputError(
                f"Concept {name!r}: a row asks for a person after it, so give the list 'persons'"
            )
    shown: dict[str, set[int]] = {}
    for i, value in enumerate(values):
        for word in concept.words_of(value):
            shown.setdefault(word.lower(), set()).add(i)
    both = sorted(word for word, sides in shown.items() if len(sides) > 1)
    if both:
        where = "both sides" if len(values) == 2 else "the side of several values"
        raise InputError(f"Concept {name!r}: {brief(both)} stand on {where}, but a word shows one value")
