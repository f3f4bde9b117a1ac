"""Texts to work on: tables and corpora from files, Bias in Bios from the hub, synthetic biographies."""

from debias_ssae.text.bias_in_bios import load_bias_in_bios as load_bias_in_bios
from debias_ssae.text.synthetic import synthetic_biographies as synthetic_biographies
from debias_ssae.text.synthetic import synthetic_corpus as synthetic_corpus
from debias_ssae.text.tables import load_corpus as load_corpus
from debias_ssae.text.tables import load_table as load_table
from debias_ssae.text.tables import read_table as read_table
from debias_ssae.text.tables import write_table as write_table
