"""Native round trips, and readers against files built from their written specification."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from planted_sae import ARCHITECTURES, planted_rows, random_sae, save_dictionary_learning
from safetensors.torch import load_file, save_file

from debias_ssae.core.errors import InputError
from debias_ssae.sae import formats, load_sae, save_sae
from debias_ssae.sae.formats import load_metadata


@pytest.fixture
def x():
    return planted_rows(80) - 5


def close(left, right):
    return torch.allclose(left, right, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_native_round_trip_is_exact(tmp_path, architecture, dtype):
    sae = random_sae(architecture, dtype=dtype)
    save_sae(sae, tmp_path / "a" / "b", metadata={"model_name": "minilm", "tilt": 2.0})
    assert load_sae(tmp_path / "a" / "b").fingerprint() == sae.fingerprint()
    assert load_metadata(tmp_path / "a" / "b") == {"model_name": "minilm", "tilt": 2.0}
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
        "ssae.json",
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_our_side_file_it_is_read_as_saelens(tmp_path, architecture, x):
    sae = random_sae(architecture)
    save_sae(sae, tmp_path)
    (tmp_path / "ssae.json").unlink()
    read = load_sae(tmp_path)
    assert close(read.encode(x), sae.encode(x))
    assert close(read(x).x_hat, sae(x).x_hat)
    expected = architecture if architecture in ("relu", "topk") else "jumprelu"
    assert read.cfg.architecture == expected
    assert load_metadata(tmp_path)["sae_lens_version"].startswith("6.")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dictionary_learning_round_trip(tmp_path, architecture, x):
    sae = random_sae(architecture)
    save_dictionary_learning(sae, tmp_path)
    read = load_sae(tmp_path)
    assert read.cfg.architecture == architecture
    assert close(read.encode(x), sae.encode(x))
    assert close(read(x).x_hat, sae(x).x_hat)
    if architecture in ("topk", "batchtopk"):
        (tmp_path / "config.json").unlink()
        assert load_sae(tmp_path / "ae.pt").cfg.architecture == architecture


def test_dictionary_learning_backup_is_brought_back_to_scale(tmp_path, x):
    sae = random_sae("batchtopk")
    save_dictionary_learning(sae, tmp_path)
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    small = {**state, **{name: state[name] / 8 for name in ("encoder.bias", "b_dec", "threshold")}}
    torch.save(
        {"step": 3, "ae": small, "optimizer": {}, "config": {}, "norm_factor": 8.0}, tmp_path / "ae.pt"
    )
    assert close(load_sae(tmp_path).encode(x), sae.encode(x))


def spec_tensors(seed=0, d_in=16, d_sae=48):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator) / 2  # noqa: E731
    return draw(d_in, d_sae), draw(d_sae), draw(d_sae, d_in), draw(d_in), draw(d_sae).abs()


def gated(x, W_enc, b_gate, b_mag, r_mag, W_dec, b_dec):
    z = (x - b_dec) @ W_enc
    latents = (z + b_gate > 0) * (z * r_mag.exp() + b_mag).relu()
    return latents, latents @ W_dec + b_dec


def test_gated_saes_of_both_libraries(tmp_path, x):
    W_enc, b_gate, W_dec, b_dec, _ = spec_tensors()
    b_mag, r_mag = torch.randn(48) / 2, torch.randn(48) / 3
    latents, x_hat = gated(x, W_enc, b_gate, b_mag, r_mag, W_dec, b_dec)
    state = {
        "encoder.weight": W_enc.T.contiguous(),
        "decoder.weight": W_dec.T.contiguous(),
        "decoder_bias": b_dec,
        "r_mag": r_mag,
        "gate_bias": b_gate,
        "mag_bias": b_mag,
    }
    torch.save(state, tmp_path / "ae.pt")
    save_file(
        {"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec, "b_gate": b_gate, "b_mag": b_mag, "r_mag": r_mag},
        tmp_path / "sae_weights.safetensors",
    )
    for path in (tmp_path / "ae.pt", tmp_path):
        if path == tmp_path:
            (path / "cfg.json").write_text(json.dumps({"architecture": "gated"}))
        read = load_sae(path)
        assert close(read.encode(x), latents)
        assert close(read(x).x_hat, x_hat)
    assert 0.05 < (latents > 0).float().mean() < 0.95


def test_dictionary_learnings_other_relu_class_does_not_centre(tmp_path, x):
    W_enc, b_enc, W_dec, b_dec, _ = spec_tensors()
    state = {
        "encoder.weight": W_enc.T.contiguous(),
        "encoder.bias": b_enc,
        "decoder.weight": W_dec.T.contiguous(),
        "decoder.bias": b_dec,
    }
    torch.save(state, tmp_path / "ae.pt")
    latents = (x @ W_enc + b_enc).relu()
    assert close(load_sae(tmp_path).encode(x), latents)
    assert close(load_sae(tmp_path)(x).x_hat, latents @ W_dec + b_dec)


def test_saelens_options(tmp_path, x):
    W_enc, b_enc, W_dec, b_dec, threshold = spec_tensors()
    save_file(
        {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "threshold": threshold},
        tmp_path / "sae_weights.safetensors",
    )
    config = tmp_path / "cfg.json"
    config.write_text(json.dumps({"architecture": "jumprelu", "apply_b_dec_to_input": False}))
    pre = x @ W_enc + b_enc
    latents = torch.where(pre > threshold, pre, 0.0).relu()
    assert close(load_sae(tmp_path).encode(x), latents)
    save_file(
        {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}, tmp_path / "sae_weights.safetensors"
    )
    config.write_text(json.dumps({"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True}))
    norm = W_dec.norm(dim=1)
    top, where = (((x - b_dec) @ W_enc + b_enc) * norm).topk(5)
    latents = torch.zeros(80, 48).scatter(1, where, top.relu())
    assert close(load_sae(tmp_path).encode(x), latents)
    assert close(load_sae(tmp_path)(x).x_hat, (latents / norm) @ W_dec + b_dec)
    config.write_text(
        json.dumps({"architecture": "standard", "normalize_activations": "expected_average_only_in"})
    )
    with pytest.warns(UserWarning, match="scaled to a mean norm"):
        assert close(load_sae(tmp_path).encode(x), ((x - b_dec) @ W_enc + b_enc).relu())
    config.write_text(json.dumps({"architecture": "standard", "normalize_activations": "layer_norm"}))
    with pytest.raises(InputError, match="layer_norm"):
        load_sae(tmp_path)


@pytest.mark.parametrize("architecture", ["topk", "standard"])
def test_saelens_topk_from_before_version_six(tmp_path, x, architecture):
    W_enc, b_enc, W_dec, b_dec, _ = spec_tensors()
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    old = {"architecture": architecture, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    top, where = ((x - b_dec) @ W_enc + b_enc).topk(7)
    assert close(load_sae(tmp_path).encode(x), torch.zeros(80, 48).scatter(1, where, top.relu()))
    (tmp_path / "cfg.json").write_text(json.dumps({**old, "activation_fn_kwargs": {}}))
    with pytest.raises(InputError, match="has no k"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text(
        json.dumps({"architecture": "standard", "activation_fn_str": "tanh-relu"})
    )
    with pytest.raises(InputError, match="'tanh-relu' is not supported"):
        load_sae(tmp_path)


def test_saelens_training_directories(tmp_path, x):
    W_enc, b_enc, W_dec, b_dec, _ = spec_tensors()
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    save_file({**tensors, "topk_threshold": torch.tensor(0.6).double()}, tmp_path / "sae_weights.safetensors")
    for name, ours in (("batchtopk", "batchtopk"), ("matryoshka_batchtopk", "matryoshka")):
        described = {"architecture": name, "k": 4.0, "matryoshka_widths": [8, 20]}
        (tmp_path / "cfg.json").write_text(json.dumps(described))
        read = load_sae(tmp_path)
        pre = (x - b_dec) @ W_enc + b_enc
        assert read.cfg.architecture == ours
        assert close(read.encode(x), torch.where(pre > 0.6, pre, 0.0))
    assert read.cfg.widths == (8, 20, 48)


def test_sparsify(tmp_path, x):
    W_enc, b_enc, W_dec, b_dec, _ = spec_tensors()
    state = {"encoder.weight": W_enc.T.contiguous(), "encoder.bias": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    save_file(state, tmp_path / "sae.safetensors")
    described = {"activation": "topk", "expansion_factor": 3, "num_latents": 0, "k": 6, "d_in": 16}
    (tmp_path / "cfg.json").write_text(json.dumps(described))
    top, where = ((x - b_dec) @ W_enc + b_enc).relu().topk(6)
    latents = torch.zeros(80, 48).scatter(1, where, top)
    assert close(load_sae(tmp_path).encode(x), latents)
    for wrong, said in (({"transcode": True}, "transcode"), ({"activation": "groupmax"}, "groupmax")):
        (tmp_path / "cfg.json").write_text(json.dumps({**described, **wrong}))
        with pytest.raises(InputError, match=said):
            load_sae(tmp_path)


@pytest.mark.parametrize("lower", [False, True])
def test_gemma_scope(tmp_path, x, lower):
    W_enc, b_enc, W_dec, b_dec, threshold = spec_tensors()
    names = ("w_enc", "w_dec") if lower else ("W_enc", "W_dec")
    folder = tmp_path / "layer_3" / "width_48" / "average_l0_20"
    folder.mkdir(parents=True)
    arrays = {names[0]: W_enc, "b_enc": b_enc, names[1]: W_dec, "b_dec": b_dec, "threshold": threshold}
    arrays = {name: value.numpy() for name, value in arrays.items()}
    np.savez(folder / "params.npz", **arrays)
    pre = x @ W_enc + b_enc
    latents = pre * (pre > threshold)
    for path in (folder, folder / "params.npz"):
        read = load_sae(path)
        assert close(read.encode(x), latents)
        assert close(read(x).x_hat, latents @ W_dec + b_dec)
    np.savez(folder / "params.npz", **arrays, scaling_factor=np.ones(48, np.float32))
    assert close(load_sae(folder).encode(x), latents)
    np.savez(folder / "params.npz", **arrays, scaling_factor=np.full(48, 2.0, np.float32))
    with pytest.raises(InputError, match="scaling_factor"):
        load_sae(folder)


def test_gemma_scope_embedding(tmp_path, x):
    W_enc, b_enc, W_dec, b_dec, threshold = spec_tensors()
    folder = tmp_path / "embedding" / "width_48" / "average_l0_20"
    folder.mkdir(parents=True)
    arrays = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "threshold": threshold}
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in arrays.items()})
    pre = x @ W_enc / 4 + b_enc
    latents = pre * (pre > threshold)
    assert close(load_sae(folder).encode(x), latents)
    assert close(load_sae(folder)(x).x_hat, latents @ W_dec * 4 + b_dec)


@pytest.mark.parametrize("counts_norm", [None, True, False])
def test_llama_scope(tmp_path, x, counts_norm):
    W_enc, b_enc, W_dec, b_dec, _ = (t.bfloat16() for t in spec_tensors())
    (tmp_path / "checkpoints").mkdir()
    state = {
        "encoder.weight": W_enc.T.contiguous(),
        "encoder.bias": b_enc,
        "decoder.weight": W_dec.T.contiguous(),
        "decoder.bias": b_dec,
    }
    save_file(state, tmp_path / "checkpoints" / "final.safetensors")
    described = {
        "d_model": 16,
        "d_sae": 48,
        "jump_relu_threshold": 0.4,
        "dataset_average_activation_norm": {"in": 2.5, "out": 3.0},
    } | ({} if counts_norm is None else {"sparsity_include_decoder_norm": counts_norm})
    (tmp_path / "hyperparams.json").write_text(json.dumps(described))
    scale_in, scale_out = math.sqrt(16) / 2.5, math.sqrt(16) / 3.0
    hidden_pre = (x * scale_in) @ W_enc.float() + b_enc.float()
    decoder_norm = state["decoder.weight"].float().norm(dim=0)
    if counts_norm is False:
        latents = hidden_pre * (hidden_pre > 0.4 * scale_in)  # as SAELens reads it
    else:
        scaled = hidden_pre * decoder_norm
        latents = torch.where(scaled > 0.4, scaled, 0.0) / decoder_norm
        plain = hidden_pre > 0.4
        assert ((latents > 0) != plain).float().mean() > 0.01, "the norms decide nothing here"
    read = load_sae(tmp_path)
    assert ((read.encode(x) > 0) == (latents > 0)).all()
    assert close(read(x).x_hat, (latents @ W_dec.float() + b_dec.float()) / scale_out)
    if counts_norm is False:
        assert close(read.encode(x), latents)
    del described["dataset_average_activation_norm"]
    (tmp_path / "hyperparams.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="dataset_average_activation_norm"):
        load_sae(tmp_path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("name", ["ae.pt", "sae_weights.safetensors", "sae.safetensors", "params.npz"])
def test_pickle_bytes_are_refused_and_never_executed(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"encoder.weight": Bomb()}))
    (tmp_path / "cfg.json").write_text('{"architecture": "standard"}')
    with pytest.raises(InputError, match=name):
        load_sae(tmp_path)
    if name == "params.npz":
        np.savez(tmp_path / name, W_enc=np.array([Bomb()], dtype=object))
        with pytest.raises(InputError, match=name):
            load_sae(tmp_path)


def damage(path, **changes):
    tensors = load_file(path)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path)


@pytest.mark.parametrize("ours", [True, False])
def test_what_is_missing_or_misshapen_is_named(tmp_path, ours):
    def fresh():
        save_sae(random_sae("jumprelu"), tmp_path)
        if not ours:
            (tmp_path / "ssae.json").unlink()

    weights = tmp_path / "sae_weights.safetensors"
    for changes, said in (
        ({"b_dec": None}, "no tensor 'b_dec'"),
        ({"threshold": None}, "no tensor 'threshold'"),
        ({"W_dec": torch.zeros(16, 48)}, r"W_dec has shape \(16, 48\), expected \(48, 16\)"),
        ({"W_enc": torch.zeros(16)}, r"W_enc has shape \(16,\)"),
    ):
        fresh()
        damage(weights, **changes)
        if ours:  # whose checksums would say it first
            described = json.loads((tmp_path / "ssae.json").read_text())
            del described["weights_sha256"]
            (tmp_path / "ssae.json").write_text(json.dumps(described))
        with pytest.raises(InputError, match=said):
            load_sae(tmp_path)
    fresh()
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"is damaged|saving was interrupted"):
        load_sae(tmp_path)
    fresh()
    weights.unlink()
    with pytest.raises(InputError, match="There is no file"):
        load_sae(tmp_path)


def test_unknown_architectures_and_configurations(tmp_path):
    save_sae(random_sae("topk"), tmp_path)
    (tmp_path / "ssae.json").write_text('{"cfg": {"d_in": 0}}')
    with pytest.raises(InputError, match="d_in"):
        load_sae(tmp_path)
    (tmp_path / "ssae.json").unlink()
    for text, said in (
        ('{"architecture": "transformer"}', "unknown architecture 'transformer'"),
        ('{"architecture": "topk", "k": 500}', "k=500"),
        ("[1]", "JSON object"),
        ("{", "Cannot read"),
    ):
        (tmp_path / "cfg.json").write_text(text)
        with pytest.raises(InputError, match=said):
            load_sae(tmp_path)


def test_not_finite_weights_are_refused(tmp_path):
    save_sae(random_sae("relu"), tmp_path)
    (tmp_path / "ssae.json").unlink()
    damage(tmp_path / "sae_weights.safetensors", b_enc=torch.full((48,), math.nan))
    with pytest.raises(InputError, match="not finite"):
        load_sae(tmp_path)


def test_what_is_no_sae(tmp_path):
    with pytest.raises(InputError, match="no sparse autoencoder that this package knows"):
        load_sae(tmp_path)
    with pytest.raises(InputError, match="no sparse autoencoder"):
        load_sae(tmp_path / "nowhere")
    for value, said in (
        ({"a": torch.ones(2)}, "no class of dictionary_learning"),
        ([torch.ones(2)], "got a list"),
    ):
        torch.save(value, tmp_path / "ae.pt")
        with pytest.raises(InputError, match=said):
            load_sae(tmp_path)


def test_a_crash_while_saving_leaves_the_old_files(tmp_path, monkeypatch):
    old, new = random_sae("relu"), random_sae("relu", k=5)
    save_sae(old, tmp_path)
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match="disk full"):
        save_sae(new, tmp_path)
    assert load_sae(tmp_path).fingerprint() == old.fingerprint()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("n_written", [1, 2])
def test_an_interrupted_overwrite_is_noticed(tmp_path, monkeypatch, n_written):
    save_sae(random_sae("relu"), tmp_path)
    other = random_sae("relu", k=5)
    with torch.no_grad():
        other.b_dec.add_(1.0)
    written, inner = [], formats.write_bytes

    def write(path, data):
        if len(written) == n_written:
            raise KeyboardInterrupt
        written.append(path)
        inner(path, data)

    monkeypatch.setattr(formats, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        save_sae(other, tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="saving was interrupted"):
        load_sae(tmp_path)
    save_sae(other, tmp_path)
    assert load_sae(tmp_path).fingerprint() == other.fingerprint()
