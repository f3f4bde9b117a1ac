"""The ONNX graph gives the debiaser's vectors, in onnxruntime and through sentence-transformers."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from click.testing import CliRunner
from small_debiaser import make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.cli import main
from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.erase import LatentEraser, LinearEraser
from debias_ssae.model import Readout, embed, load_model
from debias_ssae.model.readout import Dense, Normalize
from debias_ssae.sae.model import SparseAutoencoder

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

from debias_ssae.export import export_onnx, load_exported  # noqa: E402
from debias_ssae.export.module import DebiasedTransformer  # noqa: E402
from debias_ssae.export.onnx import DebiasedGraph, write_graph  # noqa: E402

NEW = [*make_texts(40, seed=7), "", "nurse " * 60, "unseen words only"]
EVERY = ("mean", "cls", "last", "max", "mean_sqrt_len_tokens", "weightedmean")
# of packages about each other
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def eraser_of(width: int, architecture: str, seed: int) -> LatentEraser:
    cfg = SAEConfig(d_in=width, d_sae=24, k=3, architecture=architecture)
    sae = SparseAutoencoder(cfg, random_state=seed)
    torch.nn.init.normal_(sae.b_dec, std=0.1)
    return LatentEraser.from_sae(sae, [1, 4, 7, 11], alpha=0.8)


def run_graph(file: Path, model: Any, texts: list[str]) -> np.ndarray:
    tokens = model.tokenizer(
        texts, padding=True, truncation=True, max_length=model.max_length, return_tensors="np"
    )
    given = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    return onnxruntime.InferenceSession(str(file)).run(None, given)[0]


def test_every_pooling_and_deep_hookpoints(small_encoder: Path, tmp_path: Path) -> None:
    model = load_model(str(small_encoder), dtype="float32", device="cpu")
    rng = np.random.default_rng(0)
    edits = {
        "embeddings": eraser_of(32, "batchtopk", 0),
        "blocks.0.attn": eraser_of(32, "relu", 1),
        "blocks.0.mlp": eraser_of(32, "jumprelu", 2),
        "blocks.0": eraser_of(32, "topk", 3),
    }
    for special in (False, True):
        dense = Dense(torch.nn.Linear(len(EVERY) * 32, 20), torch.nn.Tanh())
        readout = Readout(EVERY, special=special, layers=(dense, Normalize()))
        width = readout.width(32)
        eraser = LinearEraser(
            rng.normal(size=(2, width)), rng.normal(size=(2, width)), rng.normal(size=width)
        )
        shift = rng.normal(size=width).astype(np.float32)
        settings = {"layer": "final", "readout": readout, "max_length": model.max_length}
        exported = DebiasedTransformer(model, edits, settings, output_eraser=eraser, shift=shift)
        wanted = eraser(embed(model, NEW, pooling=readout, edits=edits)) + shift
        plain = eraser(embed(model, NEW, pooling=readout)) + shift
        assert largest(plain, wanted) > 1e-2, "the control: the edits do something"
        write_graph(DebiasedGraph(exported), tmp_path / f"{special}.onnx")
        assert largest(run_graph(tmp_path / f"{special}.onnx", model, NEW), wanted) < 1e-4


@pytest.fixture(scope="module")
def exported(fitted: SSAEDebiaser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted.save(tmp_path_factory.mktemp("m") / "model")
    goal = tmp_path_factory.mktemp("exports") / "debiased"
    arguments = ["export", str(tmp_path_factory.getbasetemp() / "m0" / "model"), "--to", "onnx", str(goal)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return goal


def load(path: Path, **options: Any) -> Any:
    return sentence_transformers.SentenceTransformer(
        str(path), backend="onnx", device="cpu", trust_remote_code=True, **options
    )


def test_sentence_transformers_runs_it(fitted: SSAEDebiaser, exported: Path, tmp_path: Path) -> None:
    model, wanted = load(exported), fitted.transform(NEW)
    assert largest(model.encode(NEW), wanted) < 1e-4
    assert largest(model.encode(NEW, batch_size=3), wanted) < 1e-4
    assert largest(load_exported(exported).encode(NEW), wanted) < 1e-4
    assert model.get_embedding_dimension() == 32
    card = (exported / "README.md").read_text()
    assert 'backend="onnx"' in card
    model.save(str(tmp_path / "again"), create_model_card=False)
    assert largest(load(tmp_path / "again").encode(NEW), wanted) < 1e-4
    model.max_seq_length = 5
    sent_elsewhere = pickle.loads(pickle.dumps(model[0]))
    assert sent_elsewhere.max_seq_length == model.max_seq_length == 5
    assert largest(model.encode(["she works in the city"]), model.encode(["she works in"])) < 1e-4
    quantised = tmp_path / "again" / "onnx" / "int8.onnx"
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(exported / "onnx" / "model.onnx", quantised)
    small = load(tmp_path / "again", model_kwargs={"file_name": "int8.onnx"}).encode(NEW)
    assert 1e-6 < largest(small, wanted) < 0.2 * np.abs(wanted).max()


def test_what_is_refused(fitted: SSAEDebiaser, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model_kwargs holds attn_implementation"):
        load(exported, model_kwargs={"attn_implementation": "eager"})
    with pytest.raises(InputError, match="works on a matrix"):
        export_onnx(SSAEDebiaser(), tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="no exported debiaser"):
        export_onnx(fitted, tmp_path / "out")
    load(exported)[0].save(tmp_path / "damaged")
    graph = tmp_path / "damaged" / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="checksum differs"):
        load_exported(tmp_path / "damaged")


@pytest.mark.slow
def test_minilm(minilm: Any, tmp_path: Path) -> None:
    texts = ["She is a surgeon.", "He was born in Zürich and works as a nurse.", "", "word " * 200, "a"]
    edits = {"embeddings": eraser_of(384, "batchtopk", 0), "blocks.3": eraser_of(384, "batchtopk", 1)}
    settings = {"layer": "final", "readout": minilm.readout(), "max_length": minilm.length}
    write_graph(DebiasedGraph(DebiasedTransformer(minilm, edits, settings)), tmp_path / "m.onnx")
    wanted = embed(minilm, texts, edits=edits)
    found = run_graph(tmp_path / "m.onnx", minilm, texts)
    assert largest(found[:3], wanted[:3]) < 1e-4
    assert largest(found, wanted) < 1e-4
