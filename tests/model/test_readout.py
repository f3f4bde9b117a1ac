"""A sentence-transformers model with nothing removed gives what its own encode gives; models in memory too."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as models
from sklearn.base import clone
from small_models import FAMILIES, sentences, small_model, small_tokenizer

from debias_ssae.core.errors import InputError
from debias_ssae.model import Readout, embed, harvest, load_model
from debias_ssae.model.encoder import ActivationEncoder, as_encoder
from debias_ssae.retrieval import embed_texts

TEXTS = [*sentences(20), "She works in the city", "the " * 60, "  he works . ", "A Nurse"]
BIOGRAPHIES = [
    "She is a surgeon who works in the clinic of a small town.",
    "He was born in 1970, and is a nurse.",
    "",
    "Stocks fell on Monday; the court ruled on taxes. " * 40,
    "naïve Ünïcode 漢字 🙂",
]


def base_directory(folder: Path, family: str = "bert") -> str:
    """A random model of ``family`` as a plain transformers directory."""
    model_class, config_class, sizes = FAMILIES[family]
    torch.manual_seed(0)
    module = model_class(config_class(**sizes))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module.save_pretrained(folder / "base")
    tokenizer = small_tokenizer(adds_special=family != "gpt_neox")
    tokenizer.pad_token = "[PAD]"
    tokenizer.save_pretrained(folder / "base")
    return str(folder / "base")


def sentence_transformer(
    folder: Path, mode="mean", *, family="bert", tail=(), include_prompt=True, **options
) -> SentenceTransformer:
    """A random sentence-transformers model, saved to ``folder / "st"``."""
    transformer = models.Transformer(base_directory(folder, family), **options.pop("transformer", {}))
    pooling = models.Pooling(32, pooling_mode=mode, include_prompt=include_prompt)
    made = SentenceTransformer(modules=[transformer, pooling, *tail], device="cpu", **options)
    made.eval()
    made.save(str(folder / "st"), create_model_card=False)
    return made


def distance(folder: Path, made: SentenceTransformer, texts=TEXTS) -> float:
    """Largest difference of the directory's vectors, and of the object's, from its own encode."""
    wanted = made.encode(texts)
    found = ActivationEncoder(str(folder / "st"), dtype="float32", device="cpu").fit_transform(texts)
    again = as_encoder(made, dtype="float32").transform(texts)
    assert found.shape == wanted.shape
    assert np.array_equal(found, again)
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens"])
def test_each_pooling(tmp_path, mode, normalize):
    made = sentence_transformer(tmp_path, mode, tail=[models.Normalize()] if normalize else [])
    assert distance(tmp_path, made) <= 1e-5
    plain = ActivationEncoder(str(tmp_path / "st"), pooling="mean", dtype="float32").fit_transform(TEXTS)
    assert (
        np.abs(plain - made.encode(TEXTS)).max() > 1e-4
    )  # a named pooling is ours: own tokens, no normalisation
    model = load_model(str(tmp_path / "st"), dtype="float32")
    assert np.allclose(plain, harvest(model, TEXTS, "final").pool().numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt_neox", "t5", "mpnet"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_lengths_and_families(tmp_path, family, include_prompt):
    made = sentence_transformer(
        tmp_path,
        family=family,
        include_prompt=include_prompt,
        tail=[models.Normalize()],
        prompts={"document": "the nurse was "},
        default_prompt_name="document",
        transformer={"max_seq_length": 12},
    )
    assert distance(tmp_path, made) <= 1e-5
    retrieved = embed_texts(TEXTS, str(tmp_path / "st"), device="cpu", dtype="float32")
    np.testing.assert_allclose(retrieved, made.encode(TEXTS), atol=1e-5)
    model = load_model(str(tmp_path / "st"), dtype="float32")
    rows = harvest(model, ["she works in the clinic"], "blocks.0")
    assert rows.offsets.tolist() == [
        [0, 3],
        [4, 9],
        [10, 12],
        [13, 16],
        [17, 23],
    ]  # of the text, not the prompt
    made.default_prompt_name = None
    plain = as_encoder(made, dtype="float32").transform(TEXTS)
    assert np.abs(plain - ActivationEncoder(model).transform(TEXTS)).max() > 1e-3


def test_several_poolings_dense_layers_and_lower_case(tmp_path):
    torch.manual_seed(1)
    made = sentence_transformer(
        tmp_path,
        ("mean", "max", "cls"),
        tail=[models.Dense(96, 20), models.Dense(20, 8, bias=False, activation_function=torch.nn.Identity())],
        transformer={"do_lower_case": True},
    )
    assert distance(tmp_path, made) <= 1e-5
    model = load_model(str(tmp_path / "st"), dtype="float32")
    assert model.readout().width(model.d_model) == 8
    assert ActivationEncoder(model).fit(TEXTS).n_features_out_ == 8
    with pytest.raises(InputError, match="Dense"):
        model.readout().to_dict()


def test_what_cannot_be_followed_is_refused_by_name(tmp_path):
    sentence_transformer(tmp_path)
    file = tmp_path / "st" / "modules.json"
    listed = json.loads(file.read_text())
    for kind, message in (
        ("mine.Special", "module of its own"),
        ("sentence_transformers.models.LSTM", "module LSTM"),
    ):
        (tmp_path / "st" / "2_X").mkdir(exist_ok=True)
        file.write_text(json.dumps([*listed, {"idx": 2, "name": "2", "path": "2_X", "type": kind}]))
        encoder = ActivationEncoder(str(tmp_path / "st"), dtype="float32")
        with pytest.raises(InputError, match=message):
            encoder.fit(TEXTS)
        assert encoder.set_params(pooling="mean").fit_transform(TEXTS).shape == (len(TEXTS), 32)
    file.write_text(json.dumps(listed[:1]))
    with pytest.raises(InputError, match="has no Pooling"):
        ActivationEncoder(str(tmp_path / "st")).fit(TEXTS)
    with pytest.raises(InputError, match="Unknown pooling 'sum'"):
        ActivationEncoder(str(tmp_path / "st"), pooling="sum").fit(TEXTS)


def test_minilm_is_its_sentence_transformer(minilm):
    made = SentenceTransformer(str(Path(minilm.module.config.name_or_path)), device="cpu")
    encoder = ActivationEncoder(minilm)
    assert np.abs(encoder.transform(BIOGRAPHIES) - made.encode(BIOGRAPHIES)).max() <= 1e-5
    assert minilm.stated.max_length == 256
    own = embed(minilm, BIOGRAPHIES, pooling="mean")
    assert np.abs(own - harvest(minilm, BIOGRAPHIES, "final").pool().numpy()).max() < 1e-5


def test_a_plain_directory_pools_its_own_tokens(tmp_path):
    base = base_directory(tmp_path)
    model = load_model(base, dtype="float32")
    assert model.readout() == Readout()
    wanted = embed(model, TEXTS, pooling="mean")
    assert np.array_equal(ActivationEncoder(base, dtype="float32").fit_transform(TEXTS), wanted)


@pytest.mark.parametrize("head", ["AutoModelForSequenceClassification", "AutoModelForMaskedLM", "AutoModel"])
def test_a_model_in_memory(tmp_path, head):
    base = base_directory(tmp_path)
    module = getattr(tf, head).from_pretrained(base)
    before = copy.deepcopy(module.state_dict())
    options = {"pooling": "mean"}  # a classifier is else read where its head reads it
    tokenizer = tf.AutoTokenizer.from_pretrained(base)
    encoder = ActivationEncoder.from_model(module, tokenizer, dtype="float32", **options)
    wanted = ActivationEncoder(base, dtype="float32").fit_transform(TEXTS)
    assert np.abs(encoder.fit_transform(TEXTS) - wanted).max() < 1e-6
    cloned = clone(encoder)
    assert cloned.model is encoder.model  # the weights are not copied
    assert cloned.get_params() == encoder.get_params()
    assert np.array_equal(
        cloned.set_params(pooling="max").transform(TEXTS),
        encoder.copy().set_params(pooling="max").transform(TEXTS),
    )
    low = ActivationEncoder.from_model(module, small_tokenizer(), dtype="bfloat16", **options)
    assert np.corrcoef(low.transform(TEXTS).ravel(), wanted.ravel())[0, 1] > 0.99
    for name, value in module.state_dict().items():  # nothing happened to the user's model
        assert torch.equal(value, before[name])


def test_saving_a_model_in_memory(tmp_path):
    base = base_directory(tmp_path)
    module, tokenizer = tf.AutoModel.from_pretrained(base), tf.AutoTokenizer.from_pretrained(base)
    encoder = ActivationEncoder.from_model(module, tokenizer, dtype="float32", max_length=9)
    again = ActivationEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())), device="cpu")
    assert again.model == base
    assert np.array_equal(again.transform(TEXTS), encoder.transform(TEXTS))
    with torch.no_grad():
        next(module.parameters())[3] += 1
    assert not np.array_equal(again.transform(TEXTS), encoder.transform(TEXTS))
    with pytest.raises(InputError, match="no longer what"):
        encoder.to_dict()
    module.config.name_or_path = ""
    with pytest.raises(InputError, match="in memory only"):
        ActivationEncoder.from_model(module, tokenizer, dtype="float32").to_dict()
    with pytest.raises(InputError, match="settings are"):
        ActivationEncoder.from_dict({"model": base, "trust_remote_code": True})
    made = sentence_transformer(tmp_path)
    with pytest.raises(
        InputError, match=r"no longer what|in memory only"
    ):  # its pooling is not in that directory
        as_encoder(made, dtype="float32").to_dict()


def test_a_cache_follows_the_weights_of_a_model_in_memory(tmp_path):
    small = small_model("bert")
    encoder = ActivationEncoder.from_model(small.module, small.tokenizer, dtype="float32", cache_dir=tmp_path)
    before = encoder.transform(TEXTS)
    with torch.no_grad():
        next(small.module.parameters()).mul_(2)
    assert not np.allclose(encoder.transform(TEXTS), before)


def test_what_is_no_encoder():
    for wrong, message in ((3, "encoder is int"), (small_model("bert").module, "from_model")):
        with pytest.raises(InputError, match=message):
            as_encoder(wrong)
    with pytest.raises(InputError, match="needs its tokenizer"):
        ActivationEncoder.from_model(small_model("bert").module)
    with pytest.raises(InputError, match="expected a transformers model"):
        ActivationEncoder.from_model(object())


def test_readouts_survive_json():
    from debias_ssae.model.readout import Normalize

    readout = Readout(("mean", "cls"), special=True, skipped=3, layers=(Normalize(),))
    assert Readout.from_dict(json.loads(json.dumps(readout.to_dict()))).key == readout.key
    for broken in (
        {},
        {"modes": ["sum"]},
        {"modes": ["mean"], "special": 1, "skipped": 0},
        {"modes": ["mean"], "special": True, "skipped": 10**30},
    ):
        with pytest.raises(InputError):
            Readout.from_dict(broken)


def test_a_debiaser_takes_models_in_memory(tmp_path):
    """What is learnt is small; what matters is that the encoder is followed, saved and exported."""
    from debias_ssae import DebiasConfig, SSAEDebiaser, TrainConfig
    from debias_ssae.core.config import SelectionConfig
    from debias_ssae.export import export_sentence_transformers
    from debias_ssae.export.directory import load_exported

    made = sentence_transformer(
        tmp_path,
        tail=[models.Normalize()],
        prompts={"document": "the nurse was "},
        default_prompt_name="document",
    )
    texts = [*sentences(80, seed=1), *(f"{t} she" for t in sentences(80, seed=2))]
    step = TrainConfig(n_steps=5, batch_size=128)
    config = DebiasConfig(
        d_sae=64,
        k=8,
        general=step,
        special=step,
        selection=SelectionConfig(min_cell=5),
        activations={"dtype": "float32"},
    )
    options = {"config": config, "n_latents": 4, "random_state": 0, "output_eraser": None}
    labels = ["she" in text for text in texts]
    fitted = [
        SSAEDebiaser(encoder, **options).fit(texts, sensitive_features=labels)
        for encoder in (str(tmp_path / "st"), made)
    ]
    X = fitted[0].transform(TEXTS)
    assert np.array_equal(X, fitted[1].transform(TEXTS))
    clone(fitted[1])
    with pytest.raises(
        InputError, match=r"in memory only|no longer"
    ):  # the object does not say where it was saved
        fitted[1].save(tmp_path / "no")
    fitted[0].save(tmp_path / "d")
    assert np.allclose(SSAEDebiaser.load(tmp_path / "d").transform(TEXTS), X, atol=1e-6)
    export_sentence_transformers(fitted[0], tmp_path / "e")
    whole = SentenceTransformer(str(tmp_path / "e"), trust_remote_code=True, device="cpu")
    for exported in (load_exported(tmp_path / "e"), whole, copy.deepcopy(whole)):
        assert np.allclose(exported.encode(TEXTS), X, atol=1e-5)
    assert np.corrcoef(copy.deepcopy(whole).half().encode(TEXTS).ravel(), X.ravel())[0, 1] > 0.999
    assert np.allclose(whole.encode(TEXTS), X, atol=1e-5)
    whole.max_seq_length = 5
    assert not np.allclose(whole.encode(TEXTS), X, atol=1e-3)
    options = {"processor_kwargs": {"model_max_length": 5}, "model_kwargs": {"dtype": torch.float16}}
    again = SentenceTransformer(str(tmp_path / "e"), trust_remote_code=True, device="cpu", **options)
    assert again.max_seq_length == 5
    assert {p.dtype for p in again.parameters()} == {torch.float16}
    assert np.corrcoef(again.encode(TEXTS).ravel(), whole.encode(TEXTS).ravel())[0, 1] > 0.99
    refused = {"attn_implementation": "eager"}
    with pytest.raises(InputError, match="takes dtype alone"):
        SentenceTransformer(str(tmp_path / "e"), trust_remote_code=True, model_kwargs=refused)
