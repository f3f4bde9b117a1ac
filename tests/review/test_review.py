"""Candidates, the file a person edits, and the new cut: equal to what fit would have given for that choice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_debiaser import CONFIG, make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.review import LEVELS, candidates, read_choices, with_latents, write_choices
from debias_ssae.review.contexts import read_latent, whole_word
from debias_ssae.review.directions import probe_directions, strongest_cosine

NEW = make_texts(30, seed=3)


@pytest.fixture(scope="module")
def shown(fitted: SSAEDebiaser, texts: list[str]) -> list[Any]:
    y = np.array(["nurse" in t for t in texts])
    return candidates(fitted, texts, y=y, n_more=10)


@pytest.fixture
def file(fitted: SSAEDebiaser, shown: list[Any], tmp_path: Path) -> Path:
    write_choices(fitted, shown, tmp_path / "latents.yaml")
    return tmp_path / "latents.yaml"


def edit(file: Path, flip: set[int]) -> Any:
    values = yaml.safe_load(file.read_text())
    for line in values["parts"][0]["latents"]:
        line["remove"] = line["remove"] != (line["id"] in flip)
    file.write_text(yaml.safe_dump(values))
    return read_choices(file)


def test_candidates_are_the_removed_and_the_next(fitted: SSAEDebiaser, shown: list[Any]) -> None:
    removed = [c.latent for c in shown if c.removed]
    assert removed == fitted.intervention_.selection.ids.tolist()
    following = [c for c in shown if not c.removed]
    assert 0 < len(following) <= 10
    assert [c.rank for c in shown] == list(range(1, len(shown) + 1))
    assert min(c.score for c in shown if c.removed) >= max(c.score for c in following)
    for c in shown:
        assert c.toward in ("male", "female")
        assert (c.effect > 0) == (c.toward == "female")
        assert -1 <= c.attribute_cosine <= 1
        assert -1 <= c.target_cosine <= 1


def test_contexts_show_the_words_that_fire(fitted: SSAEDebiaser, texts: list[str], shown: list[Any]) -> None:
    for c in shown:
        for pieces in c.contexts:
            text = "".join(p.text for p in pieces).strip("…")
            assert any(text in t for t in texts)
            assert max(p.level for p in pieces) >= 1
        if c.contexts:
            assert max(p.level for p in c.contexts[0]) == LEVELS, "the strongest of all stands first"
            marked = {p.text.lower() for pieces in c.contexts for p in pieces if p.level}
            assert c.words[0] in {w for t in texts for w in t.split()}
            assert marked & set(c.words)


def rows_of(pieces: list[tuple[int, int, int]]) -> Activations:
    """(text, start, end) of each token."""
    ids = torch.tensor([p[0] for p in pieces])
    spans = torch.tensor([[p[1], p[2]] for p in pieces])
    return Activations(torch.zeros(len(pieces), 2), ids, torch.zeros_like(ids), spans, int(ids.max()) + 1)


def test_word_pieces_are_joined() -> None:
    texts = ["the midwives came", "no hit"]
    rows = rows_of([(0, 0, 3), (0, 4, 7), (0, 7, 10), (0, 10, 12), (0, 13, 17), (1, 0, 2), (1, 3, 6)])
    readings = read_latent(texts, rows, np.array([0, 0, 2.0, 0.4, 0.5, 0, 0]), n_contexts=3)
    assert readings.words == ("midwives", "came")
    assert [tuple(p) for p in readings.contexts[0]] == [("the ", 0), ("midwives", 4), (" ", 0), ("came", 1)]
    assert len(readings.contexts) == 1


def test_windows_end_at_words() -> None:
    text = "alpha beta gamma delta epsilon"
    readings = read_latent([text], rows_of([(0, 11, 16)]), np.array([1.0]), n_contexts=1, width=6)
    assert "".join(p.text for p in readings.contexts[0]) == "…beta gamma delta…"
    assert read_latent([text], rows_of([(0, 0, 5)]), np.array([0.0]), n_contexts=1) == ((), ())


@pytest.mark.parametrize(
    ("span", "word"),
    [((4, 6), "don"), ((8, 9), "t"), ((3, 6), "don"), ((7, 8), "'"), ((0, 0), ""), ((9, 10), "!")],
)
def test_whole_word(span: tuple[int, int], word: str) -> None:
    text = "you don't!"
    start, end = whole_word(text, *span)
    assert text[start:end] == word


def test_probe_direction_finds_the_planted_one() -> None:
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 300)
    x = rng.normal(size=(300, 12)) * np.linspace(0.2, 3, 12)
    x[:, 5] += 4 * z
    rows = rows_of([(i, 0, 1) for i in range(300)])
    rows = Activations(torch.tensor(x).float(), rows.text_ids, rows.token_ids, rows.offsets, 300)
    found = probe_directions(rows, z)
    assert strongest_cosine(np.eye(12)[5], found) > 0.8
    assert strongest_cosine(-np.eye(12)[5], found) < -0.8
    assert abs(strongest_cosine(np.eye(12)[2], found)) < 0.4
    assert strongest_cosine(np.eye(12)[5], probe_directions(rows, np.zeros(300))) is None


def test_labels_of_the_attribute_take_the_place_of_the_concept(
    fitted: SSAEDebiaser, texts: list[str]
) -> None:
    z = np.array(["male" if " he " in f" {t} " else None for t in texts], dtype=object)
    z[::2] = "female"
    a, b = candidates(fitted, texts, n_more=0), candidates(fitted, texts, n_more=0, sensitive_features=z)
    assert all(c.target_cosine is None for c in a)
    assert [c.attribute_cosine for c in a] != [c.attribute_cosine for c in b]


def test_no_change_gives_the_same_bits(fitted: SSAEDebiaser, file: Path) -> None:
    new = with_latents(fitted, read_choices(file))
    assert np.array_equal(new.transform(NEW), fitted.transform(NEW))
    assert {**new.intervention_.record["review"], "date": ""} == {"date": "", "kept": [], "added": []}
    assert "review" not in fitted.intervention_.record


@pytest.mark.parametrize("residual", [None, "counterfactual"])
def test_a_review_is_what_fit_would_have_given(
    small_encoder: Path, texts: list[str], concept: Any, tmp_path: Path, residual: str | None
) -> None:
    """Keep the last of six: the same as fitting with five, shift and residual included."""
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    six, five = (
        SSAEDebiaser(
            encoder, attribute=concept, output_eraser=residual, config=CONFIG, n_latents=n, random_state=0
        ).fit(texts)
        for n in (6, 5)
    )
    file = tmp_path / "latents.yaml"
    write_choices(six, candidates(six, texts, n_more=3), file)
    last = int(six.intervention_.selection.ids[-1])
    needed = texts if residual is None else None
    new = with_latents(six, edit(file, {last}), needed)
    assert new.intervention_.selection.ids.tolist() == five.intervention_.selection.ids.tolist()
    assert np.abs(new.transform(NEW) - five.transform(NEW)).max() < 1e-5
    assert np.abs(new.transform(NEW) - six.transform(NEW)).max() > 1e-4
    again = with_latents(new, edit(file, {last}), needed)
    assert again.intervention_.selection.ids.tolist() == six.intervention_.selection.ids.tolist()
    assert np.abs(again.transform(NEW) - six.transform(NEW)).max() < 1e-5


def test_several_hookpoints(small_encoder: Path, texts: list[str], concept: Any, tmp_path: Path) -> None:
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    debiaser = SSAEDebiaser(
        encoder, attribute=concept, hookpoint=["embeddings", "blocks.0"], config=CONFIG, random_state=0
    ).fit(texts)
    shown = candidates(debiaser, texts, n_more=2)
    assert {c.hookpoint for c in shown} == {"embeddings", "blocks.0"}
    file = tmp_path / "latents.yaml"
    write_choices(debiaser, shown, file)
    values = yaml.safe_load(file.read_text())
    assert [part["hookpoint"] for part in values["parts"]] == ["embeddings", "blocks.0"]
    for line in values["parts"][1]["latents"]:
        line["remove"] = False
    file.write_text(yaml.safe_dump(values))
    new = with_latents(debiaser, read_choices(file), texts)
    assert list(new.edits) == ["embeddings"]
    assert new.intervention_.selection.ids.tolist() == debiaser.intervention_.selection.ids.tolist()
    assert not np.allclose(new.transform(NEW), debiaser.transform(NEW), atol=1e-4)


def test_saved_with_its_review(fitted: SSAEDebiaser, texts: list[str], file: Path, tmp_path: Path) -> None:
    wanted = int(fitted.intervention_.selection.ids[0])
    new = with_latents(fitted, edit(file, {wanted}), texts)
    new.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(NEW), new.transform(NEW))
    saved = again.intervention_.record["review"]
    assert (saved["kept"], saved["added"]) == ([wanted], [])
    assert len(saved["date"]) == 10


def test_unlisted_latents_stay(fitted: SSAEDebiaser, file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    values["parts"][0]["latents"] = values["parts"][0]["latents"][:1]
    file.write_text(yaml.safe_dump(values))
    assert (
        with_latents(fitted, read_choices(file)).intervention_.selection.ids.tolist()
        == fitted.intervention_.selection.ids.tolist()
    )


def test_texts_are_needed_for_what_depends_on_the_cut(
    fitted: SSAEDebiaser, texts: list[str], file: Path
) -> None:
    choices = edit(file, {int(fitted.intervention_.selection.ids[0])})
    with pytest.raises(InputError, match="depends on what is removed"):
        with_latents(fitted, choices)
    plain = SSAEDebiaser(
        fitted.encoder,
        attribute=fitted.attribute,
        output_eraser=None,
        config=CONFIG.updated(recenter=False),
        random_state=0,
    ).fit(texts)
    assert len(with_latents(plain, choices).intervention_.selection.ids) == 5


@pytest.mark.parametrize("residual", ["auto", "leace"])
def test_a_residual_from_labels_needs_them_again(
    small_encoder: Path, texts: list[str], file: Path, residual: str
) -> None:
    if residual == "leace":
        pytest.importorskip("concept_erasure", reason="LEACE comes from the extra baselines")
    z = np.array([" she " in f" {t} " for t in texts])
    encoder = ActivationEncoder(str(small_encoder), dtype="float32")
    six, five = (
        SSAEDebiaser(encoder, output_eraser=residual, config=CONFIG, n_latents=n, random_state=0).fit(
            texts, sensitive_features=z
        )
        for n in (6, 5)
    )
    write_choices(six, candidates(six, texts), file)
    choices = edit(file, {int(six.intervention_.selection.ids[-1])})
    with pytest.raises(InputError, match="--sensitive"):
        with_latents(six, choices, texts)
    new = with_latents(six, choices, texts, sensitive_features=z)
    assert new.intervention_.selection.ids.tolist() == five.intervention_.selection.ids.tolist()
    assert np.abs(new.transform(NEW) - five.transform(NEW)).max() < 1e-5


def replaced(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("remove: true", "remove: perhaps", "parts.0.latents.0.remove"),
        ("format: 1", "format: 7", "format 7"),
        ("hookpoint: embeddings", "hookpoint: blocks.1", "hookpoint blocks.1"),
        ("parts:", "pieces:", "is no review of latents: parts"),
        ("parts:", "- [", "Cannot read the review"),
        ("latents:\n  - {id: ", "latents:\n  - {id: 99", "but the SAE has 64"),
    ],
)
def test_wrong_files_are_named(fitted: SSAEDebiaser, file: Path, old: str, new: str, message: str) -> None:
    replaced(file, old, new)
    with pytest.raises(InputError, match=message):
        with_latents(fitted, read_choices(file))


def test_another_sae_and_double_lines_are_refused(fitted: SSAEDebiaser, file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the review"):
        read_choices(tmp_path / "nowhere.yaml")
    replaced(file, fitted.intervention_.sae.fingerprint(), "f" * 64)
    with pytest.raises(InputError, match="of another SAE"):
        with_latents(fitted, read_choices(file))
    values = yaml.safe_load(file.read_text())
    values["parts"][0]["latents"] *= 2
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="twice"):
        read_choices(file)


def test_what_cannot_be_reviewed(fitted: SSAEDebiaser, texts: list[str]) -> None:
    with pytest.raises(InputError, match="works on a matrix"):
        candidates(SSAEDebiaser(), texts)
    with pytest.raises(InputError, match="y has 2"):
        candidates(fitted, texts, y=[0, 1])


def test_texts_without_a_target_are_no_class(fitted: SSAEDebiaser, texts: list[str]) -> None:
    y = np.array(["nurse" if "nurse" in t else "other" for t in texts], dtype=object)
    known = [i for i in range(len(texts)) if i % 4]
    holes = np.array([label if i % 4 else None for i, label in enumerate(y)], dtype=object)
    wanted = candidates(fitted, [texts[i] for i in known], y=y[known], n_more=0)
    found = candidates(fitted, texts, y=holes, n_more=0)
    assert [c.target_cosine for c in found] == pytest.approx([c.target_cosine for c in wanted], abs=1e-4)


def test_the_attribute_points_to_the_second_value(fitted: SSAEDebiaser, texts: list[str]) -> None:
    """However the labels sort: male, female is the concept's order, female, male the alphabet's."""
    she = np.array([t.split().count("she") > t.split().count("he") for t in texts], dtype=int)

    def cosines(names: tuple[str, str]) -> list[float | None]:
        z = np.array(names)[she]
        return [c.attribute_cosine for c in candidates(fitted, texts, n_more=0, sensitive_features=z)]

    assert cosines(("male", "female")) == pytest.approx(cosines(("1 he", "2 she")), abs=1e-3)
    assert cosines(("female", "male")) == pytest.approx([-c for c in cosines(("1 he", "2 she"))], abs=1e-3)
