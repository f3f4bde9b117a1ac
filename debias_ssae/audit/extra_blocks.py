"""Blocks of the audit's page that are there only when asked for: leakage, flips, removed latents."""

from collections.abc import Mapping
from typing import Any

from debias_ssae.audit import AuditReport
from debias_ssae.audit.page import (
    Block,
    Card,
    Cell,
    Column,
    Figure,
    Table,
    TableRow,
    count_cell,
    number_cell,
    trusted,
)
from debias_ssae.audit.plotting import Series, dot_plot

_NAN = float("nan")


def extra_blocks(report: AuditReport) -> list[Block]:
    """The blocks of what ``report.extras`` holds."""
    blocks = []
    if report.extras.get("leakage"):
        found = leakage_by_attribute(report.extras["leakage"])
        blocks += [_leakage(i, name, one) for i, (name, one) in enumerate(found.items())]
    if report.extras.get("flips"):
        blocks += _flips(report.extras["flips"])
    if report.extras.get("latents"):
        blocks.append(_latents(report.extras["latents"]))
    return blocks


def leakage_by_attribute(found: Mapping[str, Any]) -> dict[str, Any]:
    """One probed attribute has no name, several have theirs."""
    return {"": found} if "results" in found else dict(found)


def _leakage(number: int, attribute: str, found: Mapping[str, Any]) -> Block:
    rows = found["results"]
    labels = [f"{r['probe']}{', given the label' if r['given_y'] else ''}" for r in rows]
    probe = Series("probe", *([r[k] for r in rows] for k in ("balanced_accuracy", "ci_low", "ci_high")))
    nothing = [_NAN] * len(rows)
    control = Series("shuffled control", [r["shuffled"] for r in rows], nothing, nothing)
    chance = rows[0]["chance"]
    svg = dot_plot(labels, [probe, control], title="Leakage", x_label="balanced accuracy", reference=chance)
    caption = f"What probes read of the attribute; the dashed line is chance ({chance:.2f})."
    names = ("probe", "given the label", "balanced accuracy", "shuffled control", "rows")
    table = Table(
        "Probes",
        [Column(n, n in names[2:]) for n in names],
        [
            TableRow(
                [
                    Cell(r["probe"]),
                    Cell("yes" if r["given_y"] else "no"),
                    number_cell(r["balanced_accuracy"], r["ci_low"], r["ci_high"]),
                    number_cell(r["shuffled"]),
                    count_cell(r["n"]),
                ]
            )
            for r in rows
        ],
    )
    text = [*found["claims"]]
    if found.get("code"):
        code = found["code"]
        text.append(
            f"Online code of the attribute: {code['bits']:,.0f} bits with a linear probe,"
            f" {code['shuffled_bits']:,.0f} when"
            f" the attribute is shuffled, {code['uniform_bits']:,.0f} without any model"
            f" (compression {code['compression']:.2f})."
        )
    if found.get("skipped"):
        text.append(f"Too few rows to probe given the label: {', '.join(found['skipped'])}.")
    title = f"What the representations still tell{f' of {attribute}' if attribute else ''}"
    place = f"leakage-{number}" if number else "leakage"
    return Block(place, title, [Figure(trusted(svg), caption)], [table], text)


def _flips(flips: Mapping[str, Any]) -> list[Block]:
    models = {"": flips} if "rate" in flips else dict(flips)
    return [_flip_block(i, name, found) for i, (name, found) in enumerate(models.items())]


def _flip_block(index: int, name: str, found: Mapping[str, Any]) -> Block:
    rows = [
        TableRow(
            [Cell(r["prediction"]), count_cell(r["n"]), count_cell(r["flipped"]), number_cell(r["rate"])]
        )
        for r in found["by_prediction"]
    ]
    names = ("prediction on the text", "texts", "flipped", "share")
    table = Table(
        f"Flips by prediction{f', {name}' if name else ''}", [Column(n, n != names[0]) for n in names], rows
    )
    text = [
        f"Of {found['n_texts']:,} texts, {found['n_with_counterfactual']:,} hold a word of the concept. Swapping"
        " those words, and"
        f" nothing else, changes {found['n_flipped']:,} predictions ({100 * found['rate']:.1f}%)."
    ]
    if not found["examples"]:
        text.append("Texts are not shown; ask for them to see the worst examples.")
    cards = [
        Card(
            f"Example {i}",
            {"Prediction": e["prediction"], "On the counterfactual": e["counterfactual_prediction"]},
            [e["text"], e["counterfactual"]],
        )
        for i, e in enumerate(found["examples"], 1)
    ]
    title = f"Counterfactual flips{f': {name}' if name else ''}"
    return Block(f"flips-{index + 1}", title, tables=[table], text=text, cards=cards)


def _latents(cards: list[Mapping[str, Any]]) -> Block:
    shown = []
    for card in cards:
        facts = {"Rises with": card["toward"] or "neither value"}
        for key, name, form in (
            ("effect", "Effect", "{:+.3f}"),
            ("firing_rate", "Fires on", "{:.2%} of tokens"),
            ("p_value", "p, corrected", "{:.2g}"),
            ("stability", "Stability over seeds", "{:.2f}"),
        ):
            if card.get(key) is not None:
                facts[name] = form.format(card[key])
        shown.append(Card(f"Latent {card['latent']}", facts, card["contexts"]))
    text = [
        f"{len(cards)} of the removed latents, strongest first. A name for a latent is a reading of its"
        " contexts, not a"
        " fact about it."
    ]
    return Block("latents", "Which latents were removed", text=text, cards=shown)
