"""What is kept on disk: activations in shards, and vectors of texts already seen."""

from debias_ssae.store.embeddings import EmbeddingCache
from debias_ssae.store.reading import ActivationStore
from debias_ssae.store.shards import StoreWriter

__all__ = ["ActivationStore", "EmbeddingCache", "StoreWriter"]
