"""An attribute described by words: what to swap (counterfactual pairs) and to scrub. No labels needed."""

from debias_ssae.text.concept.definition import Concept as Concept
from debias_ssae.text.concept.rows import WordRow as WordRow
from debias_ssae.text.concept.usage import ConceptUsage as ConceptUsage
from debias_ssae.text.concept.usage import concept_usage as concept_usage
