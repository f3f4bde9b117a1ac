"""Texts to work on: tables and corpora from files, Bias in Bios from the hub, synthetic biographies."""

from debias_ssae.text.bias_in_bios import load_bias_in_bios
from debias_ssae.text.checks import check_texts, named_columns
from debias_ssae.text.synthetic import synthetic_biographies, synthetic_corpus
from debias_ssae.text.tables import (
    load_corpus,
    load_table,
    read_table,
    spreadsheet_safe,
    stream_texts,
    write_table,
)

__all__ = [
    "check_texts",
    "load_bias_in_bios",
    "load_corpus",
    "load_table",
    "named_columns",
    "read_table",
    "spreadsheet_safe",
    "stream_texts",
    "synthetic_biographies",
    "synthetic_corpus",
    "write_table",
]
