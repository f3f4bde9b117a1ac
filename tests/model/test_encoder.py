"""ActivationEncoder: texts in many shapes, same vectors; and a cache that never runs the model twice."""

import pickle
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.core.errors import InputError
from debias_ssae.model import encoder as room
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text.checks import check_texts

TEXTS = ["She is a surgeon.", "He is a nurse who works nights.", "", "She is a surgeon."]


@pytest.fixture(scope="module")
def encoder(minilm) -> Iterator[ActivationEncoder]:  # type: ignore[no-untyped-def]
    made = ActivationEncoder(dtype="float32")
    made.__dict__["loaded"] = minilm
    return made


@pytest.fixture(scope="module")
def X(encoder: ActivationEncoder) -> np.ndarray:
    return encoder.fit_transform(TEXTS)


@pytest.mark.parametrize(
    "wrap",
    [
        np.array,
        lambda t: np.array(t, dtype=object),
        pd.Series,
        pa.array,
        lambda t: pd.DataFrame({"t": t}),
        lambda t: pa.table({"t": t}),
        lambda t: pa.chunked_array([t[:1], t[1:]]),
        lambda t: np.array(t, dtype=object)[:, None],
        tuple,
    ],
)
def test_any_container_gives_the_same(encoder: ActivationEncoder, X: np.ndarray, wrap) -> None:  # type: ignore[no-untyped-def]
    assert np.array_equal(encoder.transform(wrap(TEXTS)), X)


def test_order_duplicates_and_empty_texts(encoder: ActivationEncoder, X: np.ndarray) -> None:
    assert X.shape == (4, 384)
    assert X.dtype == np.float32
    assert np.array_equal(X[0], X[3])
    assert np.isfinite(X).all()
    assert np.allclose(encoder.transform(TEXTS[::-1]), X[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "single string"),
        (iter(["a"]), "one-shot iterator"),
        ([], "no texts"),
        (["a", None], 'replace missing texts by ""'),
        (["a", float("nan")], "replace missing texts"),
        (pd.Series(["a", pd.NA], dtype="string"), "replace missing texts"),
        (["a", ["b"]], "texts must be strings"),
        (pa.table({"a": ["a"], "b": ["b"]}), "table of 2 columns"),
        (["a", 3], "row 1 holds 3 of type int"),
        (np.array([["a", "b"]]), "table of 2 columns"),
    ],
)
def test_bad_texts(texts, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        check_texts(texts)


def test_the_model_never_runs_twice_on_a_text(
    encoder: ActivationEncoder, X: np.ndarray, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    seen: list[str] = []
    real = room.embed

    def counted(model, texts, **options):  # type: ignore[no-untyped-def]
        seen.extend(texts)
        return real(model, texts, **options)

    monkeypatch.setattr(room, "embed", counted)
    cached = clone(encoder).set_params(cache_dir=tmp_path)
    cached.__dict__["loaded"] = encoder.loaded
    first = cached.transform(TEXTS[:2])
    second = cached.transform(TEXTS)
    assert np.allclose(second, X, atol=1e-5)
    assert np.array_equal(second[:2], first)
    assert sorted(seen) == sorted(set(TEXTS))

    class Halve:
        fingerprint = "halve"

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    edited = cached.encode(TEXTS[:1], {"blocks.2": Halve()})
    assert not np.allclose(edited, first[:1], atol=1e-3)
    assert np.array_equal(cached.encode(TEXTS[:1], {"blocks.2": Halve()}), edited)
    assert len(seen) == 4


def test_clone_pickle_and_names(encoder: ActivationEncoder) -> None:
    assert clone(encoder).get_params() == encoder.get_params()
    assert b"Bert" not in pickle.dumps(encoder)
    again = pickle.loads(pickle.dumps(encoder))
    assert "loaded" not in again.__dict__
    assert encoder.get_feature_names_out()[1] == "activationencoder1"
    frame = clone(encoder).set_output(transform="pandas")
    frame.__dict__["loaded"] = encoder.loaded
    assert isinstance(frame.fit_transform(TEXTS), pd.DataFrame)


def test_parameters_of_the_model_drop_the_one_loaded(encoder: ActivationEncoder) -> None:
    made = encoder.copy()
    assert made.language_model is encoder.language_model
    assert "loaded" in vars(made.set_params(pooling="max", model="minilm"))
    assert "loaded" not in vars(made.set_params(dtype="bfloat16"))
    assert (encoder.pooling, encoder.dtype) == ("auto", "float32")
    assert "loaded" in vars(encoder)


def test_in_a_pipeline(encoder: ActivationEncoder) -> None:
    assert make_pipeline(encoder, StandardScaler()).fit_transform(TEXTS).shape == (4, 384)


def test_unknown_model() -> None:
    with pytest.raises(InputError, match="no-such-model"):
        ActivationEncoder("no-such-org/no-such-model").fit(TEXTS)
