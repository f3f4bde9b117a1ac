"""Heads that use group labels: on the labels of A, or, where its data hold every group, on the head's own."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from debias_ssae.baselines import (
    GroupDRO,
    GroupReweighting,
    GroupSubsampling,
    LastLayerRetraining,
    ParityThresholds,
    ReducedHead,
)
from debias_ssae.benchmark.heads import FIXED_C, Head, Training, choose_c
from debias_ssae.benchmark.methods.registry import Make, method
from debias_ssae.benchmark.methods.seed import Seed
from debias_ssae.benchmark.methods.variant import Variant
from debias_ssae.core.errors import InputError


def _group(name: str, families: tuple[str, ...], make: Callable[..., Any], *, takes_c: bool) -> Make:
    """A classifier of the plain vectors; its C, where it has one, by the benchmark's rules on its own data."""

    def variants(seed: Seed, regime: str) -> Iterator[Variant]:
        labelled, rows = seed.attribute_set(regime), seed.plain
        y, z = np.asarray(labelled.y), labelled.z
        _check_cells(y, z)
        X = seed.attribute_rows(seed.corpus.passes.plain(), rows, regime)
        start = time.perf_counter()
        chosen: dict[str, float | None] = {"own": None}
        if takes_c:
            chosen = {"cv": choose_c(X, y, random_state=seed.number), "fixed": FIXED_C}
        heads = []
        for rule, C in chosen.items():
            model = make(seed.number) if C is None else make(seed.number, C=C)
            model.fit(X, y, sensitive_features=z)
            heads.append(Head(model, C, rule, needs_attribute=model.needs_attribute_at_predict))
        seconds = time.perf_counter() - start
        needs = heads[0].needs_attribute
        yield Variant(name, regime, rows, heads=tuple(heads), needs_attribute=needs, seconds_fit=seconds)

    return method(name, *families)(variants)


def _check_cells(y: np.ndarray, z: np.ndarray) -> None:
    cells = {(str(c), str(g)) for c, g in zip(y, z, strict=True)}
    if len(cells) < len({c for c, _ in cells}) * len({g for _, g in cells}):
        raise InputError("some class holds one attribute value only, so there are no groups to balance")


_HEAD, _BOTH = ("labelled_head",), ("labelled", "labelled_head")
# A is balanced, so weighing or drawing its groups alike is head_on_A
_group("reweighting", _HEAD, lambda seed, C: GroupReweighting(C=C), takes_c=True)
_group("subsampling", _HEAD, lambda seed, C: GroupSubsampling(C=C, random_state=seed), takes_c=True)
_group("dfr", ("labelled",), lambda seed: LastLayerRetraining(random_state=seed), takes_c=False)
_group("group_dro", _BOTH, lambda seed: GroupDRO(), takes_c=False)
_group("exponentiated_gradient", _BOTH, lambda seed, C: ReducedHead(C=C, random_state=seed), takes_c=True)
_group("threshold_optimizer", _BOTH, lambda seed, C: ParityThresholds(C=C, random_state=seed), takes_c=True)


@method("head_on_A", "labelled")
def head_on_a(seed: Seed, regime: str) -> Iterator[Variant]:
    """A head trained on set A alone."""
    yield trained_on_a(seed, "head_on_A", regime)


def trained_on_a(seed: Seed, name: str, regime: str) -> Variant:
    """The plain vectors, with heads that learn from set A."""
    y = seed.corpus.y[seed.split.attribute]
    return Variant(name, regime, seed.plain, Training(seed.plain.attribute, y, chooses=seed.choosing))
