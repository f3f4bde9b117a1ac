"""A fitted debiaser as a model for other libraries."""

from debias_ssae.export.directory import export_sentence_transformers, load_exported

__all__ = ["export_sentence_transformers", "load_exported"]
