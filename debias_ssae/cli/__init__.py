"""The command line. Each command lives in its own module, imported only when it is called."""

import os
import re
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from typing import Any, NoReturn

import click

from debias_ssae.cli.checks import in_options
from debias_ssae.core.errors import InputError, MissingExtraError, brief, is_lack_of_memory, one_line

# name -> (module, attribute, one line of help): shown without importing anything heavy.
COMMANDS = {
    "demo": ("demo", "demo", "Debias synthetic biographies from end to end, offline."),
    "discover": ("discover", "discover", "Show what a classifier's decision rests on."),
    "fit": ("estimators", "fit", "Fit a debiaser on a table of texts and save it."),
    "transform": ("estimators", "transform", "Write the debiased representations of a table of texts."),
    "evaluate": ("evaluate", "evaluate", "Train a classifier on debiased texts and audit it."),
    "predict": ("evaluate", "predict", "Predict the labels of a table of texts."),
    "latents": ("latents", "latents", "Show what each removed latent does, and apply a review of it."),
    "export": ("export", "export", "Write a debiaser as a model for sentence-transformers."),
    "audit": ("audit", "audit", "Audit predictions: what fails, for whom, how sure we are."),
    "benchmark": ("benchmark", "benchmark", "Compare methods on Bias in Bios or on your own table."),
    "sae": ("sae", "sae", "Train, inspect, evaluate and convert sparse autoencoders."),
    "activations": ("activations", "activations", "Harvest a model's activations into a store on disk."),
    "concept": ("concept", "concept", "Show a list of words, and what it finds in your texts."),
    "retrieve": ("retrieve", "retrieve", "Find the subdomain of a corpus that matters."),
    "cache": ("cache", "cache", "Show or clear what is kept between fits."),
    "doctor": ("doctor", "doctor", "Print versions, device, extras, and what is missing."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command is used."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for stream in (sys.stdout, sys.stderr):  # a name that is no UTF-8 is no reason to stop
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        for before, one in pairwise(["", *args]):
            if one == "" or _EMPTY.fullmatch(one):
                name = one.rstrip("=") or before or "an argument"
                _end(
                    f"{name} is empty (a variable of the shell that is not set?); give a value or leave it out"
                )
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"debias_ssae.cli.{module}"), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        near = get_close_matches(args[0], COMMANDS, n=1)
        if near and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn  # type: ignore[assignment]
                return super().invoke(ctx)
        except (InputError, MissingExtraError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            named = isinstance(error, OSError) and error.filename is not None
            _end(f"{brief(str(error.filename))}: {error.strerror}" if named else error)  # type: ignore[union-attr]
        except (MemoryError, RuntimeError) as error:
            if not is_lack_of_memory(error):
                raise
            _end(
                "there is not enough memory: give fewer texts, a smaller batch or model, or use a larger machine"
            )
        except KeyboardInterrupt:
            _end("interrupted; what is finished is kept, and the same command goes on", code=130)


_EMPTY = re.compile(r"--[\w-]+=")


def _warn(message: Warning | str, *_: Any) -> None:
    click.echo(f"Warning: {in_options(one_line(message, 2000))}", err=True)


def _end(error: object, code: int = 2) -> NoReturn:
    click.echo(f"Error: {in_options(one_line(error, 2000))}", err=True)
    sys.exit(code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="debias-ssae", prog_name="debias-ssae")
def main() -> None:
    """Remove spurious attributes from text representations, and audit the result."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
