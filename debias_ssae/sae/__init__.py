"""Sparse autoencoders: architectures, training, measures, files. Imports no language model."""

from debias_ssae.sae.formats import load_sae, save_dictionary_learning, save_sae
from debias_ssae.sae.model import SAEOutput, SparseAutoencoder
from debias_ssae.sae.streams import ShuffledBatches, shuffled_batches
from debias_ssae.sae.trainer import TrainResult, train_sae

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
