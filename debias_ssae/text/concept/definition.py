"""The ``Concept``: made from the shipped lists, a file or a few words; swaps, counterfactuals and scrubs texts."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from debias_ssae.core.errors import InputError
from debias_ssae.text.concept.matching import CounterfactualPair, Matcher, SwapSpan, make_pair, rewrite
from debias_ssae.text.concept.pairs import SwapPair, read_pairs, write_pairs

_SHIPPED = Path(__file__).parents[1] / "concepts"
_KEYS = {"name", "values", "pairs", "optional", "ignore", "not_possessed", "seed_texts"}


@dataclass(frozen=True)
class Concept:
    """An attribute with two values, given by word pairs, by seed texts for each value, or by both.

    ``pairs`` holds SwapPair or plain (word of a, word of b[, neutral word]) tuples; ``optional`` holds
    sections that are used only when ``with_optional`` asks for them; ``ignore`` holds phrases that are never
    touched; ``not_possessed`` the words that cannot begin what a possessive owns.

    Raises InputError for an empty concept, for a word that stands on both sides and for equal values.
    """

    pairs: tuple[SwapPair, ...] = ()
    name: str = "concept"
    values: tuple[str, str] = ("a", "b")
    optional: tuple[SwapPair, ...] = ()
    ignore: tuple[str, ...] = ()
    not_possessed: frozenset[str] = frozenset()
    seed_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def store(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        store("pairs", tuple(map(_as_pair, self.pairs)))
        store("optional", tuple(map(_as_pair, self.optional)))
        store("ignore", tuple(self.ignore))
        store("values", tuple(self.values))
        store("not_possessed", frozenset(word.lower() for word in self.not_possessed))
        store("seed_texts", {value: tuple(texts) for value, texts in self.seed_texts.items()})
        _check(self)

    def __hash__(self) -> int:
        return hash(self.sha256)

    @classmethod
    def load(cls, name_or_path: str | Path, *, optional: Iterable[str] = ()) -> Self:
        """Read a concept that ships with the package ("gender") or a YAML or JSON file (docs/concepts.md).

        ``optional`` names sections that are off by default, such as gender's "names". Raises InputError.
        """
        path = Path(name_or_path)
        if not path.suffix and str(name_or_path) == path.name:
            path = _SHIPPED / f"{name_or_path}.yaml"
            if not path.is_file():
                known = ", ".join(sorted(p.stem for p in _SHIPPED.glob("*.yaml")))
                raise InputError(
                    f"Unknown concept {name_or_path!r}; known: {known}; or give a .yaml or .json file"
                )
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"Cannot read the concept {path}: {' '.join(str(error).split())}") from error
        concept = cls.from_dict(values, source=str(path))
        return concept.with_optional(*optional)

    @classmethod
    def from_dict(cls, values: Any, *, source: str = "the concept") -> Self:
        """Build from the file format's mapping. Raises InputError that names the source and the fault."""
        if not isinstance(values, Mapping):
            raise InputError(
                f"{source}: expected a mapping with name, values and pairs, got {type(values).__name__}"
            )
        unknown = {str(key) for key in values} - _KEYS
        if unknown:
            raise InputError(f"{source}: unknown {sorted(unknown)}; known: {sorted(_KEYS)}")
        seeds = values.get("seed_texts") or {}
        if not isinstance(seeds, Mapping) or not all(isinstance(texts, list) for texts in seeds.values()):
            raise InputError(f"{source}: 'seed_texts' must map each value to a list of texts")
        named = values.get("values") or list(seeds) or ["a", "b"]
        if not isinstance(named, list):
            raise InputError(f"{source}: 'values' must be a list of two names, got {named!r}")
        return cls(
            pairs=read_pairs(values.get("pairs"), source),
            name=str(values.get("name", "concept")),
            values=tuple(map(str, named)),  # type: ignore[arg-type]  # its length is checked on construction
            optional=read_pairs(values.get("optional"), source),
            ignore=tuple(map(str, values.get("ignore") or ())),
            not_possessed=frozenset(map(str, values.get("not_possessed") or ())),
            seed_texts={str(value): tuple(map(str, texts)) for value, texts in seeds.items()},
        )

    @classmethod
    def from_words(
        cls,
        words: Sequence[str] | Sequence[Sequence[str]],
        *,
        values: tuple[str, str] = ("a", "b"),
        name: str = "words",
    ) -> Self:
        """Build from two words, ``["he", "she"]``, or pairs, ``[("he", "she"), ("dad", "mum", "parent")]``.

        A third word of a pair is the neutral one; without it, scrubbing removes the word. Raises InputError.
        """
        listed = list(words)
        flat = bool(listed) and all(isinstance(word, str) for word in listed)
        rows = [listed] if flat else listed
        if not rows or any(isinstance(row, str) or len(row) not in (2, 3) for row in rows):
            raise InputError(f"from_words takes two words or a list of pairs of words, got {words!r}")
        pairs = tuple(SwapPair(row[0], row[1], *row[2:3]) for row in rows)  # type: ignore[arg-type]
        return cls(pairs=pairs, values=values, name=name)

    def to_dict(self) -> dict[str, Any]:
        """Return the file format's mapping: ``Concept.from_dict(c.to_dict()) == c``."""
        return {
            "name": self.name,
            "values": list(self.values),
            "pairs": write_pairs(self.pairs),
            "optional": write_pairs(self.optional),
            "ignore": list(self.ignore),
            "not_possessed": sorted(self.not_possessed),
            "seed_texts": {value: list(texts) for value, texts in self.seed_texts.items()},
        }

    def with_optional(self, *sections: str) -> Self:
        """Return a concept that also uses these sections of ``optional``; unknown ones raise InputError."""
        if not sections:
            return self
        known = {pair.section for pair in self.optional}
        strange = sorted(set(sections) - known)
        if strange:
            raise InputError(
                f"Concept {self.name!r} has no optional section {strange}; it has {sorted(known)}"
            )
        chosen = tuple(pair for pair in self.optional if pair.section in sections)
        rest = tuple(pair for pair in self.optional if pair.section not in sections)
        return replace(self, pairs=self.pairs + chosen, optional=rest, name="+".join([self.name, *sections]))

    def subset(self, *sections: str, words: Iterable[str] | None = None) -> Self:
        """Return a concept with these sections' pairs only, or only with the pairs made of ``words``.

        ``subset("pronouns")``; ``subset(words=["he", "she"])``, which keeps neutral words and rules, unlike
        ``from_words``. Raises InputError where nothing is left or a section is unknown.
        """
        wanted = None if words is None else set(words)
        strange = sorted(set(sections) - set(self.sections))
        if strange:
            raise InputError(f"Concept {self.name!r} has no section {strange}; it has {list(self.sections)}")
        pairs = tuple(
            pair
            for pair in self.pairs
            if (not sections or pair.section in sections) and (wanted is None or {pair.a, pair.b} <= wanted)
        )
        if not pairs:
            raise InputError(f"Concept {self.name!r} has no pair made of {sorted(wanted or ())}")
        label = "+".join(sections) if wanted is None else ",".join(sorted(wanted))
        return replace(self, pairs=pairs, optional=(), name=f"{self.name}:{label}")

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections in use, in the file's order."""
        return tuple(dict.fromkeys(pair.section for pair in self.pairs))

    @property
    def words_a(self) -> tuple[str, ...]:
        """Words that show the first value, as listed."""
        return tuple(dict.fromkeys(pair.a for pair in self.pairs if pair.is_cue(-1)))

    @property
    def words_b(self) -> tuple[str, ...]:
        """Words that show the second value, as listed."""
        return tuple(dict.fromkeys(pair.b for pair in self.pairs if pair.is_cue(1)))

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that shows the attribute, as listed, sorted."""
        return tuple(sorted({*self.words_a, *self.words_b}))

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides what is swapped or scrubbed, and of the seed texts; not of the name."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("name", "optional")}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.pairs, self.ignore, self.not_possessed)

    def swap_spans(self, text: str) -> list[SwapSpan]:
        """Return the words of ``text`` that show the attribute, left to right, each with its counterpart."""
        if not self.pairs:
            return []
        found = self._matcher.find(text)
        return [SwapSpan(f.start, f.end, f.cased(f.pair.word(-f.side)), f.side) for f in found]

    def counterfactual(self, text: str) -> str | None:
        """Return ``text`` with each marked word replaced by its counterpart; None where it has none."""
        spans = self.swap_spans(text)
        return rewrite(text, [(s.start, s.end, s.replacement) for s in spans]) if spans else None

    def counterfactual_pairs(
        self, texts: Iterable[str], *, limit: int | None = None
    ) -> list[CounterfactualPair]:
        """Return both versions of the first ``limit`` texts that have a marked word; others are left out."""
        records: list[CounterfactualPair] = []
        for index, text in enumerate(texts):
            if limit is not None and len(records) >= limit:
                break
            spans = self.swap_spans(text)
            if spans:
                records.append(make_pair(index, text, spans))
        return records

    def check_occurs(self, texts: Sequence[str]) -> None:
        """Raise InputError where none of ``texts`` holds a word of the pairs."""
        if not any(self.swap_spans(text) for text in texts):
            raise InputError(
                f"none of the {len(texts)} texts holds a word of the concept {self.name!r} "
                f"({', '.join(list(self.words)[:4])}, ...); give a concept whose words occur in the texts"
            )

    def labelled_seed_texts(self) -> tuple[list[str], list[str]]:
        """Return the seed texts and the value that each of them shows."""
        rows = [(text, value) for value, texts in self.seed_texts.items() for text in texts]
        return [text for text, _ in rows], [value for _, value in rows]

    def scrub(self, text: str) -> str:
        """Return ``text`` with each marked word replaced by its neutral word, or removed if it has none."""
        if not self.pairs:
            return text
        found = self._matcher.find(text)
        return rewrite(text, [(f.start, f.scrub_end(text), f.cased(f.pair.neutral)) for f in found])


def _as_pair(pair: Any) -> SwapPair:
    if isinstance(pair, str) or not 2 <= len(pair) <= len(SwapPair._fields):
        raise InputError(
            f"{pair!r} is not a pair of words; give (word of a, word of b) or (a, b, neutral word)"
        )
    return SwapPair(*pair)


def _check(concept: Concept) -> None:
    """Raise InputError for a concept that cannot be used."""
    name, values = concept.name, concept.values
    if len(values) != 2 or len(set(values)) != 2:
        raise InputError(f"Concept {name!r} needs two different values, got {values!r}")
    if not concept.pairs and len(concept.seed_texts) < 2:
        raise InputError(
            f"Concept {name!r} is empty: give a pair of words, or seed texts for each of {values}"
        )
    strange = sorted(set(concept.seed_texts) - set(values))
    if strange:
        raise InputError(f"Concept {name!r}: seed texts for {strange}, but its values are {values}")
    for pair in concept.pairs + concept.optional:
        if not pair.a.strip() or not pair.b.strip() or pair.a == pair.b:
            raise InputError(f"Concept {name!r}: {pair.a!r} and {pair.b!r} must be two different words")
        if pair.when not in ("", "possessive", "title") or pair.only not in ("", "a", "b"):
            raise InputError(
                f"Concept {name!r}: pair {pair.a!r}, {pair.b!r}: 'when' must be possessive or title, "
                f"'only' a or b; got {pair.when!r} and {pair.only!r}"
            )
    both = {word.lower() for word in concept.words_a} & {word.lower() for word in concept.words_b}
    if both:
        raise InputError(f"Concept {name!r}: {sorted(both)} stand on both sides, but a word shows one value")
