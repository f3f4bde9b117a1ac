"""What is kept on disk: activations in shards, and vectors of texts already seen."""

from debias_ssae.model.store.activations import ActivationStore, StoreWriter
from debias_ssae.model.store.embeddings import EmbeddingCache

__all__ = ["ActivationStore", "EmbeddingCache", "StoreWriter"]
