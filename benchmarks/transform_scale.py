"""What a text costs `transform` in shards, and how much memory it takes, from ten thousand texts to 200,000.

A random BERT of two blocks (width 64) with MiniLM's tokenizer, so that what is around the model shows; short made-up
texts from a generator, parquet shards. Each number of texts runs in a
process of its own, so that its peak memory is its own; CPU-seconds of one thread. A million is extrapolated from the
cost of a text at the two largest sizes, and says so. Writes benchmarks/results/transform_scale.json.

    python benchmarks/transform_scale.py
    python benchmarks/transform_scale.py --sizes 500,1000 --trial --out /tmp/scale.json
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from eraser_cost import processor
from transformers import AutoTokenizer, BertConfig, BertModel

from debias_ssae import DebiasConfig, SSAEDebiaser, TrainConfig
from debias_ssae.core.device import resolve_model_name
from debias_ssae.debiaser import transform_to_shards
from debias_ssae.text import synthetic_biographies

WORDS = (
    "she",
    "he",
    "nurse",
    "surgeon",
    "works",
    "in",
    "the",
    "city",
    "clinic",
    "and",
    "was",
    "born",
    "trained",
)
MOST_COST, MOST_MEMORY = 1.1, 1.15
"""Bars: cost of a text and peak memory at the largest size, as multiples of those at the smallest."""


def texts(n: int) -> Iterator[str]:
    """``n`` texts of four to twelve words, no two alike."""
    rng = np.random.default_rng(0)
    for i in range(n):
        yield " ".join(rng.choice(WORDS, rng.integers(4, 13))) + f" {i}"


def small_debiaser(folder: str) -> None:
    """Save a debiaser of a small random model into ``folder``/model."""
    encoder = f"{folder}/encoder"
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertModel(BertConfig(**sizes)).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(resolve_model_name("minilm")).save_pretrained(encoder)
    train = TrainConfig(n_steps=20, batch_size=256)
    config = DebiasConfig(d_sae=256, k=8, general=train, special=None)
    debiaser = SSAEDebiaser(encoder, attribute="gender", device="cpu", config=config, random_state=0)
    debiaser.fit(synthetic_biographies(200, n_professions=2, random_state=0).text).save(f"{folder}/model")


def measure(model: str, n: int) -> dict[str, Any]:
    """Transform ``n`` texts in this process."""
    debiaser = SSAEDebiaser.load(model, device="cpu")
    debiaser.transform(["warm up"])
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        transform_to_shards(debiaser, texts(n), Path(folder) / "X")
        seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "n_texts": n,
        "cpu_seconds": seconds,
        "cpu_ms_a_text": 1000 * seconds / n,
        "peak_mb": peak / 1024,
        "peak_mb_before": before / 1024,
    }


def main() -> None:
    """Measure, write, print, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,50000,100000,200000")
    parser.add_argument("--trial", action="store_true", help="no bars")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "transform_scale.json"
    )
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        small_debiaser(folder)
        for n in map(int, arguments.sizes.split(",")):
            with get_context("spawn").Pool(1) as pool:
                runs.append(pool.apply(measure, (f"{folder}/model", n)))
            print(json.dumps(runs[-1]), flush=True)
    slope = (runs[-1]["cpu_seconds"] - runs[-2]["cpu_seconds"]) / (runs[-1]["n_texts"] - runs[-2]["n_texts"])
    results = {
        "machine": {"processor": processor(), "python": platform.python_version(), "threads": 1},
        "runs": runs,
        "cost_ratio": runs[-1]["cpu_ms_a_text"] / runs[0]["cpu_ms_a_text"],
        "memory_ratio": runs[-1]["peak_mb"] / runs[0]["peak_mb"],
        "bars": {"cost_ratio": MOST_COST, "memory_ratio": MOST_MEMORY},
        "extrapolated": {
            "n_texts": 1_000_000,
            "cpu_seconds": runs[-1]["cpu_seconds"] + slope * (1_000_000 - runs[-1]["n_texts"]),
        },
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    if missed := [k for k, most in results["bars"].items() if results[k] > most and not arguments.trial]:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
