"""Attribution through the model: exact where the rest of the model is linear, and equal to finite differences."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.erase import LatentEraser
from debias_ssae.model import LanguageModel, embed, harvest
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.classifier import LinearHead, classifier_attribution, integrated_gradients
from debias_ssae.selection.scores import pooled_latents
from tests.model.small_models import D_MODEL, small_model

TEXTS = ["she works in the city .", "he was born in a clinic", "the nurse and the surgeon", "Dr of 2 !"]
rng = np.random.default_rng(0)
direction = rng.normal(size=D_MODEL).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model("bert")


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    return SparseAutoencoder(SAEConfig(d_in=D_MODEL, d_sae=64, k=8, architecture="topk"), random_state=0)


def test_at_the_output_the_effect_is_what_the_latent_writes(
    model: LanguageModel, sae: SparseAutoencoder
) -> None:
    scores = classifier_attribution(model, sae, TEXTS, direction, hookpoint="final", steps=3)
    latents, firing_rate = pooled_latents(sae, harvest(model, TEXTS, "final"))
    written = latents * (sae.W_dec.detach().numpy() @ direction)
    assert np.abs(written).max() > 0.01
    assert np.allclose(scores.effect[0], written.mean(axis=0), atol=1e-5)
    assert np.allclose(scores.score, np.abs(written.mean(axis=0)), atol=1e-5)
    assert np.allclose(scores.firing_rate, firing_rate)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_one_step_is_the_derivative(model: LanguageModel, pooling: str) -> None:
    options = {"layer": "final", "pooling": pooling}
    rows, gradients = integrated_gradients(
        model, TEXTS, torch.from_numpy(direction), "blocks.0", steps=1, **options
    )
    move = torch.from_numpy(rng.normal(size=D_MODEL).astype(np.float32))
    readings = [
        embed(model, TEXTS, edits={"blocks.0": lambda x, e=e: x + e * move}, **options) @ direction
        for e in (-5e-3, 5e-3)
    ]
    numeric = (readings[1] - readings[0]) / 1e-2
    exact = torch.zeros(len(TEXTS)).index_add_(0, rows.text_ids, gradients @ move)
    assert np.abs(numeric).max() > 1e-3
    assert np.allclose(numeric, exact, rtol=2e-2, atol=0.05 * np.abs(numeric).max())


def test_many_steps_add_up_to_the_whole_change(model: LanguageModel) -> None:
    baseline = harvest(model, TEXTS, "blocks.0").x.mean(0)
    goal = torch.from_numpy(direction)
    rows, gradients = integrated_gradients(model, TEXTS, goal, "blocks.0", baseline=baseline, steps=64)
    change = torch.zeros(len(TEXTS)).index_add_(0, rows.text_ids, (gradients * (rows.x - baseline)).sum(1))
    ends = [
        embed(model, TEXTS, edits={"blocks.0": edit}) @ direction
        for edit in (lambda x: x, lambda x: baseline.expand_as(x))
    ]
    assert np.allclose(change, ends[0] - ends[1], atol=0.05 * np.abs(ends[0] - ends[1]).max() + 1e-3)


def test_effects_are_of_each_class_and_constants_cancel(model: LanguageModel, sae: SparseAutoencoder) -> None:
    """Margins of opposite sign: an effect that both classes have alike adds nothing to the score."""
    labels = np.array([0, 1, 0, 1])
    head = LinearHead(direction[None].astype(float), np.zeros(1), ("a", "b"))
    scores = classifier_attribution(model, sae, TEXTS, head.margins(labels), labels=labels, steps=2)
    plain = classifier_attribution(model, sae, TEXTS, direction, labels=labels, steps=2)
    assert np.allclose(scores.effect[0], -plain.effect[0], atol=1e-6)
    assert np.allclose(scores.effect[1], plain.effect[1], atol=1e-6)
    assert np.allclose(scores.score, np.abs(plain.effect[1] - plain.effect[0]) / 2, atol=1e-6)
    assert scores.classes == ("0", "1")
    assert 0 <= scores.p_value.min() <= scores.p_value.max() <= 1


def test_removed_latents_add_nothing_and_an_edit_is_gone_through(model: LanguageModel) -> None:
    """With an edit at the hookpoint the gradient is that of the edited model; at the output nothing else changes."""
    sae = SparseAutoencoder(SAEConfig(d_in=D_MODEL, d_sae=64, k=8, architecture="relu"), random_state=0)
    plain = classifier_attribution(model, sae, TEXTS, direction, hookpoint="final", steps=2)
    gone = plain.top(3)
    edits = {"final": LatentEraser.from_sae(sae, gone.tolist())}
    cut = classifier_attribution(
        model, sae, TEXTS, direction, hookpoint="final", edits=edits, removed=gone, steps=2
    )
    assert not cut.effect[:, gone].any()
    others = np.setdiff1d(np.arange(64), gone)
    assert np.allclose(cut.effect[:, others], plain.effect[:, others], atol=1e-5)
    deeper = classifier_attribution(model, sae, TEXTS, direction, edits={"final": lambda x: 0 * x}, steps=2)
    assert not deeper.effect.any(), "what a later edit blanks out adds nothing"


def test_the_gradient_goes_through_a_later_eraser(model: LanguageModel) -> None:
    sae = SparseAutoencoder(SAEConfig(d_in=D_MODEL, d_sae=64, k=8, architecture="relu"), random_state=0)
    edits = {"blocks.0": LatentEraser.from_sae(sae, range(40))}
    _, gradients = integrated_gradients(
        model, TEXTS, torch.from_numpy(direction), "embeddings", edits=edits, steps=1
    )
    move = torch.from_numpy(rng.normal(size=D_MODEL).astype(np.float32))
    readings = [
        embed(model, TEXTS, edits={"embeddings": lambda x, e=e: x + e * move, **edits}) @ direction
        for e in (-2e-3, 2e-3)
    ]
    numeric = float((readings[1] - readings[0]).sum() / 4e-3)
    assert float((gradients @ move).sum()) == pytest.approx(numeric, rel=0.2)


def test_double_precision_gives_the_same(model: LanguageModel, sae: SparseAutoencoder) -> None:
    double = SparseAutoencoder(sae.cfg.updated(dtype="float64"), random_state=0)
    double.load_state_dict(sae.state_dict())
    a, b = (classifier_attribution(model, s, TEXTS, direction, steps=3) for s in (sae, double))
    assert np.allclose(a.score, b.score, atol=1e-4)


def test_bad_input(model: LanguageModel, sae: SparseAutoencoder) -> None:
    with pytest.raises(InputError, match="directions have shape"):
        classifier_attribution(model, sae, TEXTS, direction[:3])
    with pytest.raises(InputError, match="steps"):
        integrated_gradients(model, TEXTS, torch.from_numpy(direction), "embeddings", steps=0)
    with pytest.raises(InputError, match="twice"):
        integrated_gradients(model, [TEXTS[0]] * 2, torch.from_numpy(direction), "embeddings")


def data(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    y = draw.integers(0, n_classes, 400)
    x = draw.normal(size=(400, 6)) * np.array([1, 5, 0.1, 1, 1, 1])
    x[:, :n_classes] += 3 * np.eye(n_classes)[y] * np.array([1, 5, 0.1])[:n_classes]
    return x.astype(np.float32), np.array(["a", "b", "c"])[y]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_linear_head_is_read_exactly(n_classes: int) -> None:
    x, y = data(n_classes)
    given = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    head = LinearHead.read(given, x)
    assert (head.kind, head.fidelity) == ("exact", 1.0)
    assert np.array_equal(head.predict(x), given.predict(x))
    scores = given.decision_function(x)
    assert np.allclose(head.scores(x), scores if n_classes > 2 else scores[:, None], atol=1e-4)


def test_margins_read_the_lead() -> None:
    for n_classes in (2, 3):
        x, y = data(n_classes)
        head = LinearHead.fit(x, y, C=1.0)
        codes = np.searchsorted(head.classes, y)
        lead = head.lead(x, codes)
        bias = head.lead(np.zeros_like(x), codes)
        assert np.allclose((head.margins(codes) * x).sum(axis=1), lead - bias)
        assert ((lead > 0) | (head.codes(x) != codes)).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_other_heads_are_distilled(n_classes: int) -> None:
    x, y = data(n_classes)
    forest = RandomForestClassifier(20, max_depth=4, random_state=0).fit(x, y)
    head = LinearHead.read(forest, x)
    assert head.kind == "distilled"
    assert 0.9 < head.fidelity < 1
    assert head.fidelity == (head.predict(x) == forest.predict(x)).mean()
    classes = np.unique(y)
    for outputs in (forest.predict(x), forest.predict_proba(x)):
        assert LinearHead.distil(x, outputs, classes).fidelity > 0.9


def test_a_head_before_an_affine_map_reads_the_same() -> None:
    x, y = data(2)
    head = LinearHead.fit(x, y, C=1.0)
    turn = np.random.default_rng(2).normal(size=(6, 6))
    assert np.allclose(head.after(lambda r: r @ turn + 1).scores(x), head.scores(x @ turn + 1))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.array(["a", "z"] * 200), "one class a text"),
        (np.zeros((400, 3)) + 0.5, "one column a class"),
        (np.full(400, np.nan), "NaN"),
        (np.zeros(3), "must agree"),
        (np.array(["a"] * 400), "two classes"),
    ],
)
def test_unusable_outputs(outputs: np.ndarray, message: str) -> None:
    x, y = data(2)
    with pytest.raises(InputError, match=message):
        LinearHead.distil(x, outputs, np.unique(y))
    with pytest.raises(InputError, match="expected a fitted"):
        LinearHead.read(object(), x)
    of_texts = make_pipeline(CountVectorizer(), LogisticRegression()).fit(
        ["she works", "he works"] * 9, [0, 1] * 9
    )
    with pytest.raises(InputError, match="give its predictions"):
        LinearHead.read(of_texts, x)
