"""The field's own measures of a sparse autoencoder: arrays in, flat records out.

A record is a mapping with ``measure``, ``value`` and what tells it from the others (``part``, ``decile``, ``k``,
...), so that lists of them can be joined, filtered and written as JSON. No language model is met here: activations
come in as arrays, and the one measure that needs a model's gradients takes them as an array too.
"""

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def record(measure: str, value: Any, **where: Any) -> Record:
    """Return a record of ``measure``."""
    return {"measure": measure, "value": value, **where}


def values_of(records: Sequence[Record], measure: str, **where: Any) -> list[Any]:
    """Return the values of the records of ``measure`` that hold all of ``where``."""
    return [
        r["value"]
        for r in records
        if r["measure"] == measure and all(r.get(k) == v for k, v in where.items())
    ]
