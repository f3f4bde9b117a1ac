"""Finding a concept's words in a text, by one pattern and two rules of context, and rewriting them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from debias_ssae.text.concept.pairs import SwapPair

_NEXT_WORD = re.compile(r"""\s+["'“‘(\[]?(\w+(?:['’-]\w+)*)""")
_COORDINATED = re.compile(r"(?:\s*/\s*|\s+(?:and|or)\s+)(\w+)", re.IGNORECASE)
_NAME_FOLLOWS = re.compile(r"\.?\s+(?:[^\W\d_a-z]|(?:and|or|&)\s)|\.[^\W\d_a-z]")
_GAP = re.compile(r"\s*")
_TITLE_GAP = re.compile(r"\.?\s*")


class SwapSpan(NamedTuple):
    """A word of a text that shows the attribute: ``text[start:end]``, and the same word with the other value.

    ``side`` is the value that the text's own word shows: +1 the concept's second value, -1 its first.
    """

    start: int
    end: int
    replacement: str
    side: int


@dataclass(frozen=True)
class CounterfactualPair:
    """One text in both versions: every marked word shows value a in ``text_a`` and value b in ``text_b``.

    ``spans_a[i]`` and ``spans_b[i]`` are the character spans of one word in the two texts; ``sides[i]`` tells
    which of them the original text had (+1 is b, -1 is a). ``index`` is the text's place in the input.
    """

    index: int
    text_a: str
    text_b: str
    spans_a: tuple[tuple[int, int], ...]
    spans_b: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]

    @property
    def original(self) -> Literal["a", "b", "mixed"]:
        """Which version the original text is; "mixed" where it had words of both values."""
        if len(set(self.sides)) > 1:
            return "mixed"
        return "b" if self.sides[0] > 0 else "a"


class Match(NamedTuple):
    """A marked word: where it stands, how it is written, its pair, and which side of the pair it is."""

    start: int
    end: int
    word: str
    pair: SwapPair
    side: int

    def cased(self, word: str) -> str:
        """Give ``word`` the capitals of the word found."""
        if self.pair.exact or not word:
            return word
        if self.word.isupper() and len(self.word) > 1:
            return word.upper()
        return word[0].upper() + word[1:] if self.word[0].isupper() else word

    def scrub_end(self, text: str) -> int:
        """Where a removed word ends: with the space after it, and a title's full stop."""
        if self.pair.neutral:
            return self.end
        gap = (_TITLE_GAP if self.pair.when == "title" else _GAP).match(text, self.end)
        return gap.end() if gap else self.end


class Matcher:
    """Finds the words of ``pairs`` in texts; ``ignore`` phrases hide the words inside them.

    Words are compared in lower case, as re.IGNORECASE does; casefold would write ß as ss, which it never finds.
    """

    def __init__(
        self, pairs: Sequence[SwapPair], ignore: Iterable[str], not_possessed: frozenset[str]
    ) -> None:
        table: dict[str, list[tuple[SwapPair, int]]] = {}
        for pair in pairs:
            for side in (-1, 1):
                if pair.is_cue(side):
                    table.setdefault(pair.word(side).lower(), []).append((pair, side))
        # pairs with a rule are tried first; the sort is stable, so the file's order decides the rest
        self._candidates = {
            word: sorted(rows, key=lambda row: not row[0].when) for word, rows in table.items()
        }
        self._possessives = frozenset(
            word for word, rows in table.items() if any(pair.when == "possessive" for pair, _ in rows)
        )
        self._not_possessed = not_possessed
        phrases = {*table, *(phrase.lower() for phrase in ignore)}
        # "s/he" and "(s)he" already name both values
        self._pattern = re.compile(
            rf"(?<!\w)(?<!\bs/)(?<!\(s\)){_trie_pattern(phrases)}(?!\w)", re.IGNORECASE
        )

    def find(self, text: str) -> Iterator[Match]:
        """Yield the marked words of ``text`` from left to right."""
        for hit in self._pattern.finditer(text):
            # phrases of `ignore` are hits too, without candidates, so the words inside them are passed over
            word = " ".join(hit.group().replace("’", "'").split())
            for pair, side in self._candidates.get(word.lower(), ()):
                if (not pair.exact or word == pair.word(side)) and self._holds(pair.when, text, hit.end()):
                    yield Match(hit.start(), hit.end(), word, pair, side)
                    break

    def _holds(self, when: str, text: str, end: int) -> bool:
        if when == "possessive":
            return self._possessive(text, end)
        return not when or _NAME_FOLLOWS.match(text, end) is not None

    def _possessive(self, text: str, end: int) -> bool:
        other = _COORDINATED.match(text, end)
        if other and other.group(1).lower() in self._possessives:  # "his or her work", "her/his work"
            end = other.end()
        following = _NEXT_WORD.match(text, end)
        return following is not None and following.group(1).lower() not in self._not_possessed


def rewrite(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Replace the spans of ``edits`` (sorted, apart) by their new words."""
    pieces, at = [], 0
    for start, end, new in edits:
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])


def make_pair(index: int, text: str, spans: Sequence[SwapSpan]) -> CounterfactualPair:
    """Write ``text`` in both versions; ``spans`` are all its marked words."""
    versions, places = [], []
    for side in (-1, 1):
        versions.append(rewrite(text, [(s.start, s.end, s.replacement) for s in spans if s.side != side]))
        shift, moved = 0, []
        for span in spans:
            length = span.end - span.start if span.side == side else len(span.replacement)
            moved.append((span.start + shift, span.start + shift + length))
            shift += length - (span.end - span.start)
        places.append(tuple(moved))
    return CounterfactualPair(
        index, versions[0], versions[1], places[0], places[1], tuple(s.side for s in spans)
    )


def _trie_pattern(words: Iterable[str]) -> str:
    """Return a regex for the longest of ``words``; a prefix tree, so its cost hardly grows with the list."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}

    def build(node: dict[str, Any]) -> str:
        signs = {"'": "['’]", " ": r"\s+"}
        branches = [signs.get(c, re.escape(c)) + build(child) for c, child in sorted(node.items()) if c]
        if not branches:
            return ""
        return f"(?:{'|'.join(branches)})" + ("?" if "" in node else "")

    return f"(?:{build(root)})"
