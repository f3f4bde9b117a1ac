"""Sparse autoencoders: architectures, training, measures, files. Imports no language model."""

from debias_ssae.sae.formats import load_sae as load_sae
from debias_ssae.sae.formats import save_sae as save_sae
from debias_ssae.sae.model import SAEOutput as SAEOutput
from debias_ssae.sae.model import SparseAutoencoder as SparseAutoencoder
from debias_ssae.sae.training import ShuffledBatches as ShuffledBatches
from debias_ssae.sae.training import TrainResult as TrainResult
from debias_ssae.sae.training import shuffled_batches as shuffled_batches
from debias_ssae.sae.training import train_sae as train_sae
