"""Hugging Face models to rows and vectors: hooks, batching, pooling, edits inside the forward pass."""

from debias_ssae.model.forward import Edit as Edit
from debias_ssae.model.harvesting import Activations as Activations
from debias_ssae.model.harvesting import embed as embed
from debias_ssae.model.harvesting import harvest as harvest
from debias_ssae.model.harvesting import harvest_many as harvest_many
from debias_ssae.model.harvesting import stream_rows as stream_rows
from debias_ssae.model.language_model import LanguageModel as LanguageModel
from debias_ssae.model.language_model import full_precision as full_precision
from debias_ssae.model.language_model import load_model as load_model
from debias_ssae.model.language_model import quiet_loading as quiet_loading
from debias_ssae.model.language_model import wrap_model as wrap_model
from debias_ssae.model.readout import Pooling as Pooling
from debias_ssae.model.readout import Readout as Readout
