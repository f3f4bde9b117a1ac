"""Fixtures of the small debiaser."""

from small_debiaser import concept, fitted, small_encoder, texts

__all__ = ["concept", "fitted", "small_encoder", "texts"]
