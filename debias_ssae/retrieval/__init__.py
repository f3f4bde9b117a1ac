"""Which part of a corpus is worth training on: the texts nearest to a handful of seeds."""

from debias_ssae.retrieval.duplicates import fold, unsaid, without
from debias_ssae.retrieval.embedders import embed_texts, embedder_id, load_embedder
from debias_ssae.retrieval.index import (
    CorpusIndex,
    Hits,
    IndexedTexts,
    IndexedVectors,
    take,
)
from debias_ssae.retrieval.select import RetrievedTexts, retrieve

__all__ = [
    "CorpusIndex",
    "Hits",
    "IndexedTexts",
    "IndexedVectors",
    "RetrievedTexts",
    "embed_texts",
    "embedder_id",
    "fold",
    "load_embedder",
    "retrieve",
    "take",
    "unsaid",
    "without",
]
