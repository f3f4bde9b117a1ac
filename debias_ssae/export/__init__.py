"""A fitted debiaser as a model for other libraries."""

from typing import TYPE_CHECKING, Any

from debias_ssae.export.directory import export_sentence_transformers, load_exported

if TYPE_CHECKING:
    from debias_ssae.export.module import DebiasedTransformer

__all__ = ["DebiasedTransformer", "export_sentence_transformers", "load_exported"]


def __getattr__(name: str) -> Any:
    # sentence-transformers takes seconds to import
    if name != "DebiasedTransformer":
        raise AttributeError(f"module 'debias_ssae.export' has no attribute {name!r}")
    from debias_ssae.export.module import DebiasedTransformer

    return DebiasedTransformer
