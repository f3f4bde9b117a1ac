"""What is saved comes back; what is damaged is named."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_debiaser import CONFIG

from debias_ssae import SSAEDebiaser
from debias_ssae.core.errors import InputError
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.review import candidates


@pytest.mark.parametrize("fixture", ["labelled", "from_concept"])
def test_round_trip(fixture: str, request, bios, tmp_path) -> None:  # type: ignore[no-untyped-def]
    debiaser = request.getfixturevalue(fixture)
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(bios.text[:20]), debiaser.transform(bios.text[:20]))
    assert np.array_equal(again.scores_.score, debiaser.scores_.score)
    assert again.get_feature_names_out().tolist() == debiaser.get_feature_names_out().tolist()
    files = {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert files <= {".json", ".safetensors"}
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert len(modes) == 1, "a model that one user may read in part is of no use to another"


def test_residual_and_matrix_round_trip(small_config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    X, y, z = rng.normal(size=(200, 8)).astype(np.float32), rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    X[:, 0] += 3 * z
    debiaser = SSAEDebiaser(config=small_config, residual="leace", random_state=0, n_latents=4)
    debiaser.fit(X, y, sensitive_features=z).save(tmp_path / "model")
    assert np.array_equal(SSAEDebiaser.load(tmp_path / "model").transform(X), debiaser.transform(X))


def test_keeping_what_carries_the_target(small_config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The attribute is in seven of eight columns, the target in one: what is kept follows the target."""
    rng = np.random.default_rng(0)
    y, z = rng.integers(0, 2, 600), rng.integers(0, 2, 600)
    X = rng.normal(size=(600, 8)).astype(np.float32)
    X[:, 1:] += 3 * z[:, None]
    X[:, 0] += 6 * y
    debiaser = SSAEDebiaser(config=small_config, edit="keep", random_state=0, n_latents=2)
    kept = debiaser.fit(X, y, sensitive_features=z).transform(X)

    def gaps(rows: np.ndarray) -> tuple[float, float]:
        spread = rows.std(axis=0).max()
        return tuple(np.linalg.norm(rows[g == 1].mean(0) - rows[g == 0].mean(0)) / spread for g in (y, z))  # type: ignore[return-value]

    assert gaps(X)[1] > gaps(X)[0]
    assert gaps(kept)[0] > 2 * gaps(kept)[1]
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(X), kept)
    assert (again.eraser_.mode, again.interventions_["matrix"].found.keep) == ("keep", True)


def test_what_was_fitted_is_saved_and_not_what_was_set_since(
    small_encoder: Path, texts: list[str], tmp_path: Path
) -> None:
    """The eraser's share, the concept's words and the encoder are those of fit."""
    file, encoder = tmp_path / "words.yaml", ActivationEncoder(str(small_encoder), dtype="float32")
    file.write_text("{name: words, values: [m, f], pairs: [[he, she], [his, her]]}")
    debiaser = SSAEDebiaser(encoder, concept=file, alpha=0.5, config=CONFIG, random_state=0).fit(texts)
    before = debiaser.transform(texts[:9])
    debiaser.set_params(alpha=1.0, encoder__pooling="max", encoder__model="elsewhere")
    assert np.array_equal(debiaser.transform(texts[:9]), before)
    encoder.set_params(pooling="mean", model=str(small_encoder))
    file.unlink()
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(texts[:9]), before)
    assert again.eraser_.alpha == 0.5
    assert again.concept_ == debiaser.concept_
    assert len(candidates(again, texts, n_more=0)) == len(debiaser.latents_)

    saved = json.loads((tmp_path / "model" / "debiaser.json").read_text())
    del saved["concept"], saved["feature_names_in"], saved["parts"][0]["alpha"]
    saved["parameters"]["alpha"] = 0.5
    (tmp_path / "model" / "debiaser.json").write_text(json.dumps(saved))
    older = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(older.transform(texts[:9]), before)
    assert older.concept_ is None, "its file is gone"


def test_names_of_columns_come_back(tmp_path: Path) -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(90, 3)), columns=["a", "b", "c"])
    debiaser = SSAEDebiaser(config=CONFIG, random_state=0).fit(X, sensitive_features=X["a"] > 0)
    debiaser.save(tmp_path / "model")
    again = SSAEDebiaser.load(tmp_path / "model")
    assert np.array_equal(again.transform(X), debiaser.transform(X))
    with pytest.raises(ValueError, match="feature names"):
        again.transform(X[["b", "a", "c"]])


def test_edits_of_the_encoder_cannot_be_saved(fitted: SSAEDebiaser, texts: list[str], tmp_path: Path) -> None:
    encoder = fitted.encoder_.copy().set_params(edits={"blocks.0": fitted.eraser_})
    debiaser = SSAEDebiaser(encoder, n_latents=0, config=CONFIG, random_state=0)
    debiaser.fit(texts, sensitive_features=np.arange(len(texts)) % 2)
    with pytest.raises(InputError, match="edits of its own"):
        debiaser.save(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_saving_twice_replaces_but_never_foreign_files(labelled, tmp_path) -> None:  # type: ignore[no-untyped-def]
    labelled.save(tmp_path / "model")
    labelled.save(tmp_path / "model")
    assert not list(tmp_path.glob(".*partial"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="no debiaser"):
        labelled.save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "mine"
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt\), which would be lost"):
        labelled.save(tmp_path / "model")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="is a file"):
        labelled.save(tmp_path / "other" / "thesis.tex")
    assert not list(tmp_path.rglob(".*partial"))


def test_damage_is_named(labelled, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"no debiaser\.json"):
        SSAEDebiaser.load(tmp_path)
    labelled.save(tmp_path / "model")
    file = tmp_path / "model" / "debiaser.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        SSAEDebiaser.load(tmp_path / "model")
    file.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        SSAEDebiaser.load(tmp_path / "model")
    file.write_text(json.dumps(saved))
    (tmp_path / "model" / "arrays.safetensors").write_text("zz")
    with pytest.raises(InputError, match="damaged"):
        SSAEDebiaser.load(tmp_path / "model")
    (tmp_path / "model" / "arrays.safetensors").unlink()
    with pytest.raises(InputError, match="damaged"):
        SSAEDebiaser.load(tmp_path / "model")
