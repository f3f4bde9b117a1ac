"""What a debiased model costs where it is served, beside the plain one: sentence-transformers and onnxruntime.

MiniLM, biographies, 200 latents removed at the embedding output and the output eraser after the model, as
`export --to sentence-transformers` and `export --to onnx` write them, in float32. The plain sides are the
SentenceTransformer of the same model, and a graph of it made by the same exporter. CPU-seconds of one thread; rounds
interleaved, the order within a round alternating; the ratio is the median over rounds, its interval a bootstrap over
them. Also how far the
vectors are from transform. Writes benchmarks/results/serve.json.

    python benchmarks/serve.py --data PATH/bias_in_bios_surgeon_nurse/data.parquet

With ``--int8 SEEDS`` it measures instead what 8-bit weights (onnxruntime's quantize_dynamic) cost: the default
debiaser and the plain model, each as a graph in float32 and in 8 bits; the worst group of balanced test texts, with a
head that male surgeons and female nurses trained on the graph's own vectors (retrained) or on the plain model's in
float32 (frozen). Writes benchmarks/results/int8.json.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import sentence_transformers
import torch
import transformers
from eraser_cost import MOST, cpu_seconds, fit, in_precision, interleaved, processor

from debias_ssae import SSAEDebiaser
from debias_ssae.core.device import resolve_model_name
from debias_ssae.core.stats.heads import fit_head
from debias_ssae.export import export_onnx, export_sentence_transformers, load_exported
from debias_ssae.export.module import DebiasedTransformer
from debias_ssae.export.onnx import DebiasedGraph, write_graph

MOST_APART = 1e-4
N_TEST, N_TRAIN = 120, 300
"""Texts of a cell in the test set, and of a class in the training set, of the measurement in 8 bits."""


def graph_runner(
    file: Path, texts: list[str], batch_size: int = 32, keep: list[np.ndarray] | None = None
) -> Any:
    """A function that runs an ONNX graph over ``texts``, longest first, on one thread, tokenising included; the vectors
    go to ``keep``.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_model_name("minilm"))
    order = sorted(texts, key=len, reverse=True)

    def run() -> None:
        for start in range(0, len(order), batch_size):
            tokens = tokenizer(
                order[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="np",
            )
            given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
            vectors = session.run(None, given)[0]
            if keep is not None:
                keep.append(vectors)

    return run


def measure(debiaser: SSAEDebiaser, texts: list[str], rounds: int, folder: Path) -> dict[str, Any]:
    """Both ways of serving: ratio of costs, and distance to transform."""
    export_sentence_transformers(debiaser, folder / "st")
    export_onnx(debiaser, folder / "onnx")
    encoder = debiaser.encoder_
    model = encoder.language_model
    settings = {"layer": "final", "readout": encoder.readout, "max_length": model.length}
    write_graph(DebiasedGraph(DebiasedTransformer(model, {}, settings)), folder / "plain.onnx")
    plain = sentence_transformers.SentenceTransformer(resolve_model_name("minilm"), device="cpu")
    debiased = load_exported(folder / "st", device="cpu")
    served, wanted = load_exported(folder / "onnx"), debiaser.transform(texts)
    found = {
        "sentence_transformers": interleaved(
            lambda: plain.encode(texts), lambda: debiased.encode(texts), rounds
        ),
        "onnxruntime": interleaved(
            graph_runner(folder / "plain.onnx", texts),
            graph_runner(folder / "onnx" / "onnx" / "model.onnx", texts),
            rounds,
        ),
    }
    for name, one in (("sentence_transformers", debiased), ("onnxruntime", served)):
        found[name]["largest_difference"] = float(np.abs(one.encode(texts) - wanted).max())
        for side in ("plain", "debiased"):
            found[name][f"{side}_texts_a_cpu_second"] = len(texts) / found[name][f"{side}_cpu_seconds"]
    return found


def encode_with(file: Path, texts: list[str]) -> tuple[np.ndarray, float]:
    """The vectors [n, d] of a graph, and its CPU-seconds."""
    found: list[np.ndarray] = []
    seconds = cpu_seconds(graph_runner(file, texts, keep=found))
    order = np.argsort([-len(text) for text in texts], kind="stable")
    return np.concatenate(found)[np.argsort(order)], seconds


def in_8_bits(table: pd.DataFrame, seed: int, folder: Path) -> dict[str, Any]:
    """Worst group, speed and size of four graphs, for one seed's split."""
    from onnxruntime.quantization import quantize_dynamic

    place = table.groupby(["profession", "gender"]).cumcount()
    shortcut = (table["gender"] == "F") == (table["profession"] == "nurse")
    test, train = table[place < N_TEST], table[(place >= N_TEST) & (place < N_TEST + N_TRAIN) & shortcut]
    y, wanted = train["profession"].to_numpy(), test["profession"].to_numpy()
    cells = [(test["profession"] == p) & (test["gender"] == g) for p in ("nurse", "surgeon") for g in "FM"]
    debiaser = SSAEDebiaser("minilm", attribute="gender", random_state=seed)
    debiaser.fit(train["text"].tolist(), y, exclude=test["text"].tolist())
    export_onnx(debiaser, folder / "debiased")
    exact = in_precision(debiaser, "float32").encoder_
    files = {"plain": folder / "plain.onnx", "debiased": folder / "debiased" / "onnx" / "model.onnx"}
    write_graph(DebiasedGraph(exact.language_model, {}, "final", exact.readout, None, None), files["plain"])
    frozen, found = None, {}
    for name, file in files.items():
        small = file.with_name("model_int8.onnx")
        quantize_dynamic(file, small)
        for bits, one in (("float32", file), ("int8", small)):
            x, _ = encode_with(one, train["text"].tolist())
            x_test, seconds = encode_with(one, test["text"].tolist())
            head = fit_head(x, y)
            frozen = frozen or head
            found[f"{name}, {bits}"] = {
                "mb": round(one.stat().st_size / 2**20, 1),
                "texts_a_cpu_second": len(test) / seconds,
                **{
                    kind: min(float((model.predict(x_test) == wanted)[cell].mean()) for cell in cells)
                    for kind, model in (("retrained", head), ("frozen", frozen))
                },
            }
            print(seed, name, bits, found[f"{name}, {bits}"], flush=True)
    return found


def main_8_bits(arguments: argparse.Namespace) -> None:
    """Measure every seed, and write the means beside the seeds' own numbers."""
    table = pd.read_parquet(arguments.data).drop_duplicates("text")
    runs = []
    for seed in range(arguments.int8):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(in_8_bits(table.sample(frac=1, random_state=seed), seed, Path(folder)))
    mean = {name: {k: float(np.mean([r[name][k] for r in runs])) for k in runs[0][name]} for name in runs[0]}
    print(pd.DataFrame(mean).T.round(3).to_string())
    results = {"n_test_a_cell": N_TEST, "n_train_a_class": N_TRAIN, "mean": mean, "runs": runs}
    file = arguments.out.with_name("int8.json")
    file.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Measure, write, print, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("DEBIAS_SSAE_DATA", ".")) / "bias_in_bios_surgeon_nurse" / "data.parquet"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "serve.json")
    parser.add_argument("--int8", type=int, default=0, metavar="SEEDS", help="Measure 8-bit graphs.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if arguments.int8:
        main_8_bits(arguments)
        return
    every = pd.read_parquet(arguments.data)["text"].sample(frac=1, random_state=0).tolist()
    debiaser = in_precision(fit(every[:300]), "float32")
    texts = every[300 : 300 + arguments.texts]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(debiaser, texts, arguments.rounds, Path(folder))
    results = {
        "machine": {"processor": processor(), "python": platform.python_version(), "threads": 1},
        "versions": {
            one.__name__: one.__version__ for one in (torch, transformers, sentence_transformers, onnxruntime)
        },
        "texts": len(texts),
        "rounds": arguments.rounds,
        "bars": {"ratio": MOST, "largest_difference": MOST_APART},
        **found,
    }
    print(json.dumps(results, indent=1))
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    missed = [
        f"{name} {bar}" for name in found for bar, most in results["bars"].items() if found[name][bar] > most
    ]
    if missed:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
