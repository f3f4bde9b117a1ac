"""The exported directory gives the debiaser's vectors, holds no code and no SAE, and is whole or absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import yaml
from click.testing import CliRunner
from small_debiaser import CONFIG, make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_manifest, write_manifest
from debias_ssae.export import export_sentence_transformers, load_exported
from debias_ssae.export.module import KIND
from debias_ssae.model.encoder import ActivationEncoder

NEW = [*make_texts(40, seed=7), "", "nurse " * 60, "unseen words only"]


def load(path: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(path), device="cpu", trust_remote_code=True)


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.fixture(scope="module")
def exported(fitted: SSAEDebiaser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    goal = tmp_path_factory.mktemp("exports") / "debiased"
    export_sentence_transformers(fitted, goal)
    return goal


def test_encode_is_transform(fitted: SSAEDebiaser, exported: Path) -> None:
    model, wanted = load(exported), fitted.transform(NEW)
    assert fitted.shift_ is not None
    assert largest(model.encode(NEW), wanted) < 1e-5
    assert largest(model.encode(NEW, batch_size=3), wanted) < 1e-5
    assert largest(load_exported(exported).encode(NEW), wanted) < 1e-5
    assert largest(fitted.encoder_.encode(NEW), wanted) > 1e-2, "the control: the plain model differs"
    assert model.get_embedding_dimension() == 32
    assert np.allclose(np.linalg.norm(model.encode(NEW[:5], normalize_embeddings=True), axis=1), 1)


def test_no_flag_means_no_foreign_class(exported: Path) -> None:
    """What version 6 says; load_exported is the way without the flag."""
    with pytest.raises(ValueError, match="trust_remote_code"):
        sentence_transformers.SentenceTransformer(str(exported), device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"output_eraser": "counterfactual"},
        {"hookpoint": ["embeddings", "blocks.0"]},
        {"alpha": 0.5},
        {"alpha": 0.0},
        {"config": CONFIG.updated(recenter=False)},
        {"n_latents": 0},
    ],
)
def test_other_settings(
    small_encoder: Path, texts: list[str], concept: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    encoder = ActivationEncoder(
        str(small_encoder), dtype="float32", pooling="max", layer="blocks.1", max_length=9
    )
    debiaser = SSAEDebiaser(encoder, attribute=concept, random_state=0, **{"config": CONFIG, **options})
    debiaser.fit(texts)
    export_sentence_transformers(debiaser, tmp_path / "out")
    assert largest(load(tmp_path / "out").encode(NEW), debiaser.transform(NEW)) < 1e-5


def test_lowered_weights_are_exported_in_full(
    small_encoder: Path, texts: list[str], concept: Any, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    encoder = ActivationEncoder(str(small_encoder), dtype="bfloat16")
    debiaser = SSAEDebiaser(encoder, attribute=concept, config=CONFIG, random_state=0).fit(texts)
    export_sentence_transformers(debiaser, tmp_path / "out")
    wanted = debiaser.transform(NEW)
    assert largest(load(tmp_path / "out").encode(NEW), wanted) < 0.02 * np.abs(wanted).max()
    copied, original = (
        load_file(p / "model.safetensors") for p in (tmp_path / "out" / "model", small_encoder)
    )
    assert all(np.array_equal(copied[name], original[name]) for name in copied)


def test_what_is_inside(fitted: SSAEDebiaser, exported: Path) -> None:
    files = [p for p in exported.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".json", ".safetensors", ".md", ".txt"}
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in files)
    erasers = sum(p.stat().st_size for p in (exported / "erasers").rglob("*") if p.is_file())
    assert erasers < 4 * 2.2 * 6 * 32 + 2000, "six latents, not the whole SAE"
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "sentence-transformers"
    shown, folded = card.split("<details>")
    order = [shown.index(f"## {title}") for title in ("What changed", "Use", "Limits", "How it was made")]
    assert order == sorted(order)
    assert "Removed" in shown
    assert fitted.intervention_.sae.fingerprint()[:16] in folded, "internals are folded"
    for said in (
        f"{len(fitted.intervention_.selection.ids)} of 64 latents",
        "6: he, her, his",
        "`embeddings`",
        "output eraser | none",
        '"shift of the output": ',
        '"n_training_texts": 200',
        "arXiv 2411.00743",
        "gender\\|of &lt;words&gt;",
        "reviewed by a person | no",
    ):
        assert said in card, said
    assert str(fitted.encoder.model) not in card, (
        "a card is published; where files lie here is nobody's business"
    )


def test_saving_again_through_sentence_transformers(
    fitted: SSAEDebiaser, exported: Path, tmp_path: Path
) -> None:
    load(exported).save(str(tmp_path / "again"), create_model_card=False)
    assert largest(load(tmp_path / "again").encode(NEW), fitted.transform(NEW)) < 1e-5


def test_an_earlier_export_is_replaced_and_foreign_files_never(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    export_sentence_transformers(fitted, tmp_path / "out")
    with pytest.raises(InputError, match=r"holds an exported debiaser already: .*--overwrite"):
        export_sentence_transformers(fitted, tmp_path / "out")
    export_sentence_transformers(fitted, tmp_path / "out", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (("mine", "no exported debiaser"), ("file", "is a file")):
        with pytest.raises(InputError, match=message):
            export_sentence_transformers(fitted, tmp_path / name)
    assert {p.name for p in tmp_path.iterdir()} == {"out", "mine", "file"}


def test_what_differs_is_not_written(
    fitted: SSAEDebiaser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SSAEDebiaser, "transform", lambda self, X: np.ones((len(X), 32), np.float32))
    with pytest.raises(InputError, match="differs from the debiaser"):
        export_sentence_transformers(fitted, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_matrix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="works on a matrix"):
        export_sentence_transformers(SSAEDebiaser(), tmp_path / "out")


def test_damage_is_named(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    export_sentence_transformers(fitted, tmp_path / "out")
    out, rng = tmp_path / "out", np.random.default_rng(0)
    for file in [path for path in out.rglob("*") if path.is_file()]:
        if (
            file.name == "README.md"
            or (file.parent == out and "sentence" in file.name)
            or file.name == "modules.json"
        ):
            continue  # of sentence-transformers
        whole = file.read_bytes()
        for _ in range(3):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=r"damaged|checksum differs|as JSON|not UTF-8"):
                load_exported(out)
        file.write_bytes(whole)
    about = read_manifest(out, KIND)
    for change in (
        {"erasers": {"../model": {"latents": [1], "alpha": 1.0}}},
        {"erasers": 3},
        {"readout": [1]},
    ):
        write_manifest(out, KIND, about.about | change, about.files)
        with pytest.raises(InputError):
            load_exported(out)
    with pytest.raises(InputError, match="no exported debiaser"):
        load_exported(tmp_path / "nowhere")


def test_command(fitted: SSAEDebiaser, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), "--to", "sentence-transformers", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "Load it with: SentenceTransformer(" in result.output
    assert largest(load(tmp_path / "out").encode(NEW), fitted.transform(NEW)) < 1e-5
