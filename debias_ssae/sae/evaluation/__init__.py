"""The field's own measures of a sparse autoencoder: arrays in, flat records out.

A record is a mapping with ``measure``, ``value`` and what tells it from the others (``part``, ``decile``, ``k``,
...), so that lists of them can be joined, filtered and written as JSON. No language model is met here: activations
come in as arrays, and the one measure that needs a model's gradients takes them as an array too.
"""

from debias_ssae.sae.evaluation.absorption import (
    ablation_absorption,
    absorption_task,
    n_split,
    projection_absorption,
)
from debias_ssae.sae.evaluation.geometry import decoder_cosines, hedging, pw_mcc, stitching
from debias_ssae.sae.evaluation.probing import scr, sparse_probing, tpp, train_probes
from debias_ssae.sae.evaluation.records import Record, record, values_of
from debias_ssae.sae.evaluation.tokens import (
    TokenPass,
    activation_counts,
    coverage,
    dense_latents,
    description_length,
    encode_tokens,
    error_by_rank,
    frequency_deciles,
    reconstruction,
)

__all__ = [
    "Record",
    "TokenPass",
    "ablation_absorption",
    "absorption_task",
    "activation_counts",
    "coverage",
    "decoder_cosines",
    "dense_latents",
    "description_length",
    "encode_tokens",
    "error_by_rank",
    "frequency_deciles",
    "hedging",
    "n_split",
    "projection_absorption",
    "pw_mcc",
    "reconstruction",
    "record",
    "scr",
    "sparse_probing",
    "stitching",
    "tpp",
    "train_probes",
    "values_of",
]
