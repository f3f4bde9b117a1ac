"""Sparse autoencoders: architectures, training, measures, files. Imports no language model."""

from debias_ssae.sae.formats import load_sae, save_dictionary_learning, save_sae
from debias_ssae.sae.model import SAEOutput, SparseAutoencoder
from debias_ssae.sae.training import ShuffledBatches, TrainResult, shuffled_batches, train_sae

__all__ = [
    "SAEOutput",
    "ShuffledBatches",
    "SparseAutoencoder",
    "TrainResult",
    "load_sae",
    "save_dictionary_learning",
    "save_sae",
    "shuffled_batches",
    "train_sae",
]
