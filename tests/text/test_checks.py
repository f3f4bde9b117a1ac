"""Texts and columns as users hand them over: taken where order and names are certain, else refused."""

from collections import OrderedDict, deque

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from debias_ssae.audit.rates import attributes_of
from debias_ssae.core.errors import InputError
from debias_ssae.text.checks import check_texts, named_columns

WANTED = ["she cares", "he operates"]
TABLE = datasets.Dataset.from_dict({"text": WANTED})


@pytest.mark.parametrize(
    "given",
    [
        WANTED,
        tuple(WANTED),
        deque(WANTED),
        np.array(WANTED),
        np.array(WANTED, dtype=object)[:, None],
        pd.Series(WANTED, index=[5, 5]),
        pd.Series(WANTED, dtype="category"),
        pd.DataFrame({"t": WANTED}),
        pd.Index(WANTED),
        pl.Series("t", WANTED),
        pl.DataFrame({"t": WANTED}),
        pa.array(WANTED),
        pa.chunked_array([WANTED[:1], WANTED[1:]]),
        pa.table({"t": WANTED}),
        TABLE["text"],
        {"a": WANTED[0], "b": WANTED[1]}.values(),
    ],
)
def test_sequences_and_columns_are_taken(given) -> None:
    assert check_texts(given) == WANTED


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"q": "she"}, "mapping"),
        (OrderedDict(q="she"), "mapping"),
        (datasets.DatasetDict(train=TABLE), "mapping"),
        (TABLE, "data set"),
        ({"she"}, "no order"),
        (frozenset({"she"}), "no order"),
        ({"she": 1}.keys(), "no order"),
        (b"she", "single bytes"),
        (bytearray(b"she"), "single bytearray"),
        (memoryview(b"she"), "single memoryview"),
        ((t for t in WANTED), "one-shot"),
        (map(str, WANTED), "one-shot"),
        (None, "got None"),
        (3, "got 3"),
        (np.array("she"), "texts were expected"),
        ([b"she"], "row 0 holds b'she' of type bytes"),
        ([["she"]], "row 0"),
        (range(2), "row 0 holds 0"),
        (pd.Series(["a", None]), "missing"),
        (pl.Series(["a", None]), "missing"),
        (np.ma.masked_array(["a", "b"], [False, True]), "row 1"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "table of 2 columns"),
    ],
)
def test_everything_else_is_refused(given, said) -> None:
    with pytest.raises(InputError, match=said) as error:
        check_texts(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict])
def test_names_of_tables_are_kept(make) -> None:
    found = named_columns(make({"sex": ["f", "m"], "age": [1, None]}), "it")
    assert list(found) == ["sex", "age"]
    assert found["sex"].tolist() == ["f", "m"]


def test_names_of_columns_are_kept_and_whole_numbers_stay_whole() -> None:
    for series in (pl.Series("sex", [1, None]), pd.Series([1, None], name="sex")):
        (attribute,) = attributes_of(series)
        assert attribute.name == "sex"
        assert attribute.groups == ("1", "unknown")
    assert list(named_columns(["f", "m"], "it")) == ["group"]
    assert list(named_columns(np.array([["f", "x"], ["m", "y"]]), "it")) == ["attribute_0", "attribute_1"]
    for wrong in (None, "f", {"f"}, 3):
        with pytest.raises(InputError):
            named_columns(wrong, "it")
