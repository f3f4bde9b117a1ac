"""Hugging Face models to rows and vectors: hooks, batching, pooling, edits inside the forward pass."""

from debias_ssae.model.embedding import embed
from debias_ssae.model.forward import Edit
from debias_ssae.model.harvesting import Activations, harvest, harvest_many, stream_rows
from debias_ssae.model.language_model import LanguageModel, load_model, wrap_model
from debias_ssae.model.readout import Pooling, Readout

__all__ = [
    "Activations",
    "Edit",
    "LanguageModel",
    "Pooling",
    "Readout",
    "embed",
    "harvest",
    "harvest_many",
    "load_model",
    "stream_rows",
    "wrap_model",
]
