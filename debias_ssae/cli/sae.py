"""``debias-ssae sae``: train a sparse autoencoder, look into one, convert one."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from debias_ssae.cli.checks import check_columns
from debias_ssae.cli.options import needs, shared
from debias_ssae.core.config import (
    EvaluationConfig,
    SAEConfig,
    Settings,
    TrainConfig,
    load_config,
    make_config,
    parse_overrides,
)
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import check_folder, check_writable, read_yaml
from debias_ssae.core.steps import to_stderr
from debias_ssae.text import load_corpus, load_table
from debias_ssae.text.checks import table_of
from debias_ssae.text.concept import Concept
from debias_ssae.text.tables import stream_texts

if TYPE_CHECKING:
    from torch import Tensor


Source = tuple[int, "Iterator[Tensor]", dict[str, Any]]
"""Width of a row, the batches, and where they come from."""
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def sae() -> None:
    """Train, inspect, evaluate and convert sparse autoencoders."""


@sae.command()
@click.option("--activations", type=FOLDER, help="A store made by `debias-ssae activations harvest`.")
@click.option("--encoder", help="With --corpus: the model (minilm, a directory or a hub id) to harvest.")
@click.option("--corpus", help="With --encoder: a .txt, csv, jsonl or parquet file, or a hub data set.")
@click.option("--hookpoint", help="Default: the store's first, or embeddings.")
@click.option("--rows", default=1_000_000, type=click.IntRange(min=1), help="Of the corpus.")
@click.option("--out", required=True, type=FOLDER, help="Folder of the trained SAE.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="YAML with sae: and train:.")
@click.option("--d-sae", type=int, help="Number of latents.")
@click.option("--k", type=int, help="Mean number of active latents a row.")
@click.option("--architecture", help="relu, topk, batchtopk, jumprelu or matryoshka.")
@click.option("--steps", "n_steps", type=int, help="Optimiser steps.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--tilt", help="TERM's t on losses over their running mean, or auto.")
@click.option("--device", help="cpu, cuda, ...; default: cuda where there is one.")
@click.option(
    "--set", "others", multiple=True, metavar="NAME=VALUE", help="Any other setting of TrainConfig."
)
@click.option("--init", type=click.Path(path_type=Path), help="An SAE to fine-tune, in any known format.")
@click.option("--checkpoints", type=FOLDER, help="Folder of checkpoints; default: OUT/checkpoints.")
@click.option("--resume", is_flag=True, help="Continue from the newest undamaged checkpoint.")
@shared("text", "seed", "quiet")
def train(out: Path, **told: Any) -> None:
    """Train on a store of activations, or on a corpus."""
    needs(text="corpus", rows="corpus")
    if (told["activations"] is None) == (told["encoder"] is None or told["corpus"] is None):
        raise InputError("Give either --activations DIR, or --encoder MODEL and --corpus FILE")
    sae_values, train_values = _settings(told)
    _check_out(out)
    check_writable(out)
    of = _from_corpus if told["activations"] is None else _from_store
    width, stream, about = of(told, train_values.batch_size, sae_values)

    from debias_ssae.sae import load_sae, save_sae, train_sae

    start = None if told["init"] is None else load_sae(told["init"])
    if start is not None:
        sae_values = {"d_sae": start.cfg.d_sae, "k": start.cfg.k} | sae_values
    cfg = make_config(SAEConfig, {**sae_values, "d_in": width}, "sae")
    result = train_sae(
        stream,
        cfg,
        train_values,
        init=start,
        random_state=told["seed"],
        checkpoint_dir=told["checkpoints"] or out / "checkpoints",
        resume=told["resume"],
    )
    last, made = result.history[-1], train_values.model_dump(mode="json")
    recipe = {"train": made, "seed": told["seed"], "init": told["init"] and str(told["init"])}
    save_sae(result.sae, out, metadata={**about, **recipe, "last_step": last})
    shown = ", ".join(f"{name} {last[name]:.4g}" for name in ("fvu", "l0", "dead_fraction"))
    click.echo(f"{out}: {cfg.architecture}, {cfg.d_sae} latents on width {width}; {shown}")


@sae.command()
@click.argument("path", type=click.Path(path_type=Path))
def info(path: Path) -> None:
    """Say what an SAE is and how it was made, as YAML."""
    from debias_ssae.sae import load_sae
    from debias_ssae.sae.formats import load_metadata

    loaded, about = load_sae(path), load_metadata(path)
    last = about.pop("last_step", None)
    found: dict[str, Any] = {
        "configuration": loaded.cfg.model_dump(mode="json"),
        "weights": {
            "threshold (mean)": loaded.threshold.mean().item(),
            "decoder norm (mean)": loaded.W_dec.norm(dim=1).mean().item(),
            "fingerprint": loaded.fingerprint(),
        },
        "made from": about,
        "last step of training": last if isinstance(last, dict) else {},
    }
    click.echo(yaml.safe_dump(found, sort_keys=False))


@sae.command("eval")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--encoder", required=True, help="The model that the SAE reads: minilm, a directory or a hub id."
)
@click.option("--hookpoint", default="embeddings", help="Where the SAE reads it.")
@click.option("--data", required=True, help="Table of texts of the domain: csv, jsonl or parquet.")
@shared("text")
@click.option(
    "--label", "labels", multiple=True, help="Column of labels to probe; the target first. Repeatable."
)
@click.option("--general", help="General texts, in which token frequencies are counted too.")
@click.option("--general-text", default="text", help="Column of texts in --general.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Another SAE of this hookpoint to compare with, such as the general one.",
)
@click.option(
    "--concept", help="Shipped name or file of a concept whose absorption is measured, such as gender."
)
@click.option("--section", "sections", multiple=True, help="Run only this section. Repeatable.")
@click.option(
    "--judge",
    metavar="URL",
    help="A chat endpoint that judges explanations; excerpts of your texts are sent to it.",
)
@click.option("--judge-model", help="Name of the judging model at that endpoint.")
@click.option("--judge-key", metavar="VARIABLE", help="Environment variable that holds the endpoint's key.")
@click.option("--out", required=True, type=FOLDER, help="Folder of evaluation.json and evaluation.html.")
@shared("sets", "device", "seed", "quiet")
def evaluate(
    path: Path, encoder: str, hookpoint: str, data: str, text: str, out: Path, **options: Any
) -> None:
    """Measure an SAE as the papers do (docs/sae_evaluation.md).

    PATH is an SAE in any known format. With a causal language model, cross-entropy with the SAE spliced in is
    measured too. The same command, given again, continues where it was stopped.
    """
    config = make_config(EvaluationConfig, parse_overrides(options["sets"]), "--set")
    if (options["judge"] is None) != (options["judge_model"] is None):
        raise InputError("--judge and --judge-model go together: give the address and the model's name there")
    table = load_table(data, text=text)
    check_columns(table, data, "--label", options["labels"])
    concept = None if options["concept"] is None else Concept.load(options["concept"])

    from debias_ssae.benchmark.sae_evaluation import SECTIONS, Subject, evaluate_sae
    from debias_ssae.model import load_model
    from debias_ssae.model.causal import load_causal
    from debias_ssae.model.language_model import check_hookpoints
    from debias_ssae.review.cards import yes_or_no
    from debias_ssae.sae import load_sae

    sae = load_sae(path, model=encoder, hookpoint=hookpoint)
    reference = None if options["reference"] is None else load_sae(options["reference"])
    try:
        causal = load_causal(encoder, device=options["device"])
    except InputError:
        causal = (
            None  # an encoder: all but the cross-entropy is measured; load_model says what else may be wrong
        )
    model = load_model(encoder, device=options["device"]) if causal is None else causal.body
    check_hookpoints([hookpoint], model.hookpoints)
    for one in filter(None, (sae, reference)):
        if one.cfg.d_in != model.d_model:
            raise InputError(f"the SAE reads rows of width {one.cfg.d_in}, but {encoder} has {model.d_model}")
    judge = options["judge"]
    if judge is not None:
        judge = yes_or_no(judge, options["judge_model"], api_key_variable=options["judge_key"])
    subject = Subject(
        sae=sae,
        model=model,
        hookpoint=hookpoint,
        texts=table[text].tolist(),
        general=load_corpus(options["general"], column=options["general_text"]) if options["general"] else (),
        labels=table_of(table[list(options["labels"])], "--label") if options["labels"] else None,
        reference=reference,
        causal=causal,
        concept=concept,
        judge=judge,
        config=config,
        seed=options["seed"],
    )
    about = {
        "sae": str(path),
        "encoder": encoder,
        "hookpoint": hookpoint,
        "data": data,
        "general": options["general"],
    }
    found = evaluate_sae(
        subject, out, sections=options["sections"] or tuple(SECTIONS), about=about, say=to_stderr
    )
    for r in found:
        if (
            r["measure"] in _HEADLINES
            and not set(r) & {"decile", "of"}
            and r.get("concept", "mean") == "mean"
        ):
            click.echo(
                f"{r['measure']:22s} {r['value']:10.4g}  {r.get('part', r.get('task', ''))} {r.get('splice', '')}"
            )
    click.echo(f"Page: {out / 'evaluation.html'}")


_HEADLINES = {
    "fvu", "l0", "dead_share", "bits_per_token", "perplexity", "loss_recovered_zero", "coverage_rarest_30", "pw_mcc",
    "absorption_rate", "full_absorption",
}  # fmt: skip


@sae.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=FOLDER)
def convert(source: Path, destination: Path) -> None:
    """Read an SAE in any known format and write it in ours, which SAELens reads too."""
    from debias_ssae.sae import load_sae, save_sae
    from debias_ssae.sae.formats import load_metadata

    if destination.exists() and source.exists() and destination.samefile(source):
        raise InputError(f"{destination} is the source itself; give another folder")
    _check_out(destination)
    loaded, metadata = load_sae(source), load_metadata(source)
    save_sae(loaded, destination, metadata=metadata)
    click.echo(f"{destination}: {loaded.cfg.architecture}, {loaded.cfg.d_sae} latents")


def _check_out(folder: Path) -> None:
    """Raise InputError for a folder that holds something else than an SAE, or is a part of a saved model."""
    if (folder.absolute().parent / "manifest.json").exists():
        raise InputError(f"{folder} is a part of {folder.absolute().parent}: give another folder")
    known = {"cfg.json", "sae_weights.safetensors", "ssae.json", "checkpoints", "ae.pt", "config.json"}
    check_folder(folder, "sparse autoencoder", lambda held: held <= known)


class _Training(Settings):
    sae: SAEConfig
    train: TrainConfig = TrainConfig()


def _settings(told: dict[str, Any]) -> tuple[dict[str, Any], TrainConfig]:
    """Return what is said of the SAE, and the TrainConfig: the file's values, and over them the command line's."""
    known = {*SAEConfig.model_fields, *TrainConfig.model_fields}
    knobs = {name: value for name, value in told.items() if name in known and value is not None}
    train = knobs | parse_overrides(told["others"])
    own = {name: train.pop(name) for name in list(train) if name in SAEConfig.model_fields}
    given, base = {"sae": own, "train": train}, {"sae": {"d_in": 1}}  # the width is known when rows are
    config = told["config"]
    if config is not None and not isinstance(read_yaml(config) or {}, dict):
        raise InputError(f"The configuration {config} must hold the groups sae: and train:")
    made = load_config(_Training, config, given, defaults=base)
    return made.sae.model_dump(exclude_unset=True), made.train


def _from_store(told: dict[str, Any], batch_size: int, sae_values: dict[str, Any]) -> Source:
    from debias_ssae.model.store import ActivationStore

    store, hookpoint = ActivationStore(told["activations"]), told["hookpoint"]
    stream = store.shuffled(hookpoint, batch_size=batch_size, random_state=told["seed"])
    about = {
        "hook_name": hookpoint or store.hookpoints[0],
        "model_name": str(store.settings.get("model", "")),
    }
    return store.d_model, stream, {**about, "activations": str(told["activations"])}


def _from_corpus(told: dict[str, Any], batch_size: int, sae_values: dict[str, Any]) -> Source:
    import torch

    from debias_ssae.model import load_model, stream_rows
    from debias_ssae.sae import shuffled_batches
    from debias_ssae.sae.model import check_memory

    model, name, corpus = load_model(told["encoder"]), told["hookpoint"] or "embeddings", told["corpus"]
    # before the work of harvesting
    check_memory(make_config(SAEConfig, {**sae_values, "d_in": model.d_model}, "sae"), copies=6)
    parts, found = [], 0
    texts = (text for text in stream_texts(corpus, column=told["text"]) if isinstance(text, str))
    for part in stream_rows(model, texts, name):
        parts.append(part)
        found += len(part)
        if found >= told["rows"]:
            break
    if found == 0:
        raise InputError(f"The corpus {corpus} gave no rows of activations")
    rows = torch.cat(parts)[: told["rows"]]
    about = {"hook_name": name, "model_name": told["encoder"], "dataset_path": corpus, "n_rows": len(rows)}
    return rows.shape[1], shuffled_batches(rows, batch_size, told["seed"]), about
