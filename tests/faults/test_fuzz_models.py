"""Damaged SAEs, erasers, checkpoints, word lists and debiasers: the documented error, or the model as it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_sae import save_dictionary_learning
from safetensors.torch import load_file, save_file
from small_debiaser import small_encoder
from test_fuzz import damage, tried

from debias_ssae import SSAEDebiaser
from debias_ssae.core.config import DebiasConfig, SAEConfig, SelectionConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import load_model
from debias_ssae.retrieval.embedders import load_embedder
from debias_ssae.sae.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from debias_ssae.sae.formats import load_sae, save_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.text.concept import Concept

__all__ = ["small_encoder"]

CONFIG = DebiasConfig(
    d_sae=16,
    k=4,
    general=TrainConfig(n_steps=8, batch_size=64),
    special=TrainConfig(n_steps=4, batch_size=64),
    selection=SelectionConfig(min_cell=1),
)
ROWS = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32))


def sae(architecture="batchtopk"):
    made = SparseAutoencoder(SAEConfig(d_in=6, d_sae=12, k=3, architecture=architecture), random_state=0)
    with torch.no_grad():
        made.b_enc.add_(0.1)
    return made


def gemma_scope(folder: Path) -> None:
    one = sae("jumprelu")
    arrays = {
        "W_enc": one.W_enc.T,
        "b_enc": one.b_enc,
        "W_dec": one.W_dec,
        "b_dec": one.b_dec,
        "threshold": one.threshold,
    }
    folder.mkdir()
    np.savez(folder / "params.npz", **{name: value.detach().numpy() for name, value in arrays.items()})


def saelens(folder: Path) -> None:
    save_sae(sae("jumprelu"), folder)
    (folder / "ssae.json").unlink()


FORMATS = {
    "ours": lambda folder: save_sae(sae(), folder),
    "saelens": saelens,
    "dictionary_learning": lambda folder: save_dictionary_learning(sae("topk"), folder),
    "gemma_scope": gemma_scope,
}


def attack(folder: Path, read, rng, n: int, *, strict: bool) -> int:
    """Damage one file of ``folder`` at a time; where ``strict`` (files of ours, which hold checksums), what is read
    must be what was written.
    """
    right, refused = read(), 0
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for i in range(n):
        path = files[i % len(files)]
        whole = path.read_bytes()
        path.write_bytes(damage(whole, rng))
        found = tried(read)
        refused += isinstance(found, InputError)
        if strict and not isinstance(found, InputError):
            assert np.array_equal(found, right)
        path.write_bytes(whole)
    return refused


@pytest.mark.parametrize("kind", FORMATS)
def test_saes(tmp_path, kind, amount, counted):
    FORMATS[kind](tmp_path / "sae")

    def read():
        with torch.no_grad():
            return load_sae(tmp_path / "sae").encode(ROWS).numpy()

    n = amount(40, 2000)
    assert attack(tmp_path / "sae", read, np.random.default_rng(6), n, strict=kind == "ours")
    counted["SAEs"] = counted.get("SAEs", 0) + n


def test_checkpoints(tmp_path, amount, counted):
    write_checkpoint(tmp_path / "c", Checkpoint(3, {"w": torch.arange(4.0)}, {"history": [1, 2]}))
    (file,) = (tmp_path / "c").iterdir()
    n = amount(40, 2000)

    def read():
        found = read_checkpoint(file)
        return np.concatenate([found.tensors["w"].numpy(), [found.step], found.state["history"]])

    assert attack(tmp_path / "c", read, np.random.default_rng(8), n, strict=True)
    counted["checkpoints"] = counted.get("checkpoints", 0) + n


def test_word_lists(tmp_path, amount, counted):
    shipped = next(
        Path(Concept.__module__ and __import__("debias_ssae").__file__).parent.rglob("gender.yaml")
    )
    rng, path, whole = np.random.default_rng(9), tmp_path / "words.yaml", shipped.read_bytes()
    for _ in range(amount(15, 300)):
        path.write_bytes(damage(whole, rng))
        found = tried(lambda: Concept.load(path))
        assert isinstance(found, Concept | InputError)
        counted["word lists"] = counted.get("word lists", 0) + 1


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    rng = np.random.default_rng(0)
    g = rng.integers(0, 2, 300)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    X[:, 0] += 3 * g
    folders = []
    for scale in (1.0, 2.0):
        debiaser = SSAEDebiaser(config=CONFIG, random_state=0).fit(X * scale, sensitive_features=g)
        folders.append(tmp_path_factory.mktemp("fitted") / "model")
        debiaser.save(folders[-1])
    return folders


def test_debiasers(tmp_path, fitted, amount, counted):
    folder = tmp_path / "model"
    shutil.copytree(fitted[0], folder)

    def read():
        return SSAEDebiaser.load(folder).transform(ROWS.numpy())

    n = amount(40, 1500)
    refused = attack(folder, read, np.random.default_rng(10), n, strict=True)
    assert refused > n / 2
    for path in [p for p in folder.rglob("*") if p.is_file()]:  # the same file of another debiaser
        whole = path.read_bytes()
        other = (fitted[1] / path.relative_to(folder)).read_bytes()
        path.write_bytes(other)
        if other != whole:
            assert isinstance(tried(read), InputError), path.name
        path.write_bytes(whole)
    counted["debiasers"] = counted.get("debiasers", 0) + n


def without_block_1(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_prefix(folder: Path) -> None:
    weights = {f"net.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def narrow(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_size": 32', '"hidden_size": 16'))


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")


@pytest.mark.parametrize("harm", [without_block_1, with_a_prefix, narrow, cut, pointer])
def test_language_models_that_lack_weights_or_fit_no_config_are_refused(tmp_path, small_encoder, harm):
    shutil.copytree(small_encoder, tmp_path / "m")
    harm(tmp_path / "m")
    for load in (load_model, load_embedder):
        error = tried(lambda: load(str(tmp_path / "m")))  # noqa: B023
        assert isinstance(error, InputError), load
        assert str(tmp_path / "m") in str(error)
    assert isinstance(tried(lambda: load_model(str(small_encoder), device="mps")), InputError)
