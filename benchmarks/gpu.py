"""What one data-centre GPU gives, in one run of less than 8 minutes that builds nothing and needs no network.

    python benchmarks/gpu.py --data PATH/bias_in_bios_surgeon_nurse/data.parquet
    python benchmarks/gpu.py --tiny --out /tmp/gpu.json     # every code path at small sizes, on the processor

sae: training of a topk SAE (d_in 2,048, d_sae 65,536, k 64, batches of 8,192 random rows, products in bfloat16) beside
dense PyTorch written down here and sparsify where it is installed (its Triton decoder); wall seconds of a step, rounds
interleaved. harvest: activations of a random GPT-NeoX of 1.4 billion parameters at half its depth, tokens a second and
share of the bfloat16 peak, which a large matrix product measures on the spot. whole: fit and transform of biographies
with MiniLM on the GPU and on two cores of the processor (fewer texts, per text). equality: transform and three steps of
SAE training in float32 on both. Parts that fail say why and leave the others alone; the JSON is written after each.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sae_peers import PEERS, Settings, present
from sae_training import measure_speed, our_steps, peer_steps
from torch import Tensor, nn

from debias_ssae import SSAEDebiaser
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.model import harvest, wrap_model
from debias_ssae.sae import shuffled_batches, train_sae
from debias_ssae.text import load_table, synthetic_biographies

BARS = {"sae_to_sparsify": 1.5, "harvest_share_of_peak": 0.45, "whole_to_two_cores": 20.0}


def clock(device: str) -> float:
    """Wall seconds, after everything that was asked of the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(run: Callable[[], Any], device: str, rounds: int = 3) -> float:
    """Median wall seconds of ``run``, after one call to warm up."""
    run()
    times = []
    for _ in range(rounds):
        start = clock(device)
        run()
        times.append(clock(device) - start)
    return statistics.median(times)


class DenseTopK(nn.Module):
    """A topk SAE in plain PyTorch: dense decoder, autograd, Adam, no dead latents; what one would write first."""

    def __init__(self, rows: Tensor, s: Settings) -> None:
        super().__init__()
        self.k, d = s.k, nn.functional.normalize(torch.randn(s.d_sae, s.d_in, device=rows.device), dim=1)
        self.encoder, self.decoder = nn.Parameter(d.clone()), nn.Parameter(d)
        self.bias = nn.Parameter(rows.mean(0))
        self.optimiser = torch.optim.Adam(self.parameters(), lr=1e-4, fused=rows.is_cuda)

    def step(self, x: Tensor) -> None:
        """Train on one batch."""
        with torch.autocast(x.device.type, torch.bfloat16):
            values, ids = ((x - self.bias) @ self.encoder.T).topk(self.k)
            latents = torch.zeros(len(x), len(self.encoder), device=x.device, dtype=values.dtype)
            x_hat = latents.scatter(1, ids, values.relu()) @ self.decoder + self.bias
        (x_hat.float() - x).square().mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def sae(device: str, tiny: bool) -> dict[str, Any]:
    """Seconds of a training step of each library."""
    settings = Settings(2048, 65_536, 64, 8192, n_steps=5, device=device)
    if tiny:
        settings = Settings(32, 128, 4, 64, n_steps=2, device=device)
    batches = [torch.randn(settings.batch_size, settings.d_in, device=device) for _ in range(8)]
    engines: dict[str, Any] = {"debias_ssae": our_steps(settings, "topk", matmul_dtype="bfloat16")}
    engines["dense PyTorch"] = peer_steps(DenseTopK, settings)  # type: ignore[arg-type]
    module, builds = PEERS["sparsify"]
    absent = present(module)
    if absent is None:
        engines["sparsify"] = peer_steps(builds["topk"], settings)
    seconds = measure_speed(engines, batches, partial(clock, device), 3)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: medians[name] / medians["debias_ssae"] for name in medians if name != "debias_ssae"}
    return {"settings": vars(settings), "seconds_a_step": medians, "times_faster": ratios, "absent": absent}


