"""What a concept finds in a table of texts, before anything is fitted."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from debias_ssae.text.concept.definition import Concept
from debias_ssae.text.concept.matching import plain

N_EXAMPLES = 3
"""Texts whose counterfactuals are shown."""


class WordUsage(NamedTuple):
    """How often a listed word was met: as a cue of its value, and passed over (capitals, a rule of context)."""

    word: str
    value: str
    n: int
    passed_over: int


class ConceptUsage(NamedTuple):
    """Counts over texts."""

    n_texts: int
    n_marked: int
    """Texts with a word that shows the attribute."""
    n_mixed: int
    """Of those, with words of several values."""
    n_without_counterfactual: int
    """Of those, with no other value that all their words can show: gaps in the table."""
    texts_of: dict[str, int]
    """Texts that hold a word of each value."""
    words: tuple[WordUsage, ...]
    """Every listed word, most frequent first."""
    swapped: tuple[int, ...]
    """Rows of the first texts that have a counterfactual, one a value as long as there are any."""


def concept_usage(concept: Concept, texts: Sequence[str]) -> ConceptUsage:
    """Count what ``concept`` finds in ``texts``; nothing of the texts themselves is kept."""
    met: Counter[tuple[str, int]] = Counter()
    passed: Counter[str] = Counter()
    texts_of: Counter[int] = Counter()
    marked = mixed = without = 0
    examples: dict[int, list[int]] = {}
    for at, text in enumerate(texts):
        hits = list(concept.hits(text))
        passed.update(word for word, match in hits if match is None)
        found = [(word, match.value) for word, match in hits if match is not None]
        if not found:
            continue
        met.update(found)
        values = {value for _, value in found}
        texts_of.update(values)
        marked += 1
        mixed += len(values) > 1
        if concept.counterfactual(text) is None:
            without += 1
        elif len(examples.setdefault(found[0][1], [])) < N_EXAMPLES:
            examples[found[0][1]].append(at)
    words = [
        WordUsage(word, value, met[plain(word).lower(), i], passed[plain(word).lower()])
        for i, value in enumerate(concept.values)
        for word in concept.words_of(value)
    ]
    rounds = [rows[k] for k in range(N_EXAMPLES) for rows in examples.values() if k < len(rows)]
    return ConceptUsage(
        n_texts=len(texts),
        n_marked=marked,
        n_mixed=mixed,
        n_without_counterfactual=without,
        texts_of={value: texts_of[i] for i, value in enumerate(concept.values)},
        words=tuple(sorted(words, key=lambda word: -word.n)),
        swapped=tuple(rounds[:N_EXAMPLES]),
    )
