"""What is kept on disk: activations in shards, and vectors of texts already seen."""

from debias_ssae.model.store.activations import ActivationStore as ActivationStore
from debias_ssae.model.store.activations import StoreWriter as StoreWriter
from debias_ssae.model.store.embeddings import EmbeddingCache as EmbeddingCache
