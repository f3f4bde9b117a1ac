"""What a debiased model costs where it is served, beside the plain one: sentence-transformers and onnxruntime.

MiniLM, biographies, 200 latents removed at the embedding output and the output eraser after the model, as
`export --to sentence-transformers` and `export --to onnx` write them, in float32. The plain sides are the
SentenceTransformer of the same model, and a graph of it made by the same exporter. CPU-seconds of one thread; rounds
interleaved, the order within a round alternating; the ratio is the median over rounds, its interval a bootstrap over
them. Also how far the
vectors are from transform. Writes benchmarks/results/serve.json.

    python benchmarks/serve.py --data PATH/bias_in_bios_surgeon_nurse/data.parquet
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
from eraser_cost import MOST, fit, in_precision, interleaved, processor

from debias_ssae import SSAEDebiaser
from debias_ssae.core.device import resolve_model_name
from debias_ssae.export import export_onnx, export_sentence_transformers, load_exported
from debias_ssae.export.module import DebiasedTransformer
from debias_ssae.export.onnx import DebiasedGraph, write_graph

MOST_APART = 1e-4


def graph_runner(file: Path, texts: list[str], batch_size: int = 32) -> Any:
    """A function that runs an ONNX graph over ``texts`` on one thread, tokenising included."""
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
            session.run(None, {name: tokens[name] for name in ("input_ids", "attention_mask")})

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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
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
