"""What torch's private oneDNN operators would gain: a whole transform and a whole fit with and without them.

The package runs on public torch alone. Here linear layers run on weights that oneDNN has packed once (private operators
of torch), in rounds that alternate with plain torch, and with torch.compile for transform; CPU-seconds of one thread.
Writes benchmarks/results/lowered.json; docs/decisions/0010-plain-torch.md says what follows from it.

    python benchmarks/lowered.py --data PATH/bias_in_bios_surgeon_nurse/data.parquet
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from debias_ssae import ActivationEncoder, DebiasConfig, SSAEDebiaser, TrainConfig
from debias_ssae.core.device import has_fast_bf16

ROWS = 2048
_packed = WeakTensorKeyDictionary()


class PackedLinears(TorchFunctionMode):
    """While it is entered, linear layers without gradients run on packed weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and not torch.is_grad_enabled():
            x, weight, *rest = args
            low = weight.dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu")
            if (
                isinstance(weight, Parameter)
                and x.numel()
                and (low or weight.dtype == x.dtype == torch.float32)
            ):
                bias = rest[0] if rest else (kwargs or {}).get("bias")
                x = x.to(weight.dtype)
                return torch.ops.mkldnn._linear_pointwise(x, packed(weight), bias, "none", [], "")
        return func(*args, **(kwargs or {}))


def packed(weight: Tensor) -> Tensor:
    """The weight as oneDNN wants it, made once."""
    if weight not in _packed:
        _packed[weight] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return _packed[weight]


def seconds(run: Callable[[], Any]) -> float:
    """CPU-seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def rounds(runs: dict[str, Callable[[], Any]], n: int, warm: bool) -> dict[str, Any]:
    """Medians of interleaved rounds whose order alternates."""
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(n + warm):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            with PackedLinears() if name == "packed" else nullcontext():
                spent = seconds(runs[name])
            if i >= warm:
                seen[name].append(spent)
                print(name, round(spent, 2), flush=True)
    medians = {name: statistics.median(values) for name, values in seen.items()}
    return {"cpu_seconds": medians, "gain": 1 - medians["packed"] / medians["plain"], "rounds": seen}


def transforms(texts: list[str], dtype: str, n: int) -> dict[str, Any]:
    """500 texts through MiniLM."""
    encoder, compiled = (ActivationEncoder("minilm", device="cpu", dtype=dtype) for _ in range(2))
    for block in compiled.language_model.blocks:
        block.compile(dynamic=True)
    runs = {name: lambda: encoder.transform(texts) for name in ("plain", "packed")}
    return rounds({**runs, "compiled": lambda: compiled.transform(texts)}, n, warm=True)


def fits(bios: pd.DataFrame, n: int) -> dict[str, Any]:
    """A third of the usual: 500 labelled biographies, a corpus of 1,700 texts, a third of the steps."""
    labelled, corpus = bios.iloc[:500], bios["text"].iloc[500:2200].tolist()
    config = DebiasConfig(
        general=TrainConfig(n_steps=333), special=TrainConfig(n_steps=167, lr=5e-4, tilt="auto")
    )

    def fit() -> None:
        debiaser = SSAEDebiaser(
            ActivationEncoder("minilm", device="cpu"), corpus=corpus, config=config, random_state=0
        )
        debiaser.fit(
            labelled["text"].tolist(),
            labelled["profession"].tolist(),
            sensitive_features=labelled["gender"].astype(str).tolist(),
        )

    return rounds({"plain": fit, "packed": fit}, n, warm=False)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(os.environ.get("DEBIAS_SSAE_DATA", "."))
    parser.add_argument("--data", type=Path, default=folder / "bias_in_bios_surgeon_nurse" / "data.parquet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-fit", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "lowered.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bios = pd.read_parquet(arguments.data).sample(frac=1, random_state=0)
    texts = bios["text"].iloc[:500].tolist()
    dtypes = ["bfloat16"] if has_fast_bf16("cpu") else []
    results: dict[str, Any] = {
        f"transform, {dtype}": transforms(texts, dtype, arguments.rounds) for dtype in [*dtypes, "float32"]
    }
    if not arguments.no_fit:
        results["fit"] = fits(bios, arguments.rounds)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(
        json.dumps(
            {name: {k: v for k, v in r.items() if k != "rounds"} for name, r in results.items()}, indent=1
        )
    )


if __name__ == "__main__":
    main()
