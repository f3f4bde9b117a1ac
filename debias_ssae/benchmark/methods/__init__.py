"""The methods compared: each turns a seed's texts into representations for the heads, or into predictions.

``REGISTRY`` holds them by name; ``variants(seed, name)`` runs one. A method is a small function of a seed and a
regime; families of methods have a file each.
"""

from debias_ssae.benchmark.methods import controls, groups, linear, shift, sparse, text
from debias_ssae.benchmark.methods.registry import REGISTRY, variants
from debias_ssae.benchmark.methods.seed import AttributeSet, Corpus, Seed, TrainedSAE
from debias_ssae.benchmark.methods.variant import PairActivations, Rows, Variant

_FAMILIES = (controls, text, linear, groups, shift, sparse)
METHODS = tuple(
    name for room in _FAMILIES for name, found in REGISTRY.items() if found.make.__module__ == room.__name__
)
"""In the order of tables."""

__all__ = [
    "METHODS",
    "REGISTRY",
    "AttributeSet",
    "Corpus",
    "PairActivations",
    "Rows",
    "Seed",
    "TrainedSAE",
    "Variant",
    "controls",
    "groups",
    "linear",
    "shift",
    "sparse",
    "text",
    "variants",
]
