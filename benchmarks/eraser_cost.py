"""What erasing costs: SSAEDebiaser.transform beside ActivationEncoder.transform of the same model without eraser.

MiniLM, biographies, 200 latents of a 2,048-wide BatchTopK SAE removed at the embedding output. Same texts, batches
and precision; CPU-seconds of one thread; rounds interleaved, the order within a round alternating; the ratio is the
median over rounds, its interval a bootstrap over them. Writes benchmarks/results/eraser_cost.json.

    python benchmarks/eraser_cost.py --data PATH/bias_in_bios_surgeon_nurse/data.parquet
"""

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from debias_ssae import ActivationEncoder, DebiasConfig, SSAEDebiaser, TrainConfig
from debias_ssae.core.device import has_fast_bf16
from debias_ssae.model import harvest
from debias_ssae.sae import save_sae

MOST = 1.05
LARGEST = 2_000_000


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def fit(texts: list[str]) -> SSAEDebiaser:
    """A debiaser of 200 latents; short training, since only the cost is looked at."""
    train = TrainConfig(n_steps=100, batch_size=1024)
    config = DebiasConfig(general=train, special=train.updated(n_steps=20, lr=5e-4))
    encoder = ActivationEncoder("minilm", device="cpu")
    return SSAEDebiaser(encoder, attribute="gender", n_latents=200, config=config, random_state=0).fit(texts)


def in_precision(debiaser: SSAEDebiaser, dtype: str) -> SSAEDebiaser:
    """The same debiaser on an encoder of another precision."""
    other = copy.copy(debiaser)
    other.encoder_ = ActivationEncoder("minilm", device="cpu", dtype=dtype).fit(["warm"])
    return other


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU-seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(debiaser: SSAEDebiaser, texts: list[str], rounds: int) -> dict[str, Any]:
    """What transform costs beside the encoder's own."""
    encoder = debiaser.encoder_
    return interleaved(lambda: encoder.transform(texts), lambda: debiaser.transform(texts), rounds)


def interleaved(plain: Callable[[], Any], debiased: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Interleaved rounds of both; medians and the ratio with its interval."""
    runs = {"plain": plain, "debiased": debiased}
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            seconds = cpu_seconds(runs[name])
            if i:  # the first round warms up
                seen[name].append(seconds)
    ratios = np.array(seen["debiased"]) / np.array(seen["plain"])
    draws = np.random.default_rng(0).integers(0, rounds, (2000, rounds))
    low, high = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
    return {
        **{f"{name}_cpu_seconds": statistics.median(values) for name, values in seen.items()},
        "ratio": float(np.median(ratios)),
        "ratio_ci": [float(low), float(high)],
        "ratios": ratios.round(4).tolist(),
    }


def describe(debiaser: SSAEDebiaser, texts: list[str]) -> dict[str, Any]:
    """What was removed, how often it fires on these texts, how large it is on disk."""
    rows = harvest(debiaser.encoder_.language_model, texts[:100], "embeddings").x
    with torch.no_grad():
        fired = debiaser.intervention_.sae.encode(rows)[:, debiaser.intervention_.selection.ids.tolist()] > 0
    with tempfile.TemporaryDirectory() as folder:
        save_sae(debiaser.intervention_.eraser.sae, folder)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return {
        "latents": len(debiaser.intervention_.selection.ids),
        "of": debiaser.intervention_.sae.cfg.d_sae,
        "tokens_touched": float(fired.any(1).float().mean()),
        "bytes_on_disk": size,
        "residual_eraser": debiaser.output_eraser_ is not None,
    }


def main() -> None:
    """Measure, write, print, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(os.environ.get("DEBIAS_SSAE_DATA", "."))
    parser.add_argument("--data", type=Path, default=folder / "bias_in_bios_surgeon_nurse" / "data.parquet")
    parser.add_argument("--texts", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "eraser_cost.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    every = pd.read_parquet(arguments.data)["text"].sample(frac=1, random_state=0).tolist()
    training, texts = every[:400], every[400 : 400 + arguments.texts]
    results: dict[str, Any] = {
        "machine": {"processor": processor(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "texts": len(texts),
        "rounds": arguments.rounds,
        "threads": 1,
        "bars": {"ratio": MOST, "bytes_on_disk": LARGEST},
    }
    fitted = fit(training)
    for dtype in (*(["bfloat16"] if has_fast_bf16("cpu") else []), "float32"):
        debiaser = in_precision(fitted, dtype)
        results[dtype] = {**describe(debiaser, texts), **compare(debiaser, texts, arguments.rounds)}
        print(json.dumps({dtype: results[dtype]}, indent=1), flush=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    missed = [
        k
        for k in results
        if isinstance(results[k], dict)
        and "ratio_ci" in results[k]
        and (results[k]["ratio"] > MOST or results[k]["bytes_on_disk"] >= LARGEST)
    ]
    if missed:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
