"""MiniLM's speed on biographies, the memory of a harvest, the speed of shuffled reading. Writes results/store.json."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

_HARVEST = """
import sys, resource, numpy as np, torch
torch.set_num_threads(1)
from debias_ssae.model import load_model
from debias_ssae.model.store.harvest import harvest_to_store
words = np.asarray([f"{a}{b}" for a in ("nurse", "city", "clinic", "work", "degree") for b in ("", "s", "ed", "ing")])
rng = np.random.default_rng(0)
texts = (" ".join(rng.choice(words, 20 + 80 * (i % 2))) + f" {i}" for i in range(int(sys.argv[1])))
store = harvest_to_store(load_model("minilm"), texts, sys.argv[2], texts_per_shard=512)
print(store.n_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def minilm(data: Path, n_texts: int | None, budgets: list[int]) -> dict[str, Any]:
    """Real tokens a CPU-second of the final layer in bfloat16 (or float32 where that is not native)."""
    from debias_ssae.model import embed, harvest, load_model

    texts = pd.read_parquet(data / "bias_in_bios_surgeon_nurse" / "data.parquet").iloc[:n_texts, 0].tolist()
    model = load_model("minilm")
    tokens = len(harvest(model, texts, "embeddings").x)
    out: dict[str, Any] = {"texts": len(texts), "tokens": tokens, "dtype": str(model.dtype)}
    for budget in budgets:
        model = model.with_limits(token_budget=budget)
        embed(model, texts[:64])
        peak = [_gemm_peak(model.dtype)]
        start = time.process_time()
        embed(model, texts)
        seconds = time.process_time() - start
        peak.append(_gemm_peak(model.dtype))
        limit = float(np.mean(peak)) / (2 * 12 * 384**2 * 6)
        out[f"budget {budget}"] = {"tokens_per_cpu_second": tokens / seconds, "gemm_limit": limit}
        print(budget, out[f"budget {budget}"], flush=True)
    return out


def _gemm_peak(dtype: torch.dtype, seconds: float = 1.0) -> float:
    pairs = [
        (torch.randn(2048, k).to(dtype), torch.randn(n, k).to(dtype))
        for k, n in ((384, 384), (384, 1536), (1536, 384))
    ]
    done, start = 0.0, time.process_time()
    while time.process_time() - start < seconds:
        for x, w in pairs:
            torch.nn.functional.linear(x, w)
            done += 2 * x.shape[0] * w.numel()
    return done / (time.process_time() - start)


def memory(n_texts: int) -> dict[str, Any]:
    """Peak resident memory of a harvest into a store, n_texts and ten times as many, each in its own process."""
    peaks = []
    for n in (n_texts, 10 * n_texts):
        with tempfile.TemporaryDirectory() as folder:
            child = [sys.executable, "-c", _HARVEST, str(n), f"{folder}/s"]
            rows, peak = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
            peaks.append(int(peak))
            print(f"{n} texts, {rows} rows: peak {int(peak) / 1e6:.0f} MB", flush=True)
    return {"texts": [n_texts, 10 * n_texts], "peak_rss_bytes": peaks, "ratio": peaks[1] / peaks[0]}


def reading(rows: int, n_batches: int) -> dict[str, Any]:
    """Shuffled rows a CPU-second beside what SAE training (TopK, 3,072 latents) consumes."""
    from debias_ssae.core.config import SAEConfig, TrainConfig
    from debias_ssae.model.store import ActivationStore, StoreWriter
    from debias_ssae.sae.training import train_sae

    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(
            f"{folder}/s", {"hookpoints": ["embeddings"], "d_model": 384, "dtype": "bfloat16"}
        )
        per_shard = rows // 8
        for number in range(8):
            x, ids = torch.randn(per_shard, 384), torch.arange(per_shard)
            tensors = {
                "x/embeddings": x,
                "text_ids": ids,
                "token_ids": ids.clone(),
                "offsets": torch.zeros(per_shard, 2),
            }
            tensors["offsets"] = tensors["offsets"].long()
            writer.write_rows(number, tensors, {"texts_sha256": "", "n_texts": 1, "n_rows": per_shard})
        writer.finish(8)
        stream = ActivationStore(f"{folder}/s").shuffled(batch_size=2048, random_state=0)
        start = time.process_time()
        for _ in range(n_batches):
            next(stream)
        read = n_batches * 2048 / (time.process_time() - start)
        fixed = [next(stream) for _ in range(4)]
    sae = SAEConfig(d_in=384, d_sae=3072, k=32, architecture="topk")
    start = time.process_time()
    train_sae(
        (fixed[i % 4] for i in range(61)), sae, TrainConfig(n_steps=60, batch_size=2048), random_state=0
    )
    train = 60 * 2048 / (time.process_time() - start)
    return {"rows_per_cpu_second": read, "training_rows_per_cpu_second": train, "ratio": read / train}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="The folder of real data sets.")
    parser.add_argument("--texts", type=int, help="Only the first N biographies.")
    parser.add_argument("--budgets", type=int, nargs="*", default=[2048])
    parser.add_argument("--memory-texts", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "store.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "reading": reading(400_000, 300),
        "memory": memory(arguments.memory_texts),
        "minilm": minilm(arguments.data, arguments.texts, arguments.budgets),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
