"""Training speed, memory and quality of debias_ssae.sae beside SAELens, dictionary_learning and sparsify.

    python benchmarks/sae_training.py --quick         # ratios, within 5 minutes
    python benchmarks/sae_training.py                 # all architectures, memory, final FVU
    python benchmarks/sae_training.py --device cuda   # the size for a GPU
    python benchmarks/sae_training.py --quick --d-sae 8192 --k 4   # the shape of the default at MiniLM

Rounds are interleaved: every engine takes a few steps in turn, and ratios are taken within a round. Time is
CPU-seconds of the process on one thread (GPU: wall seconds); wall on two threads stands beside it. Rows are
MiniLM's residual after its fourth block on general_corpus where DEBIAS_SSAE_DATA names the folder, else random.
Writes benchmarks/results/sae_training[_quick|_cuda][_WIDTH_K].json.
Peers that are not installed are left out, saying so.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from sae_peers import PEERS, PIP, Engine, Settings, present
from torch import Tensor

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.sae import SparseAutoencoder, shuffled_batches, train_sae
from debias_ssae.sae.evaluation.geometry import pw_mcc

RESULTS = Path(__file__).parent / "results"
OURS = "debias_ssae"
WARM_STEPS = 3


class Clocked(Iterator[Tensor]):
    """Hands out batches and notes when each was asked for: the differences are the steps' times."""

    def __init__(self, batches: list[Tensor], clock: Callable[[], float]) -> None:
        self.batches, self.clock, self.times = batches, clock, list[float]()

    def __next__(self) -> Tensor:
        self.times.append(self.clock())
        return self.batches[len(self.times) % len(self.batches)]

    def seconds(self) -> float:
        """Return the median step after the warm ones."""
        steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(steps[WARM_STEPS:])


