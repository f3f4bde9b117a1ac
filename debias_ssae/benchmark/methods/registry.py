"""All methods of the benchmark by name; the rooms beside this one add theirs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from debias_ssae.benchmark.methods.variant import Variant

if TYPE_CHECKING:
    from debias_ssae.benchmark.methods.seed import Seed

Make = Callable[["Seed", str], Iterator[Variant]]


@dataclass(frozen=True)
class Method:
    """How a method is run, and what it may be told of the attribute (families of regimes)."""

    name: str
    families: tuple[str, ...]
    make: Make


REGISTRY: dict[str, Method] = {}


def method(name: str, *families: str) -> Callable[[Make], Make]:
    """Register a function of seed and regime that yields variants.

    Families: none; labelled (set A); labelled_gap (other texts' attribute, without y); labelled_head (attribute of
    the head's texts); labelled_all (labels of all but the test texts); concept (words); short (a few of them).
    """

    def register(make: Make) -> Make:
        REGISTRY[name] = Method(name, families, make)
        return make

    return register


def family(regime: str) -> str:
    """The family of a regime: all short lists are one."""
    return "short" if regime.startswith("concept_") else regime
