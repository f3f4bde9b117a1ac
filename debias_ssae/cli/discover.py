"""``discover``: what a classifier's decision rests on, when nobody has named a shortcut."""

import shlex
import time
from pathlib import Path
from typing import Any

import click

from debias_ssae.cli.checks import check_columns
from debias_ssae.cli.evaluate import read_skops
from debias_ssae.cli.options import FILE, FOLDER, as_given, model_options, needs, read_corpus, shared
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import check_writable
from debias_ssae.text import load_table

SHOWN = 10
_SAME = ("data", "text", "target", "encoder", "layer", "pooling", "cache", "config", "sets", "device", "seed")
"""Options that mean the same in fit."""
_REPLACED = ("choices", "sae", "hookpoint", "corpus", "corpus_text")
"""Options that the next round has from the choices, whose SAEs are trained."""


@click.command()
@shared("data", "text")
@click.option("--target", help="Column of the target.")
@click.option(
    "--prediction",
    help="Instead of --model: column of the classifier's predicted classes, or, beside --target, scores.",
)
@click.option("--model", type=FILE, help="Your classifier of the representations, as .skops.")
@shared("corpus", "corpus_text", "encoder", "hookpoint", "layer", "pooling")
@click.option("--sae", type=click.Path(), help="A sparse autoencoder of the hookpoint, used as it is.")
@click.option(
    "--other-sae", type=click.Path(), help="An SAE of another training, to show which latents recur."
)
@click.option(
    "--class-words",
    multiple=True,
    metavar="CLASS=WORDS",
    help="A description of a class, for a hint. Repeatable.",
)
@click.option(
    "--choices",
    type=click.Path(),
    help="Choices of earlier rounds, a file or its folder; starts the next round.",
)
@click.option("--out", required=True, type=FOLDER, help="Directory of the page and the choices.")
@shared("preset", "cache", "config", "sets", "device", "seed", "quiet")
def discover(data: str, text: str, target: str | None, out: str, **options: Any) -> None:
    """Show what a classifier's decision rests on.

    Writes OUT/shortcuts.html, a page of cards to tick, and OUT/choices.yaml with the SAE beside it, for
    another round (--choices) and for debias-ssae fit --attribute. The classifier is trained on --target, or given by
    --model or --prediction. A run that was stopped finds its SAE in the cache when it is started again.
    """
    needs(corpus_text="corpus")
    passed = model_options(options)
    prediction, model = options["prediction"], options["model"]
    if prediction is not None and model is not None:
        raise InputError("--prediction and --model both name the classifier; give one")
    if target is None and prediction is None:
        raise InputError(
            "--target is missing; name the column of the target, or of predictions with --prediction"
        )
    table = load_table(data, text=text, target=target)
    head: Any = None
    if prediction is not None:
        check_columns(table, data, "--prediction", [prediction])
        head = table[prediction].to_numpy()
    elif model is not None:
        head = _load_head(model)
    check_writable(out)
    described = dict(_split(words) for words in options["class_words"])
    from debias_ssae.review import discover as run  # only now: it imports torch
    from debias_ssae.selection.choices import Choices, check_nothing_lost

    earlier = None if options["choices"] is None else Choices.load(options["choices"])
    check_nothing_lost(Path(out) / "choices.yaml", earlier or Choices({}, {}))
    if earlier is not None:  # their SAEs take the place of --sae
        passed["sae"] = None
    started = time.monotonic()
    found = run(
        table[text].tolist(),
        None if target is None else table[target].to_numpy(),
        **passed,
        corpus=read_corpus(options),
        head=head,
        class_words=described,
        other_sae=options["other_sae"],
        choices=earlier,
    )
    found.save(out)
    for card in found.in_sight[:SHOWN]:
        link = " ".join(card.link).strip()
        click.echo(f"{card.number:3} {card.share:6.1%}  {card.name}" + (f"  ({link})" if link else ""))
    if folded := len(found.cards) - len(found.in_sight):
        click.echo(
            f"{folded} more are folded on the page: small ones, function words, the target's own words."
        )
    if found.head.kind == "distilled":
        click.echo(f"The linear head agrees with the given classifier on {found.fidelity:.1%} of the texts.")
    click.echo(f"{found.verdict} ({time.monotonic() - started:.0f} s)")
    page, file = Path(out) / "shortcuts.html", Path(out) / "choices.yaml"
    again = as_given(*(option for option in click.get_current_context().params if option not in _REPLACED))
    same = as_given(*_SAME)
    click.echo(
        f"Next:  open {page}, tick what must not count, save it and move it over {file}, then look again:\n"
        f"       debias-ssae discover {shlex.join([*again, '--choices', str(file)])}\n"
        "Then:  when nothing suspicious leads any more, remove what is ticked:\n"
        f"       debias-ssae fit {shlex.join(['--attribute', str(file), *same, '--out', 'model/'])}"
    )


def _load_head(path: str) -> Any:
    """A scikit-learn classifier, as skops or as evaluate --save-head wrote it."""
    saved = read_skops(path, "--model")
    return saved["head"] if isinstance(saved, dict) and "head" in saved else saved


def _split(words: str) -> tuple[str, str]:
    name, found, description = words.partition("=")
    if not found or not description.strip():
        raise InputError(f"--class-words is {words!r}; expected CLASS=WORDS, such as nurse='nurse, nursing'")
    return name, description
