"""The output eraser: which samples it is fitted on, and what several attributes leave to one another."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from debias_ssae.core.config import DebiasConfig, SAEConfig, SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.output import Samples, fit_eraser, fit_output, output_kind
from debias_ssae.debiaser.pipeline import Fitted
from debias_ssae.debiaser.summary import measure, sentences
from debias_ssae.erase import LatentEraser, LinearEraser, fit_displacement, fit_mean_difference, joined
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import AnnotatedTexts, FitData, Words
from debias_ssae.text.concept import Concept

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 6)).astype(np.float32)


def test_each_of_several_attributes_is_measured_and_named() -> None:
    z, y = np.tile([0, 1], 100), np.repeat([0, 1], 100)
    samples = {}
    for name, signal in (("gender", 3.0), ("religion", 0.0)):
        one = samples[name] = Samples(Halves(), {}, list(map(str, range(200))), z, y)
        one.__dict__["plain"] = one.__dict__["edited"] = X + signal * z[:, None] * np.eye(6)[0]
    measured = measure(samples, Fitted({}, None, None, None))
    assert list(measured) == ["gender", "target", "religion"]
    assert measured["gender"]["before"] > 0.85 > 0.65 > measured["religion"]["before"]
    said = sentences({"output_eraser": "auto", "measured": measured})
    assert said[0] == "Output eraser: one for each attribute."
    assert [line.split(" with")[0] for line in said[1:]] == [
        f"A linear probe reads {what}" for what in ("gender", "religion", "the target")
    ]


class Halves:
    """An encoder whose edit halves everything; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def encode(self, texts: Any, edits: Any = None) -> np.ndarray:
        rows = [int(text) for text in texts]
        self.asked.append(rows)
        return X[rows] / 2 if edits else X[rows]


def fit(z: np.ndarray, y: np.ndarray | None = None, *, encoder: Any = None, **selection: int) -> LinearEraser:
    texts = [str(i) for i in range(200)]
    config = DebiasConfig(selection=SelectionConfig(**{"min_cell": 20, "max_texts": 200, **selection}))
    data, edits = FitData(texts, y, config, random_state=0), {"embeddings": object()}
    eraser = fit_output("mean_difference", AnnotatedTexts(texts, z, y), encoder or Halves(), edits, data)[0]  # type: ignore[arg-type]
    assert isinstance(eraser, LinearEraser)
    return eraser


def test_rare_values_cost_no_direction() -> None:
    z = np.array(["a", "b"] * 95 + ["c"] * 10)
    assert len(fit(z).read) == 1
    assert len(fit(z, min_cell=10).read) == 2


def test_rare_values_are_taken_where_there_is_nothing_else() -> None:
    z = np.array(["a"] * 190 + ["b"] * 10)
    assert len(fit(z).read) == 1


def test_plain_and_edited_are_asked_for_the_same_rows_of_every_cell() -> None:
    z, encoder = np.array(["a", "b", None, "b"] * 50, dtype=object), Halves()
    fit(z, encoder=encoder, max_texts=60)
    assert encoder.asked[0] == encoder.asked[1]
    assert [sum(z[i] == value for i in encoder.asked[0]) for value in ("a", "b")] == [30, 30]


def test_no_class_with_two_values_is_refused() -> None:
    y = np.arange(200) % 2
    with pytest.raises(InputError, match="use output_eraser=None"):
        fit(y, y)


def test_more_values_than_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="8 attribute values differ in all 6 dimensions"):
        fit(np.arange(200) % 8)


def test_joined_erasers_leave_nothing_that_either_reads() -> None:
    a, b = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    rows = X + 3 * a[:, None] * rng.normal(size=6) + 3 * b[:, None] * rng.normal(size=6)
    one, other = fit_mean_difference(rows, a), fit_mean_difference(rows, b)
    left = joined([one, other], rows)(rows)
    for eraser in (one, other):
        wanted = np.tile(eraser.read @ eraser.center, (200, 1))
        assert np.allclose(left @ eraser.read.T, wanted, atol=1e-6)
    after = other(one(rows))
    assert not np.allclose(after @ one.read.T, one.read @ one.center, atol=1e-3), (
        "one after the other brings it back"
    )
    assert np.allclose(joined([one], rows)(rows), one(rows), atol=1e-5)


def test_displacement_takes_out_where_the_edit_moved_and_nothing_else() -> None:
    direction = np.array([1.0, -1, 0, 0, 0, 0])
    plain = X + rng.normal(size=(200, 1)) * direction
    edited = plain - rng.exponential(1, size=(200, 1)) * direction
    eraser = fit_displacement(plain, edited)
    assert len(eraser.read) == 1
    left = eraser(edited)
    assert np.allclose(left[:, 2:], edited[:, 2:], atol=1e-6)
    assert np.std(left @ eraser.read[0]) < 1e-6 * np.std(plain @ eraser.read[0])
    with pytest.raises(InputError, match="moved no training text"):
        fit_displacement(plain, plain)


class BagOfWords:
    """An encoder whose representation counts words; an edit takes one of them away, and the words beside it stay."""

    words = ("denver", "in", "a", "b", "c", "d")

    def rows(self, texts, hookpoint):  # type: ignore[no-untyped-def]
        spans = [[m.span() for m in re.finditer(r"\w+", text)] for text in texts]
        owners = [i for i, found in enumerate(spans) for _ in found]
        offsets = torch.tensor([span for found in spans for span in found])
        held = [
            self.words.index(texts[owner][start:end])
            for owner, (start, end) in zip(owners, offsets, strict=True)
        ]
        x = torch.eye(len(self.words))[held]
        return Activations(x, torch.tensor(owners), torch.tensor(held), offsets, len(texts))

    def encode(self, texts, edits=None):  # type: ignore[no-untyped-def]
        counts = np.array([[text.split().count(word) for word in self.words] for text in texts], dtype=float)
        return counts * (np.arange(len(self.words)) > 0) if edits else counts


def test_displacement_takes_out_the_words_between_those_that_the_edit_removes() -> None:
    sae = SparseAutoencoder(SAEConfig(d_in=6, d_sae=6, architecture="relu"), random_state=0)
    with torch.no_grad():
        for weights in (sae.W_enc, sae.W_dec):
            weights.copy_(torch.eye(6))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    edits = {"embeddings": LatentEraser.from_sae(sae, [0])}
    own = [
        " ".join(rng.permutation(["a", "b", "c", "d", *rng.choice(["a", "b", "c", "d"], 15)]))
        for _ in range(80)
    ]
    texts = [f"{text} denver in denver" if i % 2 else text for i, text in enumerate(own)]
    samples = Samples(BagOfWords(), edits, texts)
    eraser = fit_eraser("displacement", samples)
    plain, cut = BagOfWords().encode(texts), BagOfWords().encode(own)
    assert np.allclose(eraser(plain), eraser(cut), atol=1e-6)
    of_the_edit_alone = fit_displacement(plain, samples.edited)
    assert not np.allclose(of_the_edit_alone(plain), of_the_edit_alone(cut), atol=0.1)


def test_words_of_more_than_two_values_start_from_the_subspace() -> None:
    two, three = (
        Concept.from_words([row], values=row) for row in (("he", "she"), ("old", "young", "middle-aged"))
    )
    kinds = [output_kind("auto", Words(concept), edits=True) for concept in (two, three)]
    assert kinds == ["counterfactual", "counterfactual_subspace"]
