"""Texts to work on: tables and corpora from files, Bias in Bios from the hub, synthetic biographies."""

from debias_ssae.text.bias_in_bios import load_bias_in_bios
from debias_ssae.text.loading import load_corpus, load_table, read_table, sha256_of
from debias_ssae.text.synthetic import synthetic_biographies, synthetic_corpus

__all__ = [
    "load_bias_in_bios",
    "load_corpus",
    "load_table",
    "read_table",
    "sha256_of",
    "synthetic_biographies",
    "synthetic_corpus",
]
