"""``debias-ssae activations``: harvest a corpus into a store, and look into one."""

import logging
from pathlib import Path
from typing import Any

import click

from debias_ssae.cli.options import shared
from debias_ssae.text.tables import stream_texts


@click.group()
def activations() -> None:
    """Harvest a model's activations into a store on disk."""


@activations.command()
@shared("encoder", "text")
@click.option(
    "--corpus",
    required=True,
    help="A .txt, csv, jsonl or parquet file, a folder or pattern of such, or a hub data set.",
)
@click.option("--split", default="train", help="The split of a hub data set.")
@click.option("--hookpoint", "hookpoints", multiple=True, default=("embeddings",))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The store's folder."
)
@click.option(
    "--max-length", type=click.IntRange(min=3), help="Tokens a sequence; default: the model's limit."
)
@click.option("--dtype", default="auto", help="Precision of the model's matrix products.")
@click.option("--store-dtype", default="auto", help="float32, float16 or bfloat16.")
@click.option(
    "--token-budget", default=2048, type=click.IntRange(min=1), help="Tokens a batch, padding included."
)
@click.option("--texts-per-shard", default=1024, type=click.IntRange(min=1))
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N texts.")
@shared("trust", "device", "quiet")
def harvest(corpus: str, out: Path, **options: Any) -> None:
    """Harvest a corpus; run again to continue after an interruption, or under torchrun to share the work.

    The store is the same for any number of processes.
    """
    from debias_ssae.model import load_model
    from debias_ssae.model.store.harvest import harvest_to_store, summary

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    told = {name: options.pop(name) for name in ("encoder", "device", "dtype", "trust_remote_code")}
    limits = {name: options.pop(name) for name in ("max_length", "token_budget")}
    model = load_model(told.pop("encoder"), **told).with_limits(**limits)
    read = {name: options.pop(name) for name in ("split", "limit")}
    texts = stream_texts(corpus, column=options.pop("text"), **read)
    store = harvest_to_store(model, texts, out, **options)
    click.echo(f"{out}: {summary(store.manifest['totals'])}" if store else "other processes are at work")


@activations.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Compare every checksum.")
def info(directory: Path, verify: bool) -> None:
    """Say what a store holds."""
    from debias_ssae.model.store import ActivationStore
    from debias_ssae.model.store.harvest import summary

    store = ActivationStore(directory, verify=verify)
    for name, value in store.settings.items():
        click.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    n_bytes = store.manifest["totals"]["n_bytes"]
    click.echo(
        f"shards: {len(store.records)} ({n_bytes / 1e6:.1f} MB){', all checksums right' if verify else ''}"
    )
    click.echo(summary(store.manifest["totals"]))
