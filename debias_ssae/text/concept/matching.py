"""Finding a concept's words in a text, by one pattern and three rules of context, and rewriting them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from debias_ssae.core.errors import InputError
from debias_ssae.text.concept.rows import WordRow

Spans = tuple[tuple[int, int], ...]
_NEXT_WORD = re.compile(r"""\s+["'“‘(\[]?(\w+(?:['’-]\w+)*)""")
_COORDINATED = re.compile(r"(?:\s*/\s*|\s+(?:and|or)\s+)(\w+)", re.IGNORECASE)
_NAME_FOLLOWS = re.compile(r"\.?\s+(?:[^\W\d_a-z]|(?:and|or|&)\s)|\.[^\W\d_a-z]")
_GAP = re.compile(r"\s*")
_TITLE_GAP = re.compile(r"\.?\s*")
_ARTICLE = re.compile(r"""(?<!\w)(an?)(\s+["'“‘(]?)\Z""", re.IGNORECASE)
_SENTENCE_BEGINS = re.compile(r"""(?:\A|[.!?]["”'’)]*\s)\s*["“'‘(]?\Z""")
_VOWEL = re.compile(
    r"(?!eu|uni|uk|uru|uga|us\b|u\.s|one\b)[aeiou]|h(?:our|eir|ono)|8|1[18](?!\d)", re.IGNORECASE
)


@dataclass(frozen=True)
class CounterfactualPair:
    """One text in two versions: every marked word shows value a in ``text_a`` and value b in ``text_b``.

    ``spans_a[i]`` and ``spans_b[i]`` are the character spans of one word in the two texts; ``sides[i]`` tells
    which of them the original text had (+1 is b, -1 is a, 0 neither). ``index`` is the text's place in the input,
    ``values`` are the indices of a and b in the concept's values, a before b.
    """

    index: int
    text_a: str
    text_b: str
    spans_a: Spans
    spans_b: Spans
    sides: tuple[int, ...]
    values: tuple[int, int] = (0, 1)


class Match(NamedTuple):
    """A marked word: where it stands, how it is written, its row, and which value's word it is."""

    start: int
    end: int
    word: str
    row: WordRow
    value: int
    begins: bool
    """Whether a sentence begins with it."""

    def cased(self, word: str) -> str:
        """Give ``word`` the capitals of the word found, where the list itself does not write them."""
        if not word:
            return word
        if self.word[0].isupper() and self.begins:
            word = word[0].upper() + word[1:]
        if self.row.exact or self.word == self.row.words[self.value]:
            return word
        if self.word.isupper() and len(self.word) > 1:
            return word.upper()
        return word[0].upper() + word[1:] if self.word[0].isupper() else word

    def said(self, value: int, text: str) -> str:
        """The word for another value, in these capitals; for its own, as ``text`` writes it."""
        return text[self.start : self.end] if value == self.value else self.cased(self.row.words[value])

    def scrub_end(self, text: str) -> int:
        """Where a removed word ends: with the space after it, and a title's full stop."""
        if self.row.neutral:
            return self.end
        gap = (_TITLE_GAP if self.row.when == "title" else _GAP).match(text, self.end)
        return gap.end() if gap else self.end


