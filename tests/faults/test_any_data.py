"""Texts, labels and matrices of every kind through Python: a right answer or one line, and laws of what comes out."""

import datetime
import decimal
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from small_debiaser import concept, fitted, make_texts, small_encoder, texts
from test_fuzz import one_line
from test_fuzz_models import CONFIG

from debias_ssae import SSAEDebiaser
from debias_ssae.audit import audit
from debias_ssae.audit.leakage import probe_leakage
from debias_ssae.baselines import (
    INLP,
    LEACE,
    SPLINCE,
    CorrelationRemoval,
    GroupDRO,
    GroupReweighting,
    GroupSubsampling,
    LogisticHead,
    MeanDifference,
    TextScrubber,
)
from debias_ssae.core.errors import InputError
from debias_ssae.selection.attribute import AnnotatedTexts
from debias_ssae.text.checks import check_texts, named_columns

__all__ = ["concept", "fitted", "small_encoder", "texts"]

N = 60
RNG = np.random.default_rng(0)
G = np.arange(N) % 2
Y = (np.arange(N) // 2) % 2
X = RNG.normal(size=(N, 6)) + G[:, None] * np.eye(6)[0] * 3
NAMES = np.where(G == 1, "f", "m")

COLUMNS: dict[str, Any] = {
    "ints": G,
    "strings": NAMES,
    "list": NAMES.tolist(),
    "bools": G == 1,
    "floats": G.astype(float),
    "float16": G.astype(np.float16),
    "huge ints": G * 10**18,
    "beyond int64": [int(g) * 10**30 for g in G],
    "thirds": G / 3,
    "column": NAMES[:, None],
    "row": NAMES[None, :],
    "object": NAMES.astype(object),
    "numpy strings": list(NAMES),
    "series": pd.Series(NAMES, index=np.arange(N)[::-1]),
    "categories": pd.Series(pd.Categorical(NAMES, categories=["x", "f", "m", "y"])),
    "ordered categories": pd.Series(pd.Categorical(NAMES, categories=["m", "f", "z"], ordered=True)),
    "Int64 with NA": pd.array([None, *G[1:].tolist()], dtype="Int64"),
    "boolean with NA": pd.array([None, *(G[1:] == 1).tolist()], dtype="boolean"),
    "string dtype": pd.array([*NAMES[:-1].tolist(), None], dtype="string"),
    "arrow strings": pa.array(NAMES.tolist()),
    "arrow dictionary": pa.array(NAMES.tolist()).dictionary_encode(),
    "arrow with null": pa.array([None, *NAMES[1:].tolist()]),
    "polars": pl.Series("g", NAMES.tolist()),
    "polars categories": pl.Series("g", NAMES.tolist(), dtype=pl.Categorical),
    "polars ints with null": pl.Series("g", [None, *G[1:].tolist()]),
    "polars frame": pl.DataFrame({"g": NAMES.tolist()}),
    "frame": pd.DataFrame({"g": NAMES}),
    "two columns": pd.DataFrame({"g": NAMES, "h": Y}),
    "columns of one name": pd.DataFrame(np.stack([NAMES, NAMES], 1), columns=["g", "g"]),
    "no columns": pd.DataFrame(index=range(N)),
    "dates": [datetime.date(2020, 1, 1 + int(g)) for g in G],
    "datetimes": pd.to_datetime(["2020-01-01" if g else "2021-01-01" for g in G]),
    "timedeltas": pd.to_timedelta(G, unit="s"),
    "decimals": [decimal.Decimal(int(g)) for g in G],
    "None among strings": [None, *NAMES[1:]],
    "NaN among strings": [float("nan"), *NAMES[1:]],
    "NaN among floats": np.where(np.arange(N) == 0, np.nan, G),
    "infinite": np.where(np.arange(N) == 0, np.inf, G),
    "mixed types": [1 if g else "m" for g in G],
    "1 and '1'": [1 if g else "1" for g in G],
    "True and 1": [True if g else 1 for g in G],
    "bytes": [b"f" if g else b"m" for g in G],
    "tuples": [("f",) if g else ("m",) for g in G],
    "lists": [["f"] if g else ["m"] for g in G],
    "ragged": [["f"] if g else ["m", "n"] for g in G],
    "dicts": [{"a": int(g)} for g in G],
    "sets": [{int(g)} for g in G],
    "complex": G.astype(complex),
    "masked": np.ma.masked_array(G, np.arange(N) == 0),
    "read-only": (lambda a: a.setflags(write=False) or a)(G.copy()),
    "strided": np.repeat(G, 2)[::2],
    "sparse": sparse.csr_matrix(G[:, None]),
    "one value": ["f"] * N,
    "one row a value": [f"v{i}" for i in range(N)],
    "one of one kind": ["f", *["m"] * (N - 1)],
    "all missing": [None] * N,
    "blank": [" " if g else "" for g in G],
    "spaces around": [" f" if g else "f" for g in G],
    "surrogates": ["\ud800" if g else "m" for g in G],
    "control characters": ["\x00\x1b" if g else "m\n" for g in G],
    "long": ["f" * 100_000 if g else "m" for g in G],
    "too short": NAMES[:-1],
    "too long": [*NAMES, "f"],
    "empty": [],
    "a string": "fm" * 30,
    "a set": {"f", "m"},
    "a mapping": {"g": NAMES},
    "a mapping of numbers": dict(enumerate(G)),
    "a generator": (g for g in G),
    "a number": 3,
    "a scalar array": np.array(1),
    "three axes": np.zeros((N, 1, 2)),
    "tensor": torch.from_numpy(G),
    "boolean tensor": torch.from_numpy(G == 1),
    "an object": object(),
    "a type": int,
}


def head(kind: Callable[..., Any], **options: Any) -> Callable[[Any], Any]:
    return lambda column: kind(**options).fit(X, Y, sensitive_features=column).predict(X)


def eraser(kind: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda column: kind().fit(X, Y, sensitive_features=column).transform(X)


def debiased(column: Any, y: Any = None) -> np.ndarray:
    return (
        SSAEDebiaser(config=CONFIG, random_state=0, n_latents=2)
        .fit(X, y, sensitive_features=column)
        .transform(X)
    )


USES: dict[str, Callable[[Any], Any]] = {
    "debiaser": debiased,
    "debiaser's y": lambda column: debiased(NAMES, column),
    "annotated": lambda column: AnnotatedTexts(make_texts(N), column, Y).check(3),
    "annotated y": lambda column: AnnotatedTexts(make_texts(N), NAMES, column).check(3),
    "audit": lambda column: audit(Y, G, sensitive_features=column, n_bootstrap=20).by_group,
    "audit's y_true": lambda column: audit(column, column, sensitive_features=NAMES, n_bootstrap=20).by_group,
    "audit's weight": lambda column: audit(Y, G, sensitive_features=NAMES, sample_weight=column, n_bootstrap=20),
    "audit's score": lambda column: audit(Y, G, sensitive_features=NAMES, y_score=column, n_bootstrap=20),
    "audit's control": lambda column: audit(Y, G, sensitive_features=NAMES, control_features=column, n_bootstrap=20),
    "leakage": lambda column: probe_leakage(X, column, Y, probes=("linear",), random_state=0),
    "leakage's y": lambda column: probe_leakage(X, NAMES, column, probes=("linear",), random_state=0),
    "named columns": lambda column: named_columns(column, "sensitive_features"),
    "LEACE": eraser(LEACE),
    "mean difference": eraser(MeanDifference),
    "INLP": eraser(INLP),
    "SPLINCE": eraser(SPLINCE),
    "correlation": lambda column: CorrelationRemoval().fit(X, sensitive_features=column),
    "head": lambda column: LogisticHead(C=1.0).fit(X, column).predict(X),
    "reweighting": head(GroupReweighting, C=1.0),
    "subsampling": head(GroupSubsampling, C=1.0),
    "group DRO": head(GroupDRO),
}  # fmt: skip


def answered(call: Callable[[], Any]) -> Any:
    """What a call gives, or the InputError that it raises; scikit-learn's own validation may speak, in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except InputError as error:
            one_line(error)
            return error
        except (ValueError, TypeError) as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
            if module.startswith("sklearn."):
                return InputError(str(error))
            raise


@pytest.mark.parametrize("use", USES)
def test_any_column_is_read_or_refused_in_one_line(use, amount, counted):
    wrong, step = {}, amount(4, 1)  # a quarter of the columns for each use, another one for each
    for name, column in list(COLUMNS.items())[list(USES).index(use) % step :: step]:
        given = (g for g in G) if name == "a generator" else column
        try:
            answered(lambda: USES[use](given))  # noqa: B023
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {str(error)[:200]}"
        counted["columns"] = counted.get("columns", 0) + 1
    assert not wrong


SAME = [
    "ints", "list", "bools", "floats", "float16", "huge ints", "column", "object", "numpy strings",
    "series", "categories", "ordered categories", "arrow strings", "arrow dictionary", "polars",
    "polars categories", "polars frame", "frame", "dates", "datetimes", "timedeltas", "decimals",
    "bytes", "read-only", "strided", "thirds", "long", "tensor",
]  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_one_column_in_any_container_gives_one_answer(name):
    """The same partition of the rows, whatever its values are called and held in."""
    wanted, found = debiased(NAMES), answered(lambda: debiased(COLUMNS[name]))
    if isinstance(found, InputError):
        assert name in ("bytes", "tensor", "decimals"), found
        return
    assert np.allclose(found, wanted, atol=1e-10)


def test_what_looks_equal_and_is_not_is_not_merged():
    for name in ("1 and '1'", "spaces around"):
        found = answered(lambda: audit(Y, G, sensitive_features=COLUMNS[name], n_bootstrap=20).by_group)  # noqa: B023
        assert isinstance(found, InputError) or found["group"].nunique() == 3, name  # two, and all rows


MATRICES: dict[str, Any] = {
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "longdouble": X.astype(np.longdouble),
    "ints": (X * 10).astype(int),
    "bools": X > 0,
    "Fortran": np.asfortranarray(X),
    "read-only": (lambda a: a.setflags(write=False) or a)(X.copy()),
    "strided": np.repeat(X, 2, axis=0)[::2],
    "backwards": X[::-1],
    "other byte order": X.astype(">f8"),
    "lists": X.tolist(),
    "frame": pd.DataFrame(X),
    "named frame": pd.DataFrame(X, columns=list("abcdef")),
    "mixed frame": pd.DataFrame(X).assign(s="a"),
    "columns of one name": pd.DataFrame(X, columns=["a"] * 6),
    "polars": pl.DataFrame(X),
    "arrow": pa.table({c: X[:, i] for i, c in enumerate("abcdef")}),
    "tensor": torch.from_numpy(X),
    "tensor with gradient": torch.from_numpy(X).requires_grad_(),
    "bfloat16 tensor": torch.from_numpy(X).bfloat16(),
    "sparse": sparse.csr_matrix(X),
    "masked": np.ma.masked_array(X, X > 2),
    "NaN": np.where(X > 2, np.nan, X),
    "infinite": np.where(X > 2, np.inf, X),
    "beyond float32": X * 1e200,
    "tiny": X * 1e-200,
    "denormal": X * 1e-310,
    "constant": np.ones_like(X),
    "zeros": np.zeros_like(X),
    "complex": X.astype(complex),
    "strings": X.astype(str),
    "objects": X.astype(object),
    "None inside": np.where(X > 2, None, X),
    "one axis": X[:, 0],
    "three axes": X[:, :, None],
    "no rows": X[:0],
    "no columns": X[:, :0],
    "one row": X[:1],
    "one column": X[:, :1],
    "ragged": [[1.0, 2.0], [1.0]],
    "None": None,
    "a string": "x",
    "texts": make_texts(N),
    "a number": 3,
    "a mapping": {"a": X[:, 0]},
    "a generator": (row for row in X),
}
FITS: dict[str, Callable[[Any], Any]] = {
    "debiaser": lambda M: clone(FITTED).fit(M, Y, sensitive_features=NAMES).transform(M),
    "transform": lambda M: FITTED.transform(M),
    "LEACE": lambda M: LEACE().fit(M, Y, sensitive_features=NAMES).transform(M),
    "INLP": lambda M: INLP().fit(M, Y, sensitive_features=NAMES).transform(M),
    "SPLINCE": lambda M: SPLINCE().fit(M, Y, sensitive_features=NAMES).transform(M),
    "head": lambda M: LogisticHead(C=1.0).fit(M, Y).predict(M),
    "leakage": lambda M: probe_leakage(M, NAMES, Y, probes=("linear",), random_state=0),
}  # fmt: skip
FITTED = SSAEDebiaser(config=CONFIG, random_state=0, n_latents=2).fit(X, Y, sensitive_features=NAMES)


@pytest.mark.parametrize("use", FITS)
def test_any_matrix_is_read_or_refused_in_one_line(use, amount, counted):
    wrong, step = {}, amount(3, 1)
    for name, given in list(MATRICES.items())[list(FITS).index(use) % step :: step]:
        try:
            found = answered(lambda: FITS[use](given))  # noqa: B023
            if isinstance(found, np.ndarray) and found.dtype.kind == "f" and not np.isfinite(found).all():
                wrong[name] = "not finite"
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {str(error)[:200]}"
        counted["matrices"] = counted.get("matrices", 0) + 1
    assert not wrong


TEXTS: dict[str, str] = {
    "empty": "",
    "spaces": " \t\n\u00a0\u2003",
    "long": "she is a nurse " * 70_000,
    "one long word": "x" * 200_000,
    "control characters": "she\x00\x01\x1b[31m is\x7f",
    "lone surrogates": "she \ud800\udfff is",
    "emoji": "\U0001f469\u200d\u2695\ufe0f" * 50,
    "right to left": "\u202eהיא אחות\u202c",
    "combining": "s\u0301h\u0308e" + "\u0301" * 500,
    "byte order mark": "\ufeffshe",
    "not characters": "\ufffe\uffff\U0010ffff",
    "special tokens": "[CLS] she [SEP] [PAD] [MASK] </s>",
    "formats": "%s {} {0} ${x} <b>&amp;</b> '\"; --",
    "lines": "she\r\nis\ra\u2028nurse\u2029",
}


def test_any_text_is_encoded_and_no_text_changes_another(fitted, counted):
    plain = make_texts(5, seed=9)
    wanted = fitted.transform(plain)
    for name, text in TEXTS.items():
        alone, among = fitted.transform([text]), fitted.transform([*plain, text])
        assert np.isfinite(alone).all(), name
        assert np.allclose(among[:-1], wanted, atol=1e-5), name
        assert np.allclose(among[-1], alone[0], atol=1e-5), name
        assert TextScrubber("gender").fit([text]).transform([text]) is not None
    counted["texts"] = counted.get("texts", 0) + len(TEXTS)


def test_order_batches_and_repeats_change_nothing(fitted):
    some = make_texts(40, seed=8)
    wanted, order = fitted.transform(some), np.random.default_rng(1).permutation(40)
    assert np.allclose(fitted.transform([some[i] for i in order]), wanted[order], atol=1e-5)
    assert np.allclose(
        np.concatenate([fitted.transform(some[i : i + 7]) for i in range(0, 40, 7)]), wanted, atol=1e-5
    )
    assert np.allclose(fitted.transform(some * 2), np.tile(wanted, (2, 1)), atol=1e-5)
    for container in (tuple, np.array, pd.Series, pl.Series, pa.array):
        assert np.array_equal(fitted.transform(container(some)), wanted)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(some), wanted)


def test_a_matrix_keeps_its_rows_whatever_is_beside_them():
    wanted = FITTED.transform(X)
    for rows in (np.arange(N)[::-1], np.arange(0, N, 7), np.zeros(9, int)):
        assert np.array_equal(FITTED.transform(X[rows]), wanted[rows])
    for name in ("Fortran", "read-only", "strided", "other byte order", "lists", "objects"):
        assert np.allclose(FITTED.transform(MATRICES[name]), wanted, atol=1e-12), name
    assert np.allclose(clone(FITTED).fit(X, Y, sensitive_features=NAMES).transform(X), wanted, atol=1e-10)


@pytest.mark.parametrize(
    "state",
    ["no_grad", "inference_mode", "autocast", "float64", "bfloat16", "deterministic", "anomaly", "threads"],
)
def test_what_torch_was_set_to_outside_changes_nothing(state):
    """A caller's switches are theirs: a fit inside them is the same fit."""

    def run() -> np.ndarray:
        return debiased(NAMES, Y)

    wanted = run()
    if state in ("no_grad", "inference_mode", "anomaly"):
        switch = {
            "no_grad": torch.no_grad,
            "inference_mode": torch.inference_mode,
            "anomaly": torch.autograd.detect_anomaly,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with switch[state]():
                found = run()
    elif state == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = run()
    elif state == "threads":
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: run(), range(8)):
                assert np.allclose(found, wanted, atol=1e-10)
        return
    elif state == "deterministic":
        torch.use_deterministic_algorithms(True)
        try:
            found = run()
        finally:
            torch.use_deterministic_algorithms(False)
    else:
        torch.set_default_dtype(getattr(torch, state))
        try:
            found = run()
        finally:
            torch.set_default_dtype(torch.float32)
    assert np.allclose(found, wanted, atol=1e-10)


def test_texts_that_are_none_are_refused():
    for wrong in ([1], [None], [["a"]], "she", {"a": "b"}, 3, None, np.zeros((2, 2)), [b"a"]):
        assert isinstance(answered(lambda: check_texts(wrong)), InputError)  # noqa: B023
