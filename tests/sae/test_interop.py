"""Every reader, and the writer, against the real library; run where sae-lens, dictionary-learning and eai-sparsify are.

`pip install sae-lens dictionary-learning eai-sparsify`, in an environment of their own.
"""

import importlib
import json
import os

import pytest
import torch
from planted_sae import ARCHITECTURES, planted_rows, random_sae

from debias_ssae.sae import load_sae, save_sae

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


def peer(module):
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its kernels need a GPU
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} is not installed: {error}")


@pytest.fixture
def x():
    return planted_rows(80) - 5


def randomise(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def close(left, right):
    return torch.allclose(left, right, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_reads_what_we_write(tmp_path, architecture, x):
    sae_lens = peer("sae_lens")
    sae = random_sae(architecture)
    save_sae(sae, tmp_path, metadata={"model_name": "minilm", "hook_name": "embeddings"})
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path))
    assert close(theirs.encode(x), sae.encode(x))
    assert close(theirs(x), sae(x).x_hat)
    assert theirs.cfg.metadata.model_name == "minilm"


@pytest.mark.parametrize("name", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("centres", [True, False])
def test_we_read_what_saelens_writes(tmp_path, name, centres, x):
    peer("sae_lens")
    registry = importlib.import_module("sae_lens.registry")
    sae_class, config_class = registry.get_sae_class(name)
    extra = {"k": 6, "rescale_acts_by_decoder_norm": True} if name == "topk" else {}
    theirs = sae_class(config_class(d_in=16, d_sae=48, apply_b_dec_to_input=centres, **extra))
    randomise(theirs)
    if name == "jumprelu":
        theirs.threshold.data.abs_()
    theirs.save_model(str(tmp_path))
    ours = load_sae(tmp_path)
    assert close(ours(x).x_hat, theirs(x))
    assert close(ours.encode(x), theirs.encode(x))
    assert 0 < (ours.encode(x) > 0).float().mean() < 0.9


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka_batchtopk"])
def test_we_read_saelens_training_directories(tmp_path, name, x):
    peer("sae_lens")
    registry = importlib.import_module("sae_lens.registry")
    sae_class, config_class = registry.get_sae_training_class(name)
    extra = {"matryoshka_widths": [12, 48]} if name.startswith("matryoshka") else {}
    theirs = sae_class(config_class(d_in=16, d_sae=48, k=4, **extra))
    randomise(theirs)
    theirs.topk_threshold.fill_(0.4)
    theirs.save_model(str(tmp_path / "training"))
    theirs.save_inference_model(str(tmp_path / "inference"))
    ours = load_sae(tmp_path / "training")
    real = importlib.import_module("sae_lens").SAE.load_from_disk(str(tmp_path / "inference"))
    assert close(ours(x).x_hat, real(x))
    assert close(load_sae(tmp_path / "inference")(x).x_hat, real(x))


def dictionary_classes():
    dictionary = importlib.import_module("dictionary_learning.dictionary")
    trainers = "dictionary_learning.trainers."
    return {
        "AutoEncoder": dictionary.AutoEncoder,
        "AutoEncoderNew": dictionary.AutoEncoderNew,
        "GatedAutoEncoder": dictionary.GatedAutoEncoder,
        "JumpReluAutoEncoder": dictionary.JumpReluAutoEncoder,
        "AutoEncoderTopK": importlib.import_module(trainers + "top_k").AutoEncoderTopK,
        "BatchTopKSAE": importlib.import_module(trainers + "batch_top_k").BatchTopKSAE,
        "MatryoshkaBatchTopKSAE": importlib.import_module(
            trainers + "matryoshka_batch_top_k"
        ).MatryoshkaBatchTopKSAE,
    }


@pytest.mark.parametrize(
    "name",
    [
        "AutoEncoder",
        "AutoEncoderNew",
        "GatedAutoEncoder",
        "JumpReluAutoEncoder",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
    ],
)
def test_we_read_what_dictionary_learning_writes(tmp_path, name, x):
    peer("dictionary_learning")
    arguments = {
        "AutoEncoderTopK": {"k": 5},
        "BatchTopKSAE": {"k": 5},
        "MatryoshkaBatchTopKSAE": {"k": 5, "group_sizes": [8, 16, 24]},
    }
    theirs = dictionary_classes()[name](16, 48, **arguments.get(name, {}))
    randomise(theirs)
    if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        theirs.threshold.fill_(0.6)
    elif name == "JumpReluAutoEncoder":
        theirs.threshold.data.abs_()
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": name}}))
    ours = load_sae(tmp_path)
    assert close(ours.encode(x), theirs.encode(x))
    assert close(ours(x).x_hat, theirs(x))


def test_we_read_what_sparsify_writes(tmp_path, x):
    peer("sparsify")
    coder = importlib.import_module("sparsify.sparse_coder")
    config = importlib.import_module("sparsify.config").SparseCoderConfig(expansion_factor=3, k=6)
    theirs = coder.SparseCoder(16, config)
    randomise(theirs)
    theirs.save_to_disk(tmp_path)
    ours = load_sae(tmp_path)
    top, where, _ = theirs.encode(x)
    assert close(ours.encode(x), torch.zeros(80, 48).scatter(1, where, top))
    assert close(ours(x).x_hat, theirs(x).sae_out)
