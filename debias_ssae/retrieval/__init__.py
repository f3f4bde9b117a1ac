"""Which part of a corpus is worth training on: the texts nearest to a handful of seeds."""

from debias_ssae.retrieval.approximate import ApproximateIndex, build_approximate
from debias_ssae.retrieval.duplicates import without
from debias_ssae.retrieval.embedders import embed_texts, embedder_id
from debias_ssae.retrieval.exact import Hits
from debias_ssae.retrieval.index import CorpusIndex
from debias_ssae.retrieval.selecting import RetrievedTexts, retrieve
from debias_ssae.retrieval.views import IndexedTexts, IndexedVectors

__all__ = [
    "ApproximateIndex",
    "CorpusIndex",
    "Hits",
    "IndexedTexts",
    "IndexedVectors",
    "RetrievedTexts",
    "build_approximate",
    "embed_texts",
    "embedder_id",
    "retrieve",
    "without",
]
