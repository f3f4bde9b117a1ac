"""A fitted debiaser as a model for other libraries."""

from debias_ssae.export.directory import (
    debiased_classifier,
    export_classifier,
    export_onnx,
    export_sentence_transformers,
    load_exported,
)

__all__ = [
    "debiased_classifier",
    "export_classifier",
    "export_onnx",
    "export_sentence_transformers",
    "load_exported",
]
