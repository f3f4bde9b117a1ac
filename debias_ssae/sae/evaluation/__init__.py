"""The field's own measures of a sparse autoencoder: arrays in, flat records out.

A record is a mapping with ``measure``, ``value`` and what tells it from the others (``part``, ``decile``, ``k``,
...), so that lists of them can be joined, filtered and written as JSON. No language model is met here: activations
come in as arrays, and the one measure that needs a model's gradients takes them as an array too.
"""

from debias_ssae.sae.evaluation.absorption import ablation_absorption as ablation_absorption
from debias_ssae.sae.evaluation.absorption import absorption_task as absorption_task
from debias_ssae.sae.evaluation.absorption import n_split as n_split
from debias_ssae.sae.evaluation.absorption import projection_absorption as projection_absorption
from debias_ssae.sae.evaluation.geometry import decoder_cosines as decoder_cosines
from debias_ssae.sae.evaluation.geometry import hedging as hedging
from debias_ssae.sae.evaluation.geometry import pw_mcc as pw_mcc
from debias_ssae.sae.evaluation.geometry import stitching as stitching
from debias_ssae.sae.evaluation.probing import scr as scr
from debias_ssae.sae.evaluation.probing import sparse_probing as sparse_probing
from debias_ssae.sae.evaluation.probing import tpp as tpp
from debias_ssae.sae.evaluation.probing import train_probes as train_probes
from debias_ssae.sae.evaluation.records import Record as Record
from debias_ssae.sae.evaluation.records import record as record
from debias_ssae.sae.evaluation.records import values_of as values_of
from debias_ssae.sae.evaluation.tokens import TokenPass as TokenPass
from debias_ssae.sae.evaluation.tokens import activation_counts as activation_counts
from debias_ssae.sae.evaluation.tokens import coverage as coverage
from debias_ssae.sae.evaluation.tokens import dense_latents as dense_latents
from debias_ssae.sae.evaluation.tokens import description_length as description_length
from debias_ssae.sae.evaluation.tokens import encode_tokens as encode_tokens
from debias_ssae.sae.evaluation.tokens import error_by_rank as error_by_rank
from debias_ssae.sae.evaluation.tokens import frequency_deciles as frequency_deciles
from debias_ssae.sae.evaluation.tokens import reconstruction as reconstruction
