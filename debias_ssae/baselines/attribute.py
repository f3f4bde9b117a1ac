"""The attribute as users give it, to codes."""

from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.selection import encode_attribute, names_of


def read_attribute(sensitive_features: Any, n: int, asker: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes ``(n,)``, -1 where a value is missing, and the values' names; several columns are crossed.

    Raises InputError without the attribute, for another length than ``n`` and with fewer than two values.
    """
    if sensitive_features is None:
        raise InputError(
            f"{asker} needs the attribute of its training rows: fit(X, y, sensitive_features=...)"
        )
    return encode_attribute(sensitive_features, n)


def apply_attribute(sensitive_features: Any, values: tuple[str, ...], n: int, asker: str) -> np.ndarray:
    """Return codes ``(n,)`` of the ``values`` seen in fit, for methods that need the attribute when used.

    Raises InputError without the attribute, for another length than ``n`` and for a value not seen in fit.
    """
    if sensitive_features is None:
        raise InputError(f"{asker} needs the attribute of the rows it is used on: sensitive_features=...")
    names = names_of(sensitive_features)
    if len(names) != n:
        raise InputError(f"sensitive_features has {len(names)} rows, but X has {n}; they must agree")
    strange = sorted(set(names) - set(values))
    if strange:
        raise InputError(f"sensitive_features holds {strange}, not seen in fit; known: {list(values)}")
    return np.array([values.index(name) for name in names], dtype=int)