class Matcher:
    """Finds the words of ``rows`` in texts; ``ignore`` phrases hide the words inside them.

    Words are compared in lower case, as re.IGNORECASE does; casefold would write ß as ss, which it never finds.
    A letter with its accent may be one character or two (NFC, NFD), an apostrophe straight or curly.
    """

    def __init__(
        self,
        rows: Sequence[WordRow],
        ignore: Iterable[str],
        not_possessed: frozenset[str],
        persons: frozenset[str] = frozenset(),
    ) -> None:
        table: dict[str, list[tuple[WordRow, int]]] = {}
        for row in rows:
            for value, word in enumerate(row.words):
                if row.is_cue(value):
                    table.setdefault(plain(word).lower(), []).append((row, value))
        # rows with a rule are tried first; the sort is stable, so the file's order decides the rest
        self._candidates = {
            word: sorted(candidates, key=lambda candidate: not candidate[0].when)
            for word, candidates in table.items()
        }
        self._possessives = frozenset(
            word for word, rows in table.items() if any(row.when == "possessive" for row, _ in rows)
        )
        self._not_possessed = not_possessed
        self._persons = persons
        phrases = {*table, *(plain(phrase).lower() for phrase in ignore)}
        phrases |= {unicodedata.normalize("NFD", phrase) for phrase in phrases}
        # "s/he" and "(s)he" already name both values; an accent of its own belongs to the letter before it
        self._pattern = re.compile(
            rf"(?<!\w)(?<!\bs/)(?<!\(s\)){_trie_pattern(phrases)}(?![\w\u0300-\u036f])", re.IGNORECASE
        )

    def hits(self, text: str) -> Iterator[tuple[str, Match | None]]:
        """Yield each listed word or ignored phrase met, in lower case, with its match; None: it is passed over."""
        if not isinstance(text, str):
            raise InputError(
                f"a concept reads texts, but one is {type(text).__name__}; pass a list of strings"
            )
        for hit in self._pattern.finditer(text):
            # phrases of `ignore` are hits too, without candidates, so the words inside them are passed over
            word = plain(hit.group())
            found = None
            for row, value in self._candidates.get(word.lower(), ()):
                spelled = not row.exact or word == plain(row.words[value])
                if spelled and self._holds(row.when, text, hit.end()):
                    start = hit.start()
                    begins = _SENTENCE_BEGINS.search(text, max(0, start - 8), start) is not None
                    found = Match(start, hit.end(), word, row, value, begins)
                    break
            yield word.lower(), found

    def _holds(self, when: str, text: str, end: int) -> bool:
        if when == "possessive":
            return self._possessive(text, end)
        if when == "person":
            following = _NEXT_WORD.match(text, end)
            return following is not None and following.group(1).lower() in self._persons
        return not when or _NAME_FOLLOWS.match(text, end) is not None

    def _possessive(self, text: str, end: int) -> bool:
        other = _COORDINATED.match(text, end)
        if other and other.group(1).lower() in self._possessives:  # "his or her work", "her/his work"
            end = other.end()
        following = _NEXT_WORD.match(text, end)
        return following is not None and following.group(1).lower() not in self._not_possessed


def plain(word: str) -> str:
    """The word as it is compared, capitals apart."""
    return unicodedata.normalize("NFC", " ".join(word.replace("’", "'").split()))


def rewrite(text: str, edits: Iterable[tuple[int, int, str]], *, a_an: bool = False) -> tuple[str, Spans]:
    """Replace the spans of ``edits`` (sorted, apart) by their new words; return the text and where they stand.

    With ``a_an`` an English indefinite article before a changed word changes with its first sound.
    """
    pieces, spans, at, length = [], [], 0, 0
    for start, end, new in edits:
        before = text[at:start]
        if a_an:
            before = _with_article(before, text[start:end], new or text[end : end + 8])
        spans.append((length + len(before), length + len(before) + len(new)))
        pieces += [before, new]
        at, length = end, spans[-1][1]
    return "".join([*pieces, text[at:]]), tuple(spans)


def _with_article(before: str, old: str, new: str) -> str:
    """``before`` with its last word "a" or "an" turned, if it went with ``old`` and does not go with ``new``."""
    article = _ARTICLE.search(before, max(0, len(before) - 16))
    if article is None:
        return before
    was, will = (_VOWEL.match(word) is not None for word in (old, new))
    written = article.group(1)
    if was == will or was != (len(written) > 1):
        return before
    turned = written[0] + (
        ("N" if old.isupper() and len(old) > 1 and written[0] == "A" else "n") if will else ""
    )
    return before[: article.start()] + turned + article.group(2)


def make_pair(
    index: int, text: str, found: Sequence[Match], values: tuple[int, int], *, a_an: bool = False
) -> CounterfactualPair:
    """Write ``text`` for both of ``values``, a and b; ``found`` are all its marked words."""
    a, b = (
        rewrite(text, [(f.start, f.end, f.said(value, text)) for f in found], a_an=a_an) for value in values
    )
    sides = tuple((f.value == values[1]) - (f.value == values[0]) for f in found)
    return CounterfactualPair(index, a[0], b[0], a[1], b[1], sides, values)


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
