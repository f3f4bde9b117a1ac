"""What is saved comes back; what is damaged is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_debiaser import CONFIG

from debias_ssae import SSAEDebiaser
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_manifest, write_manifest
from debias_ssae.debiaser.persistence import KIND
from debias_ssae.model.encoder import ActivationEncoder


@pytest.mark.parametrize("fixture", ["labelled", "from_concept"])
def test_round_trip(fixture: str, request, bios, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    debiaser = request.getfixturevalue(fixture)
    # what the session's cache holds was computed in other batches, which moves the last digit
    monkeypatch.setattr(debiaser.text_encoder_, "cache_dir", None)
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(bios.text[:20]), debiaser.transform(bios.text[:20]))
    assert np.array_equal(
        again.intervention_.selection.scores.score, debiaser.intervention_.selection.scores.score
    )
    assert again.get_feature_names_out().tolist() == debiaser.get_feature_names_out().tolist()
    files = {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert files <= {".json", ".safetensors"}
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert len(modes) == 1, "a model that one user may read in part is of no use to another"


def test_residual_and_matrix_round_trip(small_config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    X, y, z = rng.normal(size=(200, 8)).astype(np.float32), rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    X[:, 0] += 3 * z
    debiaser = SSAEDebiaser(config=small_config, output_eraser="leace", random_state=0, n_latents=4)
    debiaser.fit(X, y, sensitive_features=z).save(tmp_path / "model")
    assert np.array_equal(SSAEDebiaser.load(tmp_path / "model").transform(X), debiaser.transform(X))


def test_what_was_fitted_is_saved_and_not_what_was_set_since(
    small_encoder: Path, texts: list[str], tmp_path: Path
) -> None:
    """The eraser's share, the concept's words and the encoder are those of fit."""
    file, encoder = tmp_path / "words.yaml", ActivationEncoder(str(small_encoder), dtype="float32")
    file.write_text("{name: words, values: [m, f], pairs: [[he, she], [his, her]]}")
    debiaser = SSAEDebiaser(encoder, attribute=file, alpha=0.5, config=CONFIG, random_state=0).fit(texts)
    before = debiaser.transform(texts[:9])
    debiaser.set_params(alpha=1.0, encoder__pooling="max", encoder__model="elsewhere")
    assert np.array_equal(debiaser.transform(texts[:9]), before)
    encoder.set_params(pooling="mean", model=str(small_encoder))
    file.unlink()
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(texts[:9]), before)
    assert again.intervention_.eraser.alpha == 0.5
    assert again.concept_ == debiaser.concept_


def test_names_of_columns_come_back(tmp_path: Path) -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(90, 3)), columns=["a", "b", "c"])
    debiaser = SSAEDebiaser(config=CONFIG, random_state=0).fit(X, sensitive_features=X["a"] > 0)
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(X), debiaser.transform(X))
    with pytest.raises(ValueError, match="feature names"):
        again.transform(X[["b", "a", "c"]])


def test_saving_twice_replaces_but_never_foreign_files(labelled, tmp_path) -> None:  # type: ignore[no-untyped-def]
    labelled.save(tmp_path / "model")
    with pytest.raises(InputError, match="holds a debiaser already"):
        labelled.save(tmp_path / "model")
    labelled.save(tmp_path / "model", overwrite=True)
    assert not list(tmp_path.glob(".*partial"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="no debiaser"):
        labelled.save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "mine"
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="which would be lost"):
        labelled.save(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="is a file"):
        labelled.save(tmp_path / "other" / "thesis.tex")
    assert not list(tmp_path.rglob(".*partial"))


def test_damage_is_named(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        SSAEDebiaser.load(tmp_path)
    fitted.save(tmp_path / "model")
    files = sorted(path for path in (tmp_path / "model").rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    for path in files:
        whole = path.read_bytes()
        for _ in range(10):
            at = int(rng.integers(len(whole)))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
            with pytest.raises(InputError, match=path.name):
                SSAEDebiaser.load(tmp_path / "model")
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError):
            SSAEDebiaser.load(tmp_path / "model")
        path.unlink()
        with pytest.raises(InputError):
            SSAEDebiaser.load(tmp_path / "model")
        path.write_bytes(whole)
    SSAEDebiaser.load(tmp_path / "model")


def test_files_decide_nothing_about_trust_devices_and_places(
    fitted: SSAEDebiaser, texts: list[str], tmp_path: Path
) -> None:
    """A manifest with the caller's parameters in it, sealed as ours are, is read without them."""
    fitted.save(tmp_path / "model")
    kept = read_manifest(tmp_path / "model", KIND)
    theirs = {"trust_remote_code": True, "cache_dir": str(tmp_path / "theirs"), "device": "meta"}
    parameters = {**kept.about["parameters"], "cache_dir": str(tmp_path / "theirs"), "device": "meta"}
    parameters["encoder"] = {"ActivationEncoder": {**parameters["encoder"]["ActivationEncoder"], **theirs}}
    write_manifest(tmp_path / "model", KIND, {**kept.about, "parameters": parameters})
    again = SSAEDebiaser.load(tmp_path / "model")
    again.transform(texts[:3])
    assert not (tmp_path / "theirs").exists()
    assert not again.text_encoder_.trust_remote_code
    assert again.text_encoder_.device == "auto"
    mine = SSAEDebiaser.load(tmp_path / "model", cache_dir=tmp_path / "mine")
    mine.transform(texts[:3])
    assert (tmp_path / "mine").exists()


def test_another_model_is_not_taken_for_the_one_fitted_with(
    fitted: SSAEDebiaser, texts: list[str], tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    encoder = fitted.text_encoder_.copy()
    right = SSAEDebiaser.load(tmp_path / "model", encoder=encoder)
    assert np.array_equal(right.transform(texts[:9]), fitted.transform(texts[:9]))
    other = encoder.copy().set_params(layer="blocks.0")
    with pytest.raises(InputError, match="is not the one that the debiaser was fitted with"):
        SSAEDebiaser.load(tmp_path / "model", encoder=other).transform(texts[:9])
