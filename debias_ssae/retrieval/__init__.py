"""Which part of a corpus is worth training on: the texts nearest to a handful of seeds."""

from debias_ssae.retrieval.embedders import embed_texts
from debias_ssae.retrieval.selecting import RetrievedTexts, retrieve

__all__ = ["RetrievedTexts", "embed_texts", "retrieve"]
