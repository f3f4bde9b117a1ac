"""Options that mean the same in every command."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from debias_ssae.cli.checks import check_encoder, check_hookpoints
from debias_ssae.core.config import PRESETS, DebiasConfig, load_config, parse_overrides
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import show_progress
from debias_ssae.text import load_corpus

Command = TypeVar("Command", bound=Callable[..., Any])
FILE, FOLDER = click.Path(dir_okay=False), click.Path(file_okay=False)
_SHARED: dict[str, Callable[[Command], Command]] = {
    "preset": click.option(
        "--preset",
        default="default",
        type=click.Choice(["fast", "default", "thorough"]),
        help="fast: fewer texts and training steps; thorough: many times the steps, and in discover a second training.",
    ),
    "device": click.option("--device", default="auto", help="Where models run: auto, cpu, cuda, cuda:1, ..."),
    "config": click.option("--config", type=FILE, help="YAML of settings (docs/reference/settings.md)."),
    "sets": click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="A.B=C",
        help="One setting, as in --set selection.min_cell=10.",
    ),
    "seed": click.option(
        "--seed", default=0, type=click.IntRange(0, 2**32 - 1), help="Seed of everything random."
    ),
    "cache": click.option(
        "--cache",
        type=FOLDER,
        help="Directory of embeddings and SAEs kept between runs; fit and discover have one by default "
        "(debias-ssae cache info).",
    ),
    "quiet": click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=lambda context, _, quiet: context.with_resource(show_progress(not quiet)),
        help="No progress bars.",
    ),
    "data": click.option(
        "--data", required=True, type=FILE, help="Table: csv, tsv, jsonl or parquet, also .gz."
    ),
    "ids": click.option(
        "--id", "ids", multiple=True, help="Column to copy into OUT, before all others. Repeatable."
    ),
    "trust": click.option(
        "--trust-remote-code", is_flag=True, help="Run the language model's own code, if it has any."
    ),
    "min_group": click.option(
        "--min-group", default=10, help="Rates over fewer rows are shown, but they decide no gap and no gate."
    ),
    "tolerance": click.option("--tolerance", default=0.1, help="The difference that matters."),
    "text": click.option("--text", default="text", help="Column of texts."),
    "corpus": click.option("--corpus", type=click.Path(), help="Texts to retrieve the subdomain from."),
    "corpus_text": click.option("--corpus-text", default="text", help="Column of texts in --corpus."),
    "encoder": click.option("--encoder", default="minilm", help="Hugging Face model, or minilm."),
    "hookpoint": click.option(
        "--hookpoint",
        default="embeddings",
        help="Where the model is read and edited: embeddings, blocks.N, final; separate several by commas.",
    ),
    "layer": click.option("--layer", default="final", help="Hookpoint whose activations are pooled."),
    "pooling": click.option(
        "--pooling",
        default="auto",
        type=click.Choice(["auto", "mean", "cls", "last", "max"]),
        help="How a text's activations become one vector; auto: as the model's directory states, else mean.",
    ),
}


def shared(*names: str) -> Callable[[Command], Command]:
    """Add the shared options ``names`` to a command, in this order."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = _SHARED[name](command)
        return command

    return add


def as_given(*names: str) -> list[str]:
    """Those of the options ``names`` that the command was given, to be given to another one."""
    context, words = click.get_current_context(), []
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            value = context.params[option.name]
            if getattr(option, "is_flag", False):
                words.append(option.opts[0])
            else:
                values = value if isinstance(value, tuple) else (value,)
                words += [word for one in values for word in (option.opts[0], str(one))]
    return words


def needs(**needed: str) -> None:
    """Raise InputError for an option that was given without the one that it belongs to: it would change nothing."""
    context = click.get_current_context()
    names = {p.name: p.opts[0] for p in context.command.params if p.name is not None}
    for name, other in needed.items():
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and not context.params[other]:
            raise InputError(
                f"{names[name]} belongs to {names[other]}, which is missing; give both or neither"
            )


def model_options(options: dict[str, Any]) -> dict[str, Any]:
    """What fit and discover pass on alike; settings are the preset's, then the file's, then those of ``--set``.

    Raises InputError for wrong names before torch is imported.
    """
    given, preset = parse_overrides(options["sets"]), PRESETS[options["preset"]]
    hookpoints = options["hookpoint"].split(",")
    check_encoder(options["encoder"])
    check_hookpoints(hookpoints)
    check_hookpoints([options["layer"]], "--layer")
    return {
        **{name: options[name] for name in ("encoder", "sae", "layer", "pooling", "device")},
        "hookpoint": hookpoints if len(hookpoints) > 1 else hookpoints[0],
        "cache_dir": options["cache"] or "auto",
        "config": load_config(DebiasConfig, options["config"], given, defaults=preset),
        "random_state": options["seed"],
    }


def read_corpus(options: dict[str, Any]) -> list[str] | None:
    """The texts of --corpus; None without one."""
    path = options["corpus"]
    return None if path is None else load_corpus(path, column=options["corpus_text"])


def load_debiaser(model: str, **options: Any) -> Any:
    """Load a debiaser of texts; raises InputError for one of a matrix."""
    from debias_ssae.debiaser import SSAEDebiaser

    debiaser = SSAEDebiaser.load(model, **options)
    if debiaser.encoder is None:
        raise InputError(f"{model} was fitted on a matrix and reads no texts; use its transform in Python")
    return debiaser
