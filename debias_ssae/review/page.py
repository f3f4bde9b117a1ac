"""The page of cards: what a classifier rests on, or what a debiaser removes; ticks, and a button that saves them."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debias_ssae.audit.page import render
from debias_ssae.core.errors import optional_module
from debias_ssae.core.io import writable_directory, write_text
from debias_ssae.review.cards import FUNCTION, SMALL, TARGET, Card
from debias_ssae.selection.choices import CHOICES, Choices, check_nothing_lost
from debias_ssae.selection.naming import naming_words

if TYPE_CHECKING:
    from debias_ssae.review.discovery import Shortcuts

PAGE = "shortcuts.html"
_SMALL = "smaller cards, perhaps of the same themes"
_FOLDED = {
    _SMALL: f"Each has less than {SMALL:.0%} of the decision, and without it fewer than {SMALL:.0%} of the predictions "
    "change; together they may do much. Look for those that say the same as a card that you ticked.",
    TARGET: "Cards whose words belong to the classes' own names. The decision should rest on them.",
    FUNCTION: "Cards of articles, prepositions, auxiliaries and punctuation. They seldom mean anything by themselves.",
}


def write_shortcuts(shortcuts: "Shortcuts", directory: Path) -> tuple[Path, Path]:
    """Write the page, and beside it the choices with nothing of this round ticked; returns both paths.

    Raises MissingExtraError without jinja2, InputError where a file cannot be written.
    """
    writable_directory(directory)
    choices = shortcuts.choose([])
    check_nothing_lost(directory / CHOICES, choices)
    choices.save(directory / CHOICES)
    write_text(directory / PAGE, shortcuts_html(shortcuts, choices))
    return directory / PAGE, directory / CHOICES


def shortcuts_html(shortcuts: "Shortcuts", choices: Choices) -> str:
    """The page of one round as a string. Raises MissingExtraError without jinja2."""
    study, head = shortcuts.study, shortcuts.head
    kind = {
        "trained": "A logistic head trained on the target",
        "exact": "The classifier that was given",
        "distilled": f"A linear head that agrees with the given classifier on {head.fidelity:.1%} of the texts",
    }[head.kind]
    gone = shortcuts.choices.names
    return cards_html(
        shortcuts.cards,
        choices,
        eyebrow=f"Round {shortcuts.round}",
        lede=f"{kind} is right on {shortcuts.accuracy:.1%} of {len(study.read):,} texts that did not train it. "
        f"{len(shortcuts.cards)} cards, the largest share of the decision first, whatever its sign."
        + (f" Removed so far: {', '.join(gone)}." if gone else ""),
        verdict=shortcuts.verdict,
        provenance={
            "model": study.encoder.language_model.name,
            "texts": f"{len(study.texts):,}",
            "classes": ", ".join(study.classes),
            "SAE": ", ".join(f"{h} {sae.fingerprint()[:16]}" for h, sae in study.saes.items()),
        },
    )


def removed_html(cards: Sequence[Card], choices: Choices, file: str, provenance: Mapping[str, str]) -> str:
    """The page of a debiaser's latents as a string; ``file`` is the name of the choices beside it. Raises
    MissingExtraError without jinja2.
    """
    removed = sum(card.ticked for card in cards)
    return cards_html(
        cards,
        choices,
        removed=True,
        eyebrow="Debiaser",
        lede=f"{removed} latents are removed, ticked here; {len(cards) - removed} are the next candidates.",
        file=file,
        provenance=provenance,
    )


def cards_html(
    cards: Sequence[Card],
    choices: Choices,
    *,
    eyebrow: str,
    lede: str,
    verdict: str = "",
    file: str = CHOICES,
    removed: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """One self-contained HTML page, of what a debiaser removes or else of what a decision rests on.

    ``choices`` holds the cards' latents and those of earlier rounds, whose ticks stay as they are. Raises
    MissingExtraError without jinja2.
    """
    places = {(card.hookpoint, card.latents): i for i, card in enumerate(cards)}
    ticks = [
        places.get((hookpoint, choice.ids), choice.tick)
        for hookpoint, chosen in choices.cards.items()
        for choice in chosen
    ]
    numbered = list(zip(folds(cards), enumerate(cards), strict=True))
    groups = [
        {
            "title": kind.capitalize() or "Cards",
            "note": _FOLDED.get(kind, ""),
            "folded": bool(kind),
            "cards": [card for own, card in numbered if own == kind],
        }
        for kind in ("", _SMALL, TARGET, FUNCTION)
    ]
    context = {
        "title": "What the debiaser removes" if removed else "What the decision rests on",
        "removed": removed,
        "naming_words": naming_words,
        "eyebrow": eyebrow,
        "lede": lede,
        "verdict": verdict,
        "groups": [group for group in groups if group["cards"]],
        "pieces": json.dumps(choices.pieces(file)),
        "ticks": json.dumps(ticks),
        "file": file,
        "provenance": {**(provenance or {}), "debias-ssae": version("debias-ssae")},
    }
    return render("cards", context, package="debias_ssae.review")


def folds(cards: Sequence[Card]) -> list[str]:
    """The folded section of each card, "" where it is in sight. Where no card changes predictions by itself (the
    shortcuts stand in for each other), being small tells nothing, and none is folded for it.
    """
    tells = any(c.what_if is None or c.what_if.changed >= SMALL for c in cards if not c.kind)
    return [
        ""
        if card.stands_out
        else card.kind or (_SMALL if tells and card.is_small and not card.ticked else "")
        for card in cards
    ]


def plot_shares(cards: Sequence[Card], classes: Sequence[str]) -> Any:
    """A matplotlib figure of the cards' shares, coloured by class. Raises MissingExtraError without matplotlib."""
    figure = optional_module("matplotlib.figure", "report").Figure(
        figsize=(7, 0.6 + 0.32 * max(len(cards), 1)), layout="constrained"
    )
    axes = figure.subplots()
    for n, name in enumerate(classes):
        mine = [i for i, card in enumerate(cards) if card.toward == name]
        axes.barh(mine, [100 * cards[i].share for i in mine], color=f"C{n}", label=name)
    axes.set_yticks(range(len(cards)), [card.name for card in cards])
    axes.invert_yaxis()
    axes.set_xlabel("share of the decision in percent")
    axes.legend(title="goes with")
    return figure
