"""The page on which a person reads the candidates: what each latent does, where it fires, whether it goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debias_ssae.audit.page import Cell, Column, Table, TableRow, number_cell, p_cell, render, write_text

if TYPE_CHECKING:
    from debias_ssae.review import Candidate

HOW = (
    "Effect: how much the latent's activation rises from the first value to the second, averaged over classes;"
    " minus where it rises with the first. In the concept regime it is the change at a word when that word alone is"
    " swapped.",
    "p: two-sided, corrected for the number of latents (Holm). In large data nearly everything differs: look at the"
    " effect first.",
    "Cos (cosines): between what the latent writes (its decoder row) and the direction of the attribute and of the"
    " target at this hookpoint. The attribute's is a logistic probe's where labels were given, else the mean"
    " difference between counterfactual pairs; the target's is a probe's and needs labels of the target. A latent"
    " with a large cosine to the target costs accuracy when it goes.",
    "Fires on: share of tokens on which it is active. Mean: its mean activation over texts.",
    "A name for a latent is a reading of its contexts, not a fact about it. Five contexts show where it is"
    " strongest, not everything it does.",
)


def write_latents_page(
    shown: Sequence["Candidate"],
    path: str | Path,
    *,
    choices: str = "latents.yaml",
    values: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the candidates as one self-contained HTML file; ``choices`` names the file to edit.

    Raises MissingExtraError without jinja2, OSError where the file cannot be written.
    """
    return write_text(latents_html(shown, choices=choices, values=values, provenance=provenance), path)


def latents_html(
    shown: Sequence["Candidate"],
    *,
    choices: str = "latents.yaml",
    values: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
) -> str:
    """The page as a string. Raises MissingExtraError without jinja2."""
    removed = sum(c.removed for c in shown)
    between = f" that tell {' from '.join(values)}" if len(values) == 2 else ""
    hookpoints = list(dict.fromkeys(c.hookpoint for c in shown))
    context = {
        "title": "Latents to review",
        "eyebrow": "Debiaser",
        "lede": f"{removed} latents{between} are removed; {len(shown) - removed} are the next candidates.",
        "steps": _steps(choices),
        "sections": [
            _section(i, h, [c for c in shown if c.hookpoint == h]) for i, h in enumerate(hookpoints)
        ],
        "how": HOW,
        "provenance": dict(provenance or {}),
    }
    return render("latents", context)


def _steps(choices: str) -> list[str]:
    return [
        "Read each card: does the latent stand for the attribute, or for something that the task needs?",
        f"In {choices}, set remove to false for what should stay and to true for what should go as well.",
        f"Run debias-ssae latents MODEL --review {choices} --data TABLE --out MODEL2: the model is cut anew,"
        " without training. TABLE holds the training texts, on which the output is centred again.",
    ]


def _section(index: int, hookpoint: str, shown: Sequence["Candidate"]) -> dict[str, Any]:
    groups = [
        ("Removed", [c for c in shown if c.removed]),
        ("Next candidates, not removed", [c for c in shown if not c.removed]),
    ]
    return {
        "id": f"part-{index}",
        "title": f"At {hookpoint}",
        "note": "Best first. The number behind # is the place by score among all latents of the autoencoder.",
        "table": _table(hookpoint, shown),
        "groups": [
            {"title": f"{title} ({len(part)})", "cards": [_card(index, c) for c in part]}
            for title, part in groups
            if part
        ],
    }


def _card(index: int, c: "Candidate") -> dict[str, Any]:
    facts = {"Rises with": c.toward or "neither", "Effect": _signed(c.effect)}
    facts["p"] = p_cell(c.p_value).text
    facts["Fires on"] = f"{c.firing_rate:.2%}"
    facts["Mean"] = f"{c.mass:.3g}"
    if c.attribute_cosine is not None:
        facts[f"Cos to {c.attribute_pole or 'attribute'}"] = _signed(c.attribute_cosine)
    if c.target_cosine is not None:
        facts["Cos target"] = _signed(c.target_cosine)
    return {
        "id": f"latent-{index}-{c.latent}",
        "title": f"#{c.rank} Latent {c.latent}",
        "removed": c.removed,
        "words": c.words,
        "facts": facts,
        "contexts": c.contexts,
    }


def _table(hookpoint: str, shown: Sequence["Candidate"]) -> Table:
    numeric = ("rank", "effect", "p", "fires on", "cosine, attribute", "cosine, target")
    names = ("latent", "state", "rises with", "words", *numeric)
    rows = [
        TableRow(
            [
                Cell(str(c.latent), c.latent),
                Cell("removed" if c.removed else "kept"),
                Cell(c.toward),
                Cell(" ".join(c.words), wrap=True),
                Cell(str(c.rank), c.rank),
                number_cell(c.effect),
                p_cell(c.p_value),
                Cell(f"{c.firing_rate:.2%}", f"{c.firing_rate:.9g}"),
                number_cell(c.attribute_cosine),
                number_cell(c.target_cosine),
            ]
        )
        for c in shown
    ]
    return Table(f"Candidates at {hookpoint}", [Column(name, name in numeric) for name in names], rows)


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"