def peak_flops(device: str, n: int) -> float:
    """Operations a second of a product of two square bfloat16 matrices of width ``n``."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b, device, 5)


def harvesting(device: str, tiny: bool) -> dict[str, Any]:
    """Tokens a second at half depth, and which share of the peak that is."""
    from harvest import make_model, make_texts

    _, tokenizer = make_model()
    width, depth = (64, 4) if tiny else (2048, 24)
    config = transformers.GPTNeoXConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=4 if tiny else 16,
        intermediate_size=4 * width, vocab_size=50_304, max_position_embeddings=2048,
    )  # fmt: skip
    with torch.device(device):
        module = transformers.GPTNeoXModel(config).eval()
    model = wrap_model(module, tokenizer, dtype=torch.bfloat16)
    texts = make_texts(20 if tiny else 20_000)
    hookpoint = f"blocks.{depth // 2 - 1}"
    run = partial(harvest, model.with_limits(token_budget=1024 if tiny else 65_536), texts, hookpoint)
    n_tokens = len(run().x)
    seconds = seconds_of(run, device)
    operations = 2 * 12 * width**2 * (depth // 2) * n_tokens
    peak = peak_flops(device, 128 if tiny else 8192)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "hookpoint": hookpoint,
        "tokens_a_second": n_tokens / seconds,
        "peak_tflops": peak / 1e12,
        "share_of_peak": operations / seconds / peak,
    }


def whole(device: str, tiny: bool, data: Path | None) -> dict[str, Any]:
    """Fit and transform of biographies, on the device and on two cores."""
    n_fit, n_new = (120, 40) if tiny else (1500, 5000)
    if data is not None and data.exists():
        table = load_table(data, text="text", target="profession").sample(frac=1, random_state=0)
    else:
        table = synthetic_biographies(n_fit + n_new, n_professions=2, random_state=0)
    texts, y = table["text"].tolist(), table["profession"].to_numpy()
    config: Any = {"d_sae": 128, "k": 8, "general": {"n_steps": 10, "batch_size": 256}, "special": None}
    found: dict[str, Any] = {"n_fit": n_fit, "n_new": n_new, "real": data is not None and data.exists()}
    torch.set_num_threads(2)
    for where in dict.fromkeys((device, "cpu")):
        new = texts[n_fit : n_fit + (n_new if where == device else min(n_new, 500))]
        debiaser = SSAEDebiaser(
            "minilm",
            attribute="gender",
            device=where,
            cache_dir=None,
            config=config if tiny else None,
            random_state=0,
        )
        start = clock(where)
        debiaser.fit(texts[:n_fit], y[:n_fit])
        fitted = clock(where)
        debiaser.transform(new)
        found[where] = {
            "fit_seconds": fitted - start,
            "transform_ms_a_text": 1000 * (clock(where) - fitted) / len(new),
        }
    torch.set_num_threads(1)
    total = [
        found[w]["fit_seconds"] + n_new * found[w]["transform_ms_a_text"] / 1000 for w in (device, "cpu")
    ]
    return {**found, "times_faster_than_two_cores": total[1] / total[0]}


def equality(device: str, tiny: bool) -> dict[str, Any]:
    """Largest differences between the device and the processor, in float32."""
    from debias_ssae.model.encoder import ActivationEncoder

    texts = synthetic_biographies(60, n_professions=2, random_state=1).text.tolist()
    vectors = [
        ActivationEncoder("minilm", device=where, dtype="float32").transform(texts)
        for where in (device, "cpu")
    ]
    x = torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))
    cfg = SAEConfig(d_in=64, d_sae=256, k=8)
    weights = []
    for where in (device, "cpu"):
        train = TrainConfig(n_steps=3, batch_size=256, device=where, matmul_dtype="float32")
        trained = train_sae(shuffled_batches(x.to(where), 256, 0), cfg, train, random_state=0).sae
        weights.append(trained.W_dec.detach().cpu().numpy())
    return {
        "vectors": float(np.abs(vectors[0] - vectors[1]).max()),
        "decoder_after_3_steps": float(np.abs(weights[0] - weights[1]).max()),
    }


def main() -> None:
    """Run every part, write after each, and say which bars were missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = os.environ.get("DEBIAS_SSAE_DATA")
    data = Path(folder) / "bias_in_bios_surgeon_nurse" / "data.parquet" if folder else None
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument(
        "--tiny", action="store_true", help="small sizes, on the processor where there is no GPU"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        raise SystemExit("there is no GPU here; --tiny tries every code path on the processor")
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    results: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "tiny": arguments.tiny,
        "bars": BARS,
    }
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "equality": partial(equality, device, arguments.tiny),
        "sae": partial(sae, device, arguments.tiny),
        "harvest": partial(harvesting, device, arguments.tiny),
        "whole": partial(whole, device, arguments.tiny, None if arguments.tiny else arguments.data),
    }
    for part, run in parts.items():
        began = time.perf_counter()
        try:
            results[part] = run()
        except Exception as error:  # the other parts are worth the machine all the same
            results[part] = {"failed": f"{type(error).__name__}: {error}"}
        results[part]["part_seconds"] = round(time.perf_counter() - began, 1)
        print(json.dumps({part: results[part]}, indent=1), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    failed = [part for part in parts if "failed" in results[part]]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
