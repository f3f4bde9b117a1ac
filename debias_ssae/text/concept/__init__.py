"""An attribute described by words: pairs to swap (counterfactual pairs), words to scrub. No labels needed."""

from debias_ssae.text.concept.definition import Concept
from debias_ssae.text.concept.matching import CounterfactualPair, SwapSpan
from debias_ssae.text.concept.pairs import SwapPair

__all__ = ["Concept", "CounterfactualPair", "SwapPair", "SwapSpan"]
