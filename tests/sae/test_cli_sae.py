import pytest
import torch
import yaml
from click.testing import CliRunner
from planted_sae import planted_rows, random_sae, save_dictionary_learning

from debias_ssae.cli import main
from debias_ssae.model.store import ActivationStore
from debias_ssae.sae import load_sae, save_sae
from debias_ssae.sae.formats import load_metadata


class Store:
    """Stands for a store on disk; the real one is tested in its own folder."""

    hookpoints: tuple[str, ...] = ("embeddings",)
    d_model, n_rows = 16, 3000

    def __init__(self, directory):
        self.settings = {"model": "planted"}

    def shuffled(self, hookpoint=None, *, batch_size, n_epochs=None, random_state=None):
        generator = torch.Generator().manual_seed(random_state)
        rows = planted_rows(self.n_rows)
        while True:
            for part in rows[torch.randperm(self.n_rows, generator=generator)].split(batch_size):
                if len(part) == batch_size:
                    yield part
            if n_epochs:
                return


@pytest.fixture
def store(monkeypatch):
    for name in ("__init__", "shuffled", "hookpoints", "d_model", "n_rows"):
        monkeypatch.setattr(ActivationStore, name, getattr(Store, name))


def call(*arguments):
    return CliRunner().invoke(main, ["sae", *map(str, arguments)])


SMALL = ("--steps", 40, "--batch-size", 64, "--d-sae", 48, "--k", 4, "--device", "cpu")


def test_train_info_and_convert(tmp_path, store):
    out = tmp_path / "sae"
    done = call(
        "train", "--activations", "acts", "--out", out, *SMALL, "--tilt", "2.5", "--set", "log_every=5"
    )
    assert done.exit_code == 0, done.output
    assert "batchtopk, 48 latents on width 16; fvu" in done.output
    trained = load_sae(out)
    assert (trained.cfg.d_sae, trained.cfg.k) == (48, 4)
    about = load_metadata(out)
    assert about["hook_name"] == "embeddings"
    assert about["train"]["tilt"] == 2.5
    assert about["train"]["log_every"] == 5

    shown = yaml.safe_load(call("info", out).output)
    assert shown["configuration"]["d_sae"] == 48
    assert shown["weights"]["fingerprint"] == trained.fingerprint()
    assert (shown["made from"]["train"]["tilt"], shown["made from"]["hook_name"]) == (2.5, "embeddings")
    assert shown["last step of training"]["step"] == 39
    assert 0 < shown["last step of training"]["fvu"] < 1

    x = planted_rows(50)
    save_dictionary_learning(trained, tmp_path / "theirs")
    done = call("convert", tmp_path / "theirs", tmp_path / "ours")
    assert done.exit_code == 0, done.output
    assert torch.allclose(load_sae(tmp_path / "ours")(x).x_hat, trained(x).x_hat, atol=1e-4)


def test_resume_and_fine_tune(tmp_path, store):
    assert call("train", "--activations", "a", "--out", tmp_path / "g", *SMALL).exit_code == 0
    again = call("train", "--activations", "a", "--out", tmp_path / "g", *SMALL)
    assert again.exit_code == 2
    assert "resume" in again.output
    assert call("train", "--activations", "a", "--out", tmp_path / "g", *SMALL, "--resume").exit_code == 0
    tune = ("train", "--activations", "a", "--init", tmp_path / "g", "--steps", 10, "--batch-size", 64)
    assert call(*tune, "--out", tmp_path / "s", "--tilt", "auto", "--device", "cpu").exit_code == 0
    assert load_sae(tmp_path / "s").cfg == load_sae(tmp_path / "g").cfg


def test_a_configuration_file_and_what_overrides_it(tmp_path, store):
    config = tmp_path / "c.yaml"
    config.write_text(
        "sae: {d_sae: 20, k: 2, architecture: topk}\ntrain: {n_steps: 5, batch_size: 64, device: cpu}\n"
    )
    done = call("train", "--activations", "a", "--out", tmp_path / "o", "--config", config, "--k", 3)
    assert done.exit_code == 0, done.output
    cfg = load_sae(tmp_path / "o").cfg
    assert (cfg.d_sae, cfg.k, cfg.architecture) == (20, 3, "topk")
    for text, said in (
        ("sae: {d_sa: 20}", "d_sa: unknown name; did you mean d_sae?"),
        ("{", "Cannot read"),
        ("tain: {}", "tain: unknown name; did you mean train?"),
        ("train: {lr: -1}", "lr"),
    ):
        config.write_text(text)
        done = call("train", "--activations", "a", "--out", tmp_path / "p", "--config", config)
        assert done.exit_code == 2
        assert said in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--out", "x"], "either --activations"),
        (["train", "--out", "x", "--encoder", "minilm"], "either --activations"),
        (["train", "--out", "x", "--activations", "a", "--tilt", "steep"], "tilt"),
        (["train", "--out", "x", "--activations", "a", "--set", "lr"], "NAME=VALUE"),
        (["train", "--out", "x", "--activations", "a", "--set", "speed=9"], "speed"),
        (["train", "--out", "x", "--activations", "a", "--k", "0"], "k"),
        (["info", "nowhere"], "no sparse autoencoder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(tmp_path, store, arguments, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_convert_refuses_to_write_over_its_source(tmp_path):
    save_sae(random_sae("relu"), tmp_path)
    done = call("convert", tmp_path, tmp_path)
    assert done.exit_code == 2
    assert "another folder" in done.output


@pytest.mark.slow
def test_train_from_an_encoder_and_a_corpus(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"The nurse saw patient {i} on day {i % 7} in the ward." for i in range(60)))
    out = tmp_path / "sae"
    done = call("train", "--encoder", "minilm", "--corpus", corpus, "--out", out, "--rows", 500, *SMALL)
    assert done.exit_code == 0, done.output
    assert load_sae(out).cfg.d_in == 384
    assert load_metadata(out)["hook_name"] == "embeddings"
    assert load_metadata(out)["n_rows"] == 500
    (tmp_path / "empty.txt").write_text("\n\n")
    done = call(
        "train", "--encoder", "minilm", "--corpus", tmp_path / "empty.txt", "--out", tmp_path / "o", *SMALL
    )
    assert done.exit_code == 2
