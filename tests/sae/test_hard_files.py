"""Files of SAEs that are damaged, hostile or not what they claim: one clear line, or the right reading."""

import io
import json
import warnings
import zipfile

import numpy as np
import pytest
import torch
from planted_sae import random_sae
from safetensors.torch import save_file

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae import SparseAutoencoder, load_sae, save_sae, shuffled_batches, train_sae

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"


def tensors(**changes):
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (8, 32), "W_dec": (32, 8), "b_enc": (32,), "b_dec": (8,)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: value for name, value in (made | changes).items() if value is not None}


def saelens(folder, cfg=(), **changes):
    settings = {"architecture": "standard", "d_in": 8, "d_sae": 32, **dict(cfg)}
    (folder / "cfg.json").write_text(json.dumps(settings))
    save_file(tensors(**changes), folder / "sae_weights.safetensors")


def layers(folder, config=None, **changes):
    made = tensors()
    saved = {
        "encoder.weight": made["W_enc"].T.contiguous(),
        "encoder.bias": made["b_enc"],
        "decoder.weight": made["W_dec"].T.contiguous(),
        "b_dec": made["b_dec"],
        "k": torch.tensor(4),
        "threshold": torch.tensor(0.5),
    }
    torch.save(
        {name: value for name, value in (saved | changes).items() if value is not None}, folder / "ae.pt"
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


def npz(folder, **changes):
    made = {name: value.numpy() for name, value in tensors(threshold=torch.zeros(32)).items()}
    np.savez(folder / "params.npz", **(made | changes))


def claiming(folder, shape, size=64):
    """An npz whose array says that it has ``shape`` and holds a few bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "params.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W_enc.npy", header.getvalue() + b"\0" * size)


def edited(folder, name, value):
    """A native SAE whose ssae.json says something else of its shape."""
    save_sae(random_sae("batchtopk"), folder)
    told = json.loads((folder / "ssae.json").read_text())
    told["cfg"][name] = value
    (folder / "ssae.json").write_text(json.dumps(told))


def damaged(folder, change, hashed=False):
    save_sae(random_sae("batchtopk"), folder)
    if not hashed:
        (folder / "ssae.json").unlink()
    path = folder / "sae_weights.safetensors"
    path.write_bytes(change(path.read_bytes()))


BAD = {
    "pointer, safetensors": (
        lambda f: (saelens(f), (f / "sae_weights.safetensors").write_bytes(POINTER)), "git lfs pull"),
    "pointer, pt": (lambda f: (f / "ae.pt").write_bytes(POINTER), "git lfs pull"),
    "pointer, npz": (lambda f: (f / "params.npz").write_bytes(POINTER), "git lfs pull"),
    "cut safetensors": (lambda f: damaged(f, lambda b: b[: len(b) // 2]), "damaged"),
    "longer safetensors": (lambda f: damaged(f, lambda b: b + b"\0"), "damaged"),
    "flipped safetensors": (
        lambda f: damaged(f, lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], hashed=True), "save the SAE again"),
    "header of terabytes": (lambda f: damaged(f, lambda b: (1 << 42).to_bytes(8, "little") + b[8:]), "damaged"),
    "empty safetensors": (lambda f: damaged(f, lambda b: b""), "damaged"),
    "NaN": (lambda f: saelens(f, W_dec=torch.full((32, 8), torch.nan)), "not finite"),
    "infinity": (lambda f: npz(f, W_dec=np.full((32, 8), np.inf, np.float32)), "NaN or infinity"),
    "overflow": (lambda f: npz(f, W_dec=np.full((32, 8), 1e300)), "NaN or infinity"),
    "other width": (lambda f: saelens(f, {"d_in": 9}), "d_in=9"),
    "wrong shape": (lambda f: saelens(f, b_enc=torch.zeros(31)), "b_enc has shape"),
    "missing tensor": (lambda f: saelens(f, b_dec=None), "no tensor 'b_dec'"),
    "unknown tensor": (lambda f: saelens(f, W_skip=torch.zeros(8, 8)), "W_skip"),
    "threshold of a relu": (lambda f: saelens(f, threshold=torch.zeros(32)), "threshold"),
    "scale that nobody announces": (lambda f: saelens(f, scaling_factor=torch.full((32,), 2.0)), "scaling_factor"),
    "k of words": (lambda f: saelens(f, {"architecture": "topk", "k": "many"}), "many"),
    "k above the latents": (lambda f: saelens(f, {"architecture": "topk", "k": 99}), "99"),
    "architecture a list": (lambda f: saelens(f, {"architecture": [1]}), "architecture"),
    "config a list": (lambda f: (saelens(f), (f / "cfg.json").write_text("[1]")), "cfg.json"),
    "npz of terabytes": (lambda f: claiming(f, (10**6, 10**6)), "claims shape"),
    "npz of more than integers": (lambda f: claiming(f, (10**30,)), "Cannot read"),
    "npz that is no zip": (lambda f: (f / "params.npz").write_bytes(b"PK\3\4 nothing"), "Cannot read"),
    "pt of a list": (lambda f: torch.save([1, 2], f / "ae.pt"), "named tensors"),
    "pt of a function": (lambda f: torch.save({"a": print}, f / "ae.pt"), "plain tensors"),
    "pt stretched to terabytes": (
        lambda f: layers(f, **{"encoder.weight": torch.zeros(1, 1).expand(10**6, 10**6)}), "plain tensor"),
    "pt sparse": (lambda f: layers(f, **{"encoder.weight": torch.eye(8).to_sparse()}), "plain tensor"),
    "pt unknown tensor": (lambda f: layers(f, W_skip=torch.zeros(2)), "W_skip"),
    "pt k a vector": (lambda f: layers(f, k=torch.zeros(3)), "k has shape"),
    "pt k below one": (lambda f: layers(f, k=torch.tensor(-3)), "ae.pt"),
    "dictionary_learning trainer a list": (lambda f: layers(f, {"trainer": [3]}), None),
    "dictionary_learning trainer null": (lambda f: layers(f, {"trainer": None}), None),
    "dictionary_learning config a number": (lambda f: (layers(f), (f / "config.json").write_text("3")), "config.json"),
    "backup with words for a factor": (
        lambda f: torch.save({"ae": {}, "norm_factor": "big"}, f / "ae.pt"), "cannot be read as an SAE"),
    "ssae.json of another shape": (lambda f: edited(f, "d_sae", 2**24), "ssae.json"),
    "ssae.json of a billion": (lambda f: edited(f, "d_in", 10**12), "ssae.json"),
    "ssae.json without sense": (lambda f: edited(f, "architecture", "gated"), "ssae.json"),
    "nothing": (lambda f: None, "no sparse autoencoder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_end_in_one_clear_line(name, tmp_path):
    make, words = BAD[name]
    make(tmp_path)
    if words is None:  # odd, but its meaning is clear
        assert load_sae(tmp_path).cfg.d_in == 8
        return
    with pytest.raises(InputError) as caught:
        load_sae(tmp_path)
    message = str(caught.value)
    assert words in message
    assert str(tmp_path) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["finetuning_scaling_factor", "scaling_factor"])
def test_finetuned_scales_multiply_what_is_decoded(name, tmp_path):
    scale = torch.rand(32) + 0.5
    saelens(tmp_path, {"finetuning_scaling_factor": True}, **{name: scale})
    made, x = tensors(), torch.randn(20, 8)
    latents = ((x - made["b_dec"]) @ made["W_enc"] + made["b_enc"]).relu()
    assert torch.allclose(
        load_sae(tmp_path)(x).x_hat, (latents * scale) @ made["W_dec"] + made["b_dec"], atol=1e-4
    )


@pytest.mark.parametrize(
    ("told", "hookpoint", "model", "warned"),
    [
        ({"hook_name": "blocks.11.attn.hook_z", "model_name": "gpt2-small"}, "embeddings", "bert", True),
        ({"hook_name": "blocks.3.hook_resid_post"}, "blocks.3", "gpt2", False),
        ({"hook_name": "blocks.3.hook_resid_pre"}, "blocks.2", "gpt2", False),
        ({"hook_name": "blocks.0.hook_resid_pre"}, "embeddings", "gpt2", False),
        ({"hook_name": "blocks.3.hook_resid_pre"}, "blocks.3", "gpt2", True),
        ({"hook_name": "blocks.3.hook_mlp_out"}, "blocks.3.mlp", None, False),
        ({"hook_name": "embeddings", "model_name": "minilm"}, "embeddings", "minilm", False),
        ({"model_name": "gpt2"}, "blocks.1", "openai-community/gpt2", False),
        ({"model_name": "gpt2"}, "blocks.1", "EleutherAI/pythia-70m", True),
        ({}, "embeddings", "gpt2", False),
        ({"hook_name": 3, "model_name": None}, "embeddings", "gpt2", False),
    ],
)
def test_an_sae_of_another_model_or_place_is_named(told, hookpoint, model, warned, tmp_path):
    save_sae(random_sae("topk"), tmp_path, metadata=told)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_sae(tmp_path, model=model, hookpoint=hookpoint)
    assert [str(w.message) for w in caught if "trained on" in str(w.message)] != [] if warned else not caught


def test_more_latents_than_memory_are_refused_at_once():
    cfg = SAEConfig(d_in=2**20, d_sae=2**24)
    for act in (
        lambda: SparseAutoencoder(cfg),
        lambda: train_sae(shuffled_batches(torch.zeros(4, 2), 2), cfg),
    ):
        with pytest.raises(InputError, match=r"d_sae=16777216 .* GiB, this machine has .* GiB: give fewer"):
            act()