def our_steps(
    settings: Settings, architecture: str, *, init: SparseAutoencoder | None = None, **knobs: Any
) -> Callable[[list[Tensor], Callable[[], float]], float]:
    """Return a function that trains a few steps and returns the seconds of one."""
    cfg = SAEConfig(
        d_in=settings.d_in,
        d_sae=settings.d_sae,
        k=settings.k,
        architecture=architecture,  # type: ignore[arg-type]
        widths=(settings.d_sae // 4, settings.d_sae // 2, settings.d_sae)
        if architecture == "matryoshka"
        else (),
    )
    given = {"matmul_dtype": "float32", "device": settings.device, "init_batches": 1} | knobs

    def run(batches: list[Tensor], clock: Callable[[], float]) -> float:
        stream = Clocked(batches, clock)
        steps = WARM_STEPS + settings.n_steps + 1
        train = TrainConfig(n_steps=steps, batch_size=settings.batch_size, log_every=10**6, **given)
        train_sae(stream, cfg, train, init=init, random_state=0)
        return stream.seconds()

    return run


def peer_steps(
    build: Callable[[Tensor, Settings], Any], settings: Settings
) -> Callable[[list[Tensor], Callable[[], float]], float]:
    """Return the same for a peer."""

    def run(batches: list[Tensor], clock: Callable[[], float]) -> float:
        engine = build(batches[0], settings)
        stream = Clocked(batches, clock)
        for _ in range(WARM_STEPS + settings.n_steps):
            engine.step(next(stream))
        stream.times.append(clock())
        return stream.seconds()

    return run


def gemm(settings: Settings) -> Callable[[list[Tensor], Callable[[], float]], float]:
    """Return seconds of the encoder's product: 2 n d F operations."""

    def run(batches: list[Tensor], clock: Callable[[], float]) -> float:
        W = torch.randn(settings.d_sae, settings.d_in, device=settings.device)
        times = []
        for x in batches[:8]:
            start = clock()
            x @ W.T
            times.append(clock() - start)
        return statistics.median(times)

    return run


def with_dead_latents(settings: Settings, n_dead: int, batches: list[Tensor]) -> SparseAutoencoder:
    """Return an SAE of which ``n_dead`` latents are on everywhere, but too weakly to be chosen."""
    cfg = SAEConfig(d_in=settings.d_in, d_sae=settings.d_sae, k=settings.k, architecture="topk")
    sae = SparseAutoencoder(cfg, random_state=0)
    with torch.no_grad():
        sae.b_dec.copy_(batches[0].mean(0))
        sae.W_enc[:n_dead] *= 1e-3
        sae.b_enc[:n_dead] = 1e-3 * float(batches[0].std())
    return sae


def cpu_clock() -> float:
    return time.process_time()


def wall_clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_speed(
    engines: dict[str, Callable[..., float]], batches: list[Tensor], clock: Callable[[], float], rounds: int
) -> dict[str, list[float]]:
    """Return, for each engine, the seconds of a step in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        for name, run in engines.items():
            seconds[name].append(run(batches, clock))
            print(f"  round {number + 1}: {name:34s} {1e3 * seconds[name][-1]:8.1f} ms", flush=True)
    return seconds


def compare(seconds: dict[str, list[float]], ours: str, other: str) -> float | None:
    """Return how many times faster ``ours`` is: the median over the rounds of the ratio in one round."""
    if other not in seconds or ours not in seconds:
        return None
    return round(statistics.median(b / a for a, b in zip(seconds[ours], seconds[other], strict=True)), 3)


def speed_table(settings: Settings, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return rows per second, ratios to the peers and shares of the rooflines."""
    rows = {name: round(settings.batch_size / statistics.median(values)) for name, values in seconds.items()}
    ratios = {}
    for name in seconds:
        library, _, architecture = name.partition(" ")
        if library in PEERS:
            ratios[f"{architecture} over {library}"] = compare(seconds, f"{OURS} {architecture}", name)
    gemm_seconds = statistics.median(seconds["gemm"])
    sparse = (2 * settings.d_in * settings.d_sae + 8 * settings.d_in * settings.k) / (
        2 * settings.d_in * settings.d_sae
    )
    shares = {"topk of the sparse roofline": compare(seconds, f"{OURS} topk", "gemm")}
    shares = {name: None if value is None else round(value * sparse, 3) for name, value in shares.items()}
    relu = compare(seconds, f"{OURS} relu", "gemm")
    shares["relu of the dense roofline"] = None if relu is None else round(5 * relu, 3)
    for name, base in (("topk bfloat16", "topk"), ("topk aux 1000 dead", "topk no aux")):
        if f"{OURS} {name}" in seconds:
            ratios[f"{name} over {base}"] = compare(seconds, f"{OURS} {name}", f"{OURS} {base}")
    flops = 2 * settings.batch_size * settings.d_in * settings.d_sae
    return {
        "rows_per_second": rows,
        "ratios": ratios,
        "roofline_shares": shares,
        "gemm_gflops": round(flops / gemm_seconds / 1e9, 1),
        "seconds_per_step": seconds,
    }


def all_engines(
    settings: Settings, batches: list[Tensor], *, quick: bool, absent: dict[str, str]
) -> dict[str, Any]:
    """Return what is measured; ``absent`` gets the peers that cannot be imported."""
    names = (
        ("topk", "batchtopk", "relu") if quick else ("topk", "batchtopk", "matryoshka", "relu", "jumprelu")
    )
    engines: dict[str, Any] = {"gemm": gemm(settings)}
    for name in names:
        engines[f"{OURS} {name}"] = our_steps(settings, name)
    engines[f"{OURS} topk bfloat16"] = our_steps(settings, "topk", matmul_dtype="bfloat16")
    weak = with_dead_latents(settings, 1000, batches)
    engines[f"{OURS} topk no aux"] = our_steps(settings, "topk", init=weak, aux_coefficient=0.0, lr=1e-9)
    engines[f"{OURS} topk aux 1000 dead"] = our_steps(settings, "topk", init=weak, dead_steps=1, lr=1e-9)
    for library, (module, builders) in PEERS.items():
        reason = present(module)
        if reason is not None:
            absent[library] = reason
            print(f"{library} is left out ({reason}); to measure it: {PIP}")
            continue
        for name, build in builders.items():
            if name in names:
                engines[f"{library} {name}"] = peer_steps(build, settings)
    return engines


def peak_memory(settings: Settings, names: list[str]) -> dict[str, float]:
    """Return MiB by which a process's peak grows over 5 steps, each engine in a process of its own."""
    peaks = {}
    for name in names:
        command = [
            sys.executable,
            __file__,
            "--memory-of",
            name,
            "--d-sae",
            str(settings.d_sae),
            "--k",
            str(settings.k),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            peaks[name] = float(done.stdout.strip().splitlines()[-1])
    return peaks


def memory_of(name: str, settings: Settings) -> None:
    """Print how far the peak of this process rises over a few steps."""
    batches = list(torch.randn(2 * settings.batch_size, settings.d_in).split(settings.batch_size))
    engines = all_engines(settings, batches, quick=False, absent={})
    engines["gemm"](batches, cpu_clock)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    engines[name](batches, cpu_clock)
    print(round((resident("VmHWM") - before) / 1024, 1))


def resident(field: str) -> int:
    """Return a field of /proc/self/status in KiB: VmRSS, what is resident, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def trained(rows: Tensor, settings: Settings, library: str, dtype: str) -> Engine:
    """A TopK SAE of one library, trained for ``settings.n_steps``; batches come in the order of its seed."""
    stream = shuffled_batches(rows, settings.batch_size, settings.seed)
    if library == OURS:
        cfg = SAEConfig(d_in=settings.d_in, d_sae=settings.d_sae, k=settings.k, architecture="topk")
        knobs = TrainConfig(n_steps=settings.n_steps, batch_size=settings.batch_size, matmul_dtype=dtype)
        if settings.lr is not None:
            knobs = knobs.model_copy(update={"lr": settings.lr})
        sae = train_sae(stream, cfg, knobs, random_state=settings.seed).sae
        return Engine(lambda batch: None, lambda x: sae(x).x_hat, sae.encode, lambda: sae.W_dec)
    engine = PEERS[library][1]["topk"](rows[: 4 * settings.batch_size], settings)
    for _ in range(settings.n_steps):
        engine.step(next(stream))
    return engine


@torch.no_grad()
def quality(engine: Engine, test: Tensor) -> tuple[dict[str, float], NDArray[Any], NDArray[Any]]:
    """FVU, L0 and share of dead latents on held-out rows; decoder rows and firing rates."""
    fires, error = torch.zeros(len(engine.decoder())), 0.0
    for part in test.split(2048):
        fires += (engine.encode(part) > 0).sum(0)
        error += float((part - engine.reconstruct(part)).double().square().sum())
    found = {
        "fvu": error / float((test - test.mean(0)).double().square().sum()),
        "l0": float(fires.sum()) / len(test),
        "dead_share": float((fires == 0).double().mean()),
    }
    return found, engine.decoder().detach().float().numpy(), (fires / len(test)).numpy()


def final_quality(
    rows: Tensor, settings: Settings, rates: list[float | None], libraries: list[str], seeds: list[int]
) -> dict[str, Any]:
    """Return each library's FVU on held-out rows after equal steps, and PW-MCC between two trainings of it.

    Two trainings differ in their start and in the order of the rows; the 4,096 most active latents are matched.
    """
    test, train = rows[:20_000], rows[20_000:]
    found: dict[str, Any] = {}
    kinds = [(OURS, dtype) for dtype in ("float32", "bfloat16")] + [(name, "float32") for name in PEERS]
    for library, dtype in kinds:
        if library not in libraries or (library != OURS and present(PEERS[library][0]) is not None):
            continue
        for rate in [None] if library == OURS else rates:
            own = [Settings(**vars(settings) | {"lr": rate, "seed": seed}) for seed in seeds]
            runs = [quality(trained(train, one, library, dtype), test) for one in own]
            name = f"{library} topk {dtype} lr {rate or 'default'}"
            found[name] = {key: [run[0][key] for run in runs] for key in runs[0][0]}
            if len(runs) > 1:
                (_, a, rate_a), (_, b, rate_b) = runs[:2]
                found[name]["pw_mcc"] = pw_mcc(a, b, (rate_a, rate_b))
            print(f"  {name}: {found[name]}", flush=True)
    return found


def real_rows(n_rows: int, hookpoint: str) -> tuple[Tensor, str]:
    """Return rows of MiniLM at the hookpoint on general_corpus, or random ones, and what they are."""
    kept = os.environ.get("SAE_TRAINING_ROWS")
    if kept:
        return torch.load(kept, weights_only=True)[:n_rows].float(), f"rows of {Path(kept).name}"
    folder = os.environ.get("DEBIAS_SSAE_DATA")
    if not folder:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(n_rows, 384, generator=generator), "random normal"
    from debias_ssae.model import load_model, stream_rows
    from debias_ssae.text import load_corpus

    texts = load_corpus(Path(folder) / "general_corpus" / "data.parquet")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    parts, found = [], 0
    for part in stream_rows(load_model("minilm"), [texts[i] for i in order], hookpoint):
        parts.append(part)
        found += len(part)
        if found >= n_rows:
            break
    return torch.cat(parts)[:n_rows], f"MiniLM {hookpoint} on general_corpus"


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    versions = {}
    for name in ("debias-ssae", "torch", "numpy", "sae-lens", "dictionary-learning", "eai-sparsify"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": versions,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Keep what is measured so far."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def measure(arguments: argparse.Namespace, parts: list[str], path: Path) -> dict[str, Any]:
    """Measure the wanted parts; those that ``path`` holds from an earlier run stay."""
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() and arguments.parts else {}
    settings = Settings(d_sae=arguments.d_sae, k=arguments.k, n_steps=5)
    if arguments.device == "cuda":
        settings = Settings(2048, 65_536, 64, 8192, n_steps=5, device="cuda")
        rows, source = torch.randn(8 * settings.batch_size, settings.d_in, device="cuda"), "random normal"
    else:
        rows, source = real_rows(32_768 if arguments.quick else 250_000, arguments.hookpoint)
    batches = [part.clone() for part in rows[: 16 * settings.batch_size].split(settings.batch_size)]
    result |= {"machine": machine(), "rows": source, "settings": vars(settings), "absent": {}}
    engines = all_engines(settings, batches, quick=arguments.quick, absent=result["absent"])
    print(f"rows: {source}")

    def keep(name: str, value: Any, **about: Any) -> None:
        about |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "load_average": os.getloadavg()}
        result[name] = {"measured": about} | value
        write(path, result)

    if "speed" in parts and arguments.device == "cuda":
        speed = speed_table(settings, measure_speed(engines, batches, wall_clock, rounds))
        keep("gpu_wall", speed, rounds=rounds)
    elif "speed" in parts:
        print("one thread, CPU-seconds")
        speed = speed_table(settings, measure_speed(engines, batches, cpu_clock, rounds))
        keep("one_thread_cpu", speed, rounds=rounds)
    if "wall" in parts:
        torch.set_num_threads(2)
        print("two threads, wall seconds")
        speed = speed_table(settings, measure_speed(engines, batches, wall_clock, min(rounds, 3)))
        keep("two_threads_wall", speed, rounds=min(rounds, 3))
        torch.set_num_threads(1)
    if "memory" in parts:
        keep("peak_mib", peak_memory(settings, [name for name in engines if name.endswith(" topk")]))
    if "fvu" in parts:
        print(f"FVU after {arguments.fvu_steps} steps, topk")
        rates = [None if rate == "default" else float(rate) for rate in arguments.fvu_rates.split(",")]
        own = Settings(**vars(settings) | {"n_steps": arguments.fvu_steps})
        found = final_quality(rows, own, rates, arguments.fvu_of.split(","), list(range(arguments.fvu_seeds)))
        before = result.get("final_fvu", {})
        if (
            before.get("measured", {}).get("steps") == arguments.fvu_steps
        ):  # other libraries' runs of that length
            found = {name: value for name, value in before.items() if name != "measured"} | found
        keep("final_fvu", found, steps=arguments.fvu_steps)
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three architectures and the speed only")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--parts", help="of speed,wall,memory,fvu; the other parts of the JSON stay as they are"
    )
    parser.add_argument("--rounds", type=int, help="default 3 with --quick, else 5")
    parser.add_argument("--fvu-steps", type=int, default=400)
    parser.add_argument("--fvu-rates", default="default,2e-3", help="learning rates of the peers")
    parser.add_argument("--fvu-seeds", type=int, default=1, help="2 or more: PW-MCC between the first two")
    parser.add_argument("--hookpoint", default="blocks.3", help="of MiniLM, whose rows are trained on")
    parser.add_argument("--fvu-of", default=",".join([OURS, *PEERS]), help="libraries")
    parser.add_argument("--d-sae", type=int, default=3072)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        memory_of(arguments.memory_of, Settings(d_sae=arguments.d_sae, k=arguments.k, n_steps=5))
        return
    brief = arguments.quick or arguments.device == "cuda"
    parts = (arguments.parts or ("speed" if brief else "speed,wall,memory,fvu")).split(",")
    suffix = "_cuda" if arguments.device == "cuda" else "_quick" if arguments.quick else ""
    if (arguments.d_sae, arguments.k) != (3072, 32):
        suffix += f"_{arguments.d_sae}_{arguments.k}"
    path = RESULTS / f"sae_training{suffix}.json"
    shown = {key: value for key, value in measure(arguments, parts, path).items() if key != "settings"}
    for part in ("one_thread_cpu", "two_threads_wall", "gpu_wall"):
        if part in shown:
            shown[part] = {key: value for key, value in shown[part].items() if key != "seconds_per_step"}
    print(json.dumps(shown, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
