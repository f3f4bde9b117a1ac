"""All methods of the benchmark by name, and how one is run; the rooms beside this one add theirs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from debias_ssae.benchmark.methods.seed import Seed
from debias_ssae.benchmark.methods.variant import Variant
from debias_ssae.core.errors import InputError, MissingExtraError

Make = Callable[[Seed, str], Iterator[Variant]]
ENDS = ("erm", "majority", "oracle", "oracle_large")
"""Run whatever regimes are asked for."""


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


def variants(seed: Seed, method: str) -> Iterator[Variant]:
    """Yield the method's variants, regime by regime; what cannot run is noted in ``seed.skipped``."""
    made = REGISTRY[method]
    asked = made.families if method in ENDS else seed.regimes
    regimes = [regime for regime in asked if _family(regime) in made.families]
    if not regimes:
        _skip(seed, method, "", f"the run has none of its regimes ({', '.join(made.families)})")
    for regime in regimes:
        try:
            yield from made.make(seed, regime)
        except (InputError, MissingExtraError) as error:
            _skip(seed, method, regime, str(error))


def _skip(seed: Seed, method: str, regime: str, reason: str) -> None:
    seed.skipped.append({"method": method, "regime": regime, "reason": reason})


def _family(regime: str) -> str:
    """The family of a regime: all short lists are one."""
    return "short" if regime.startswith("concept_") else regime
