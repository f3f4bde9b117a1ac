"""A flat record: what was measured, its value, and what tells it from the others."""

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
