"""Which part of a corpus is worth training on: the texts nearest to a handful of seeds."""

from debias_ssae.retrieval.approximate import ApproximateIndex, build_approximate
from debias_ssae.retrieval.duplicates import unsaid, without
from debias_ssae.retrieval.embedders import embed_texts, embedder_id
from debias_ssae.retrieval.exact import Hits
from debias_ssae.retrieval.index import CorpusIndex
from debias_ssae.retrieval.selecting import RetrievedTexts, retrieve
from debias_ssae.retrieval.views import IndexedTexts, IndexedVectors, PartOfTexts

__all__ = [
    "ApproximateIndex",
    "CorpusIndex",
    "Hits",
    "IndexedTexts",
    "IndexedVectors",
    "PartOfTexts",
    "RetrievedTexts",
    "build_approximate",
    "embed_texts",
    "embedder_id",
    "retrieve",
    "unsaid",
    "without",
]
