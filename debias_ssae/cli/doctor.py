"""``doctor``: what is installed, what the machine offers, what is missing and how to get it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, metadata, requires, version

import click

_SHOWN = ("torch", "transformers", "sentence-transformers", "scikit-learn", "numpy", "pandas", "safetensors")
_ABOUT = {
    "demo": "the small model of the demo, offline",
    "report": "HTML pages and figures",
    "heads": "saved classifiers: evaluate --save-head, predict",
    "test": "the test suite",
    "dev": "type checks and style",
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "DEBIAS_SSAE_DATA")


@click.command()
def doctor() -> None:
    """Print versions, device, threads and extras, what is missing and how to get it."""
    click.echo(
        f"debias-ssae {version('debias-ssae')}, Python {platform.python_version()}, {platform.platform()}"
    )
    click.echo("  ".join(f"{name} {_version(name) or 'missing'}" for name in _SHOWN))
    missing = [name for name in _required("") if _version(name) is None]
    click.echo()
    for line in _machine():
        click.echo(line)
    if known := [f"{name}={os.environ[name]}" for name in (*_THREADS, *_OFFLINE) if name in os.environ]:
        click.echo(f"Environment: {', '.join(known)}")
    click.echo("\nExtras")
    for extra in metadata("debias-ssae").get_all("Provides-Extra") or ():
        absent = [name for name in _required(extra) if _version(name) is None]
        state = f"missing {', '.join(absent)}: pip install 'debias-ssae[{extra}]'" if absent else "installed"
        click.echo(f"  {extra:10} {state}" + (f" ({_ABOUT[extra]})" if extra in _ABOUT else ""))
    if missing:
        click.echo(f"\nMissing: {', '.join(missing)}. Install again with: pip install debias-ssae")
    else:
        click.echo("\nEverything that debias-ssae needs is installed.")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _required(extra: str) -> list[str]:
    """Packages of an extra (and of the extras it names), or of none."""
    from packaging.requirements import Requirement

    names = []
    for text in requires("debias-ssae") or ():
        one = Requirement(text)
        if one.marker is None:
            wanted = extra == ""
        else:
            wanted = (
                extra != ""
                and one.marker.evaluate({"extra": extra})
                and not one.marker.evaluate({"extra": ""})
            )
        if wanted and one.name == "debias-ssae":
            names += [name for inner in sorted(one.extras) for name in _required(inner)]
        elif wanted:
            names.append(one.name)
    return names


def _machine() -> list[str]:
    try:
        import torch
    except ImportError as error:
        return [f"torch cannot be imported ({error}): pip install torch"]
    from debias_ssae.core.device import has_fast_bf16, pick_device

    device = pick_device("auto")
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    )
    precision = "bfloat16" if has_fast_bf16(device.type) else "float32"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [f"Device: {device} ({name}); matrix products in {precision}"]
    if device.type == "cpu":
        built = torch.version.cuda
        why = "this torch is built without CUDA" if built is None else "torch finds no GPU that it can use"
        lines.append(f"GPU: none; {why}")
    return [*lines, f"Threads: torch uses {torch.get_num_threads()} of {cores} cores"]
