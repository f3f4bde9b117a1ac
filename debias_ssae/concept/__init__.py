"""An attribute described by words: pairs to swap (counterfactual twins), words to scrub. No labels needed."""

from debias_ssae.concept.definition import Concept
from debias_ssae.concept.matching import SwapSpan, Twins
from debias_ssae.concept.pairs import SwapPair

__all__ = ["Concept", "SwapPair", "SwapSpan", "Twins"]
