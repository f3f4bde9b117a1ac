"""An attribute described by words: what to swap (counterfactual pairs) and to scrub. No labels needed."""

from debias_ssae.text.concept.definition import Concept
from debias_ssae.text.concept.matching import CounterfactualPair, SwapSpan
from debias_ssae.text.concept.rows import SwapPair, WordRow
from debias_ssae.text.concept.usage import ConceptUsage, WordUsage, concept_usage

__all__ = [
    "Concept",
    "ConceptUsage",
    "CounterfactualPair",
    "SwapPair",
    "SwapSpan",
    "WordRow",
    "WordUsage",
    "concept_usage",
]
