"""The command line. Each command lives in its own module, imported only when it is called."""

import os
import re
import sys
from importlib import import_module
from typing import Any

import click

from debias_ssae.core.errors import InputError, MissingExtraError

# name -> (module, attribute, one line of help): shown without importing anything heavy.
COMMANDS = {
    "demo": ("demo", "demo", "Debias synthetic biographies from end to end, offline."),
    "fit": ("estimators", "fit", "Fit a debiaser on a table of texts and save it."),
    "transform": ("estimators", "transform", "Write the debiased representations of a table of texts."),
    "latents": ("latents", "latents", "Show what each removed latent does, and apply a review of it."),
    "export": ("export", "export", "Write a debiaser as a model for sentence-transformers."),
    "audit": ("audit", "audit", "Audit predictions: what fails, for whom, how sure we are."),
    "benchmark": ("benchmark", "benchmark", "Compare methods on Bias in Bios or on your own table."),
    "sae": ("sae", "sae", "Train, inspect and convert sparse autoencoders."),
    "activations": ("activations", "activations", "Harvest a model's activations into a store on disk."),
    "retrieve": ("retrieve", "retrieve", "Find the subdomain of a corpus that matters."),
}


# what Python calls it -> the option that says it
_OPTIONS = {
    "y_true": "--target",
    "y_pred": "--prediction",
    "y_score": "--score",
    "sensitive_features": "--sensitive",
    "control_features": "--control",
    "sample_weight": "--weight",
    "random_state": "--seed",
    "cache_dir": "--cache",
    "pos_label": "--pos-label",
    "min_group": "--min-group",
    "n_bootstrap": "--n-bootstrap",
    "n_latents": "--n-latents",
    "output_eraser": "--output-eraser",
}


def in_options(message: str) -> str:
    """An error of the library in the words of the command line; what is quoted is the user's own."""
    names = "|".join(_OPTIONS)
    return re.sub(rf"(?<![\w'\"./-])({names})(?![\w'\"./])", lambda m: _OPTIONS[m.group(1)], message)


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"debias_ssae.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, MissingExtraError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            click.echo(f"Error: {in_options(' '.join(str(error).split()))}", err=True)
            sys.exit(2)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="debias-ssae", prog_name="debias-ssae")
def main() -> None:
    """Remove spurious attributes from text representations, and audit the result."""
    # read when torch starts: threads that spin while idle take the processor from those that work
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
