"""Draw docs/figure.svg: the worst group before and after, and three of the removed latents.

python benchmarks/readme_figure.py                          # from benchmarks/results
python benchmarks/readme_figure.py --cards --data FILE      # first reads the cards anew: two minutes of processor time

The bars are of the committed runs bias_in_bios.json and bias_in_bios_less.json. The cards are of one small fit of
SSAEDebiaser from words on texts of the same table, kept as cards.json: words and shares only, no text of anybody.
"""

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURE = ROOT / "docs" / "figure.svg"
BARS = (
    ("erm", "none", "classifier as it is"),
    ("ssae_default", "concept_he_she", "two words known: he, she"),
    ("ssae_default", "concept", "a list of words known"),
    ("oracle", "labelled", "balanced training data"),
)
"""Method, regime, what the figure calls it."""
COLOURS = {"erm": "#b3452c", "ssae_default": "#2b6ca3", "oracle": "#8a8a8a"}
CARDS = {"general": {"n_steps": 150}, "special": None, "selection": {"max_texts": 300, "most_latents": 64}}
"""Settings of the fit whose latents are shown; small, since the figure shows what a latent is and measures nothing."""
N_TEXTS = 1200
N_CARDS = 3
N_WORDS = 3
LEAST = 0.02
"""Of a word's share to be shown."""


def bars() -> list[dict[str, Any]]:
    """Worst-group accuracy of a retrained head with its interval, for each of BARS that a committed run holds."""
    from readme_table import read

    found = {}
    for name in ("bias_in_bios", "bias_in_bios_less"):
        if not (RESULTS / f"{name}.json").is_file():
            continue
        for row in read(name)["summary"]:
            if (row["head"], row["head_model"], row["C_rule"]) == ("retrained", "logistic", "cv"):
                found.setdefault((row["method"], row["regime"]), row)
    shown = [(method, title, found.get((method, regime))) for method, regime, title in BARS]
    key = "worst_group_accuracy"
    return [
        {"method": m, "title": t, "value": r[key], "low": r[f"{key}_ci_low"], "high": r[f"{key}_ci_high"]}
        for m, t, r in shown
        if r is not None
    ]


def read_cards(data: Path) -> list[dict[str, Any]]:
    """Fit a debiaser from words and return its first cards: the latents that carry most."""
    from debias_ssae import SSAEDebiaser
    from debias_ssae.review.removed import removed_cards
    from debias_ssae.text import load_table

    table = load_table(data, text="text", target="profession", sensitive="gender").sample(
        N_TEXTS, random_state=0
    )
    texts, y = table["text"].tolist(), table["profession"].to_numpy()
    debiaser = SSAEDebiaser("minilm", attribute="gender", n_latents=16, config=CARDS, random_state=0).fit(
        texts, y
    )
    cards = [c for c in removed_cards(debiaser, texts, y=y, n_more=0, max_texts=N_TEXTS) if c.ticked]
    return [
        {
            "name": card.name,
            "words": dict(list(card.words.items())[:N_WORDS]),
            "toward": card.toward,
            "firing_rate": card.firing_rate,
        }
        for card in cards[:N_CARDS]
    ]


def draw(rows: list[dict[str, Any]], cards: list[dict[str, Any]]) -> Any:
    """Return the figure: bars on the left, cards on the right."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "debias_ssae", "font.size": 10, "font.family": "sans-serif"})
    figure = Figure(figsize=(9.2, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    for i, row in enumerate(reversed(rows)):
        left.barh(i, row["value"], color=COLOURS[row["method"]], height=0.62)
        left.plot([row["low"], row["high"]], [i, i], color="black", linewidth=1)
        left.text(max(row["high"], row["value"]) + 0.02, i, f"{row['value']:.2f}", va="center")
    left.set_yticks(range(len(rows)), [row["title"] for row in reversed(rows)])
    left.set_xlim(0, 1.05)
    left.set_title("Accuracy of the worst group", loc="left", fontsize=10)
    for side in ("top", "right"):
        left.spines[side].set_visible(False)
    right.axis("off")
    right.set_title("Three of the removed latents", loc="left", fontsize=10)
    for i, card in enumerate(cards):
        at = 0.86 - i * 0.33
        goes = f"rises with {card['toward']}" if card["toward"] else "both values"
        right.text(0, at, f"{card['name']}", weight="bold", va="center")
        right.text(1, at, goes, ha="right", va="center", color="#555555")
        words = "   ".join(f"{word} {share:.0%}" for word, share in card["words"].items() if share >= LEAST)
        right.text(0, at - 0.13, words, va="center", color="#2b6ca3")
        right.plot([0, 1], [at - 0.22, at - 0.22], color="#dddddd", linewidth=1)
    right.set_xlim(0, 1)
    right.set_ylim(0, 1)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cards", action="store_true", help="read the cards anew; needs --data")
    parser.add_argument("--data", type=Path, help="table of Bias in Bios")
    given = parser.parse_args()
    kept = RESULTS / "cards.json"
    if given.cards:
        if not given.data:
            parser.error("--cards needs --data")
        cards = read_cards(given.data)
        kept.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    cards = json.loads(kept.read_text(encoding="utf-8"))
    draw(bars(), cards).savefig(FIGURE, metadata={"Date": None})
    print(FIGURE)


if __name__ == "__main__":
    main()
