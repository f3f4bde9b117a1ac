"""What the user hands over as texts or as columns: taken where its order and names are certain, else refused."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.core.errors import InputError, brief, one_line

MOST_FRACTIONS = 20
"""Different numbers with fractions that can still be labels."""


def check_texts(X: Any, *, name: str = "texts", may_be_empty: bool = False) -> list[str]:
    """Return ``X`` as a list of strings.

    Takes a sequence, array, Series (pandas, polars), Arrow array or one-column table of strings. Raises InputError
    for anything else: one string, bytes, a mapping, a set (its order is not certain), a one-shot iterator, no texts
    (unless ``may_be_empty``), a missing text, a number.
    """
    kind = "string" if isinstance(X, str) else type(X).__name__
    for is_wrong, what, cure in (
        (
            isinstance(X, str | bytes | bytearray | memoryview),
            f"a single {kind}",
            "a list of strings: [text]",
        ),
        (isinstance(X, Mapping), f"a mapping ({kind})", "list(x.values()) or one column"),
        (isinstance(X, Set), f"a {kind}, which has no order,", "a list"),
        (hasattr(X, "__next__"), "a one-shot iterator", "a list, since texts are read more than once"),
        (hasattr(X, "column_names") and hasattr(X, "features"), "a data set", "a column of it: data['text']"),
    ):
        if is_wrong:
            raise InputError(f"got {what} where {name} were expected; pass {cure}")
    if len(getattr(X, "shape", ())) == 2:  # pyarrow tables have no ndim
        if X.shape[1] != 1:
            raise InputError(f"got a table of {X.shape[1]} columns where one column of {name} was expected")
        X = in_pandas(X)
        X = X.iloc[:, 0] if isinstance(X, pd.DataFrame) else X[:, 0]
    try:
        values = X.to_pylist() if hasattr(X, "to_pylist") else list(X)
    except TypeError:
        raise InputError(
            f"got {brief(X)} ({kind}) where {name} were expected; pass a list of strings"
        ) from None
    if not values and not may_be_empty:
        raise InputError(f"got no {name}; at least one is needed")
    for i, text in enumerate(values):
        if not isinstance(text, str):
            missing = pd.api.types.is_scalar(text) and pd.isna(text)
            cure = 'replace missing texts by ""' if missing else "texts must be strings"
            where = f"row {i}" if name == "texts" else f"row {i} of {name}"
            raise InputError(f"{where} holds {brief(text)} of type {type(text).__name__}, not a text; {cure}")
    return [str(text) for text in values]


def texts_sha256(texts: Iterable[str | None]) -> str:
    """Return a hexadecimal id of the texts in their order; a missing one counts as empty."""
    digest = hashlib.sha256()
    for text in texts:
        raw = (text or "").encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def named_columns(given: Any, name: str) -> dict[str, "pd.Series[Any]"]:
    """Return one or several columns by name: a table, a Series, a mapping of columns, or arrays ``[n]``, ``[n, m]``.

    Names of pandas, polars and Arrow are kept; a column without a name is ``group``, several without names are
    ``attribute_0``, ``attribute_1``, ... Raises InputError for what is no column.
    """
    if given is None:
        raise InputError(f"{name} is needed; pass one column (or a table or dict of columns)")
    given = in_pandas(given)
    if isinstance(given, pd.DataFrame | Mapping):
        labels = [str(label) for label in given]
        if len(set(labels)) < len(labels):
            raise InputError(f"{name} has two columns of one name; give them names of their own")
        if not labels:
            raise InputError(f"{name} has no columns; pass one or several")
        found = {str(label): column(values, str(label)) for label, values in given.items()}
        lengths = {label: len(values) for label, values in found.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"the columns of {name} have different lengths: {brief(lengths)}")
        return found
    if (
        not isinstance(given, pd.Series)
        and hasattr(given, "__len__")
        and not isinstance(given, str | bytes | Set)
    ):
        array = np.asarray(given, dtype=object)
        if array.ndim == 2 and array.shape[1] > 1:
            return {f"attribute_{i}": column(array[:, i], name) for i in range(array.shape[1])}
    label = given.name if isinstance(given, pd.Series) and given.name not in (None, "") else "group"
    return {str(label): column(given, name)}


def column(values: Any, name: str) -> "pd.Series[Any]":
    """Return ``values`` as a flat Series with a plain index; raises InputError for what is no column."""
    values = in_pandas(values)
    if isinstance(values, pd.DataFrame):
        if values.shape[1] != 1:
            raise InputError(f"{name} must be one column, got {values.shape[1]}")
        values = values.iloc[:, 0]
    is_sequence = hasattr(values, "__len__") or hasattr(values, "__array__")
    if isinstance(values, str | bytes | Mapping | Set) or not is_sequence:
        raise InputError(f"{name} must be a sequence with one entry a row, got {type(values).__name__}")
    if not isinstance(values, pd.Series):
        try:
            array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
            if array.ndim == 2 and array.shape[1] == 1:
                array = array[:, 0]
            if array.ndim != 1:
                raise InputError(f"{name} must be flat (one entry a row), got shape {array.shape}")
            values = pd.Series(array).infer_objects()
        except (TypeError, ValueError, RuntimeError) as error:  # of tensors, and of half surrogate pairs
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name} cannot be read as a column: {one_line(error)}") from error
    if values.dtype == object:
        try:
            values.nunique()
        except TypeError as error:
            raise InputError(f"{name} must hold one value a row ({one_line(error)})") from error
    return values.reset_index(drop=True)


def check_labels(labels: Any, where: str) -> None:
    """Raise InputError where ``labels`` are not of one kind that has an order; missing ones count for nothing."""
    given: Any = pd.Series(labels)
    try:
        sorted(set(given[given.notna()].tolist()))
    except TypeError as error:
        raise InputError(
            f"{where} holds values that are no labels of one kind ({one_line(error)}); give strings alone, or numbers"
        ) from error


def check_not_measured(values: Sequence[Any], where: str) -> None:
    """Raise InputError where the different ``values`` are many numbers with fractions: these are no groups."""
    fractions = [value for value in values if isinstance(value, float) and not float(value).is_integer()]
    if fractions and len(values) > MOST_FRACTIONS:
        raise InputError(
            f"{where} holds {len(values)} different numbers, such as {fractions[0]:g}, where labels were expected; bin"
            " them first, for example by pandas.cut"
        )


def table_of(given: Any, name: str) -> pd.DataFrame:
    """Return :func:`named_columns` as one table."""
    return pd.DataFrame(named_columns(given, name))


def take(X: Any, rows: np.ndarray) -> Any:
    """Return the given rows of texts (a list) or of a matrix."""
    return [X[i] for i in rows.tolist()] if isinstance(X, list) else np.asarray(X)[rows]


def read_matrix(estimator: Any, X: Any, *y: Any, **options: Any) -> Any:
    """Return what scikit-learn's ``validate_data`` does, whose own refusals pass.

    Raises InputError where another library (of tensors or tables) refuses to give its numbers.
    """
    from sklearn.utils.validation import validate_data

    try:
        return validate_data(estimator, X, *y, **options)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is None or str(trace.tb_frame.f_globals.get("__name__")).startswith("sklearn."):
            raise
        raise InputError(
            f"X ({type(X).__name__}) cannot be read as a matrix: {one_line(error)}; pass a NumPy array"
        ) from error


def in_pandas(values: Any) -> Any:
    """Tables and columns of polars and Arrow in pandas', their whole numbers whole beside missing ones."""
    if isinstance(values, pd.DataFrame | pd.Series | np.ndarray | list | tuple):
        return values
    name = getattr(values, "name", None)
    if hasattr(values, "to_arrow"):
        values = values.to_arrow()
    if type(values).__module__.split(".")[0] == "pyarrow":
        values = values.to_pandas(integer_object_nulls=True)
        return values.rename(name) if isinstance(values, pd.Series) else values
    return values.to_pandas() if hasattr(values, "to_pandas") else values
