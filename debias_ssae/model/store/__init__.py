"""What is kept on disk: activations in shards, and vectors of texts already seen."""

from debias_ssae.model.store.embeddings import EmbeddingCache
from debias_ssae.model.store.reading import ActivationStore
from debias_ssae.model.store.shards import StoreWriter

__all__ = ["ActivationStore", "EmbeddingCache", "StoreWriter"]
