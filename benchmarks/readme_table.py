"""Write the benchmark's tables into README.md and docs, from benchmarks/results/NAME.json.

python benchmarks/readme_table.py                           # rewrites each page between its two results marks
python benchmarks/readme_table.py reviews results.json      # first keeps this run as benchmarks/results/reviews.json

Of the run's rows, the committed file keeps what the table and the comparisons need; predictions stay outside.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from debias_ssae.benchmark.tables import COLUMNS, comparison_rows, headline_rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = {
    "bias_in_bios": "README.md",
    "bias_in_bios_less": "docs/bias_in_bios.md",
    "natural": "docs/natural.md",
    "reviews": "docs/reviews.md",
    "wiki_bios": "docs/wiki_bios.md",
    "wiki_bios_six": "docs/wiki_bios_six.md",
}
INTRO = {
    "bias_in_bios": "real biographies, surgeon against nurse; the head learns from male surgeons and female nurses "
    "only",
    "natural": "real biographies, surgeon against nurse; the head learns from a plain sample, with the correlation "
    "that the data has,",
    "reviews": "reviews, positive against negative; the head learns from positive ones of DVDs and negative ones of "
    "electronics only",
    "wiki_bios": "biographies of Wikipedia, athlete against politician; the head learns from male politicians and "
    "female athletes only",
    "wiki_bios_six": "biographies of Wikipedia, six occupations; the head learns from one sex of each only "
    "(women of academics, athletes and musicians, men of politicians, royalty and writers)",
}
INTRO["bias_in_bios_less"] = INTRO["bias_in_bios"]
MARKS = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.S)
SHOWN = tuple(name for name in COLUMNS if name != "regime")
CONTROLS = ("erm", "majority", "oracle", "oracle_large", "random_latents", "reconstruct_only")
SECTIONS = {
    "controls": "Ends and controls",
    "concept": "Told a list of words",
    "concept_pronouns": "Told the pronouns only",
    "concept_he_she": "Told *he* and *she* only",
    "labelled": "Told the attribute of {n} balanced texts with their classes",
    "labelled_gap": "Told the attribute of other texts, which have no class",
    "labelled_head": "Told the attribute of the head's own texts",
    "none": "Told nothing of the attribute",
}
"""A table for each: like is to be compared with like."""
COMPARED = (
    ("ssae", "concept", "comparisons"),
    ("ssae_default", "concept", "comparisons_of_default"),
    ("ssae_default", "concept_pronouns", "comparisons_of_default"),
    ("ssae_default", "concept_he_she", "comparisons_of_default"),
    ("ssae_default", "labelled", "comparisons_of_default"),
    ("ssae_default", "labelled_gap", "comparisons_of_default"),
)
"""Shown where the run has that regime."""


def table(name: str) -> str:
    """Return the tables of a kept run as markdown, with what they were made from.

    Raises ValueError for a quick look, whose numbers are no measurement.
    """
    results = read(name)
    if results.get("quick"):
        raise ValueError("these results are a quick look; the pages take a full run")
    config, data = results["config"], results["data"]
    n_seeds = max(row["n_seeds"] for row in results["summary"])
    n_groups = len(results["summary"][0]["cells"])
    before = (
        f"{data['n']:,} {INTRO[name]} and is tested on all {n_groups} groups, {config['n_test']} texts each. {n_seeds} "
        f"seeds of the whole pipeline, {config['encoder']}, logistic regression, C by 5-fold average accuracy on its "
        "own data. Worst-group accuracy with each head, mean and 95% interval (bootstrap clustered by text, plus the "
        "variance between seeds); balanced accuracy, leakage (linear probe given y, 0.5 is none) and share of the gap "
        "from erm to oracle closed are of the retrained head:"
    )
    lines = [fill(before, 120)]
    for title, rows in sections(results["summary"]):
        lines += [
            "",
            f"**{title.format(n=n_groups * config['n_attribute'])}**",
            "",
            f"| {' | '.join(SHOWN)} |",
            "|" + "---|" * len(SHOWN),
        ]
        lines += [f"| {' | '.join(cells)} |" for cells in rows]
    lines += ["", fill(AFTER[name], 120), ""]
    lines += [line for of, regime, key in COMPARED for line in compared(results.get(key, ()), of, regime)]
    if name == "reviews":
        lines += [*sums(results["sums"]), ""]
    return (
        "\n".join([*lines, fill(_source(results, name), 120, break_long_words=False, break_on_hyphens=False)])
        + "\n"
    )


def compared(records: list[dict], of: str, regime: str) -> list[str]:
    """The table of one method against the family fixed beforehand, in one regime."""
    shown = [one for one in records if one["regime"] == regime]
    if not shown:
        return []
    lines = [f"`{of}` ({regime}) minus the other, worst-group accuracy, p after Holm:", ""]
    lines += ["| head | against | difference | p | smallest detectable |", "|---|---|---|---|---|"]
    for head, _, other, difference, p, _, smallest in comparison_rows(shown):
        lines.append(f"| {head} | {other} | {difference} | {p} | {smallest} |")
    return [*lines, ""]


def sums(records: list[dict]) -> list[str]:
    """The table of what each linear eraser gains from an SAE before it; retrained heads."""
    shown = [one for one in records if one["head"] == "retrained"]
    lines = ["| retrained head | minus | difference | p | smallest detectable |", "|---|---|---|---|---|"]
    for one, (_, _, other, difference, p, _, smallest) in zip(shown, comparison_rows(shown), strict=True):
        lines.append(f"| {one['of']} | {other} | {difference} | {p} | {smallest} |")
    return ["With the SAE and without, worst-group accuracy, p after Holm over all heads:", "", *lines]


def sections(summary: list[dict]) -> Iterator[tuple[str, list[list[str]]]]:
    """Each section's title and lines, best retrained head first."""
    lines = sorted(headline_rows(summary), key=_first_number, reverse=True)
    for regime, title in SECTIONS.items():
        rows = [[name, *cells] for name, told, *cells in lines if _section(name, told) == regime]
        if rows:
            yield title, rows


def _section(method: str, regime: str) -> str:
    return "controls" if method in CONTROLS else regime


def _first_number(line: list[str]) -> float:
    return next((float(cell.split()[0]) for cell in line[2:5] if cell[0].isdigit()), 0.0)


_HEADS = (
    "A *frozen* head was trained before the edit; *re-centred*: the output shifted so that the training mean stays "
    "where it was. `ssae` is the edit alone, 150 latents; `ssae_mean_diff` and `ssae_counterfactual` also take out the "
    "attribute's direction in the plain model, as `SSAEDebiaser` does by default"
)
AFTER = {
    "bias_in_bios": f"{_HEADS} (`ssae_default`, with as many latents as its rule finds); `counterfactual_direction` is "
    "the latter direction without the edit. `oracle` is trained on the 480 balanced texts, `oracle_large` on all but "
    "the test's with equal weight for each group. † needs the attribute when used and is never ranked. What each "
    "method is: [docs/benchmark.md](docs/benchmark.md#methods).",
    "reviews": f"{_HEADS}; `ssae_keep` keeps 32 latents of the target at the output and nothing else; `_NAME` has that "
    "linear eraser behind it. What each method is: [benchmark.md](benchmark.md#methods).",
    "natural": f"{_HEADS} (`ssae_default`, with as many latents as its rule finds). † needs the attribute when used "
    "and is never ranked. What each method is: [benchmark.md](benchmark.md#methods).",
    "wiki_bios": f"{_HEADS} (`ssae_default`, with as many latents as its rule finds). What each method is: "
    "[benchmark.md](benchmark.md#methods).",
}
AFTER["wiki_bios_six"] = AFTER["wiki_bios"]
AFTER["bias_in_bios_less"] = AFTER["bias_in_bios"].replace("docs/benchmark.md", "benchmark.md")


def _source(results: dict, name: str) -> str:
    data, versions, made = results["data"], results["versions"], results["made"]
    up = "../" * PAGES[name].count("/")
    took = f" in {made['seconds'] / 60:.0f} minutes" if made["seconds"] else ""
    spent = made.get("processor_seconds")
    how = f" ({spent / 60:.0f} of processor time, {made['device']}, {made['dtype']})" if spent else ""
    return (
        f"Made on {made['date']}{took}{how} by `{made['command']}`; data SHA-256 "
        f"`{data['sha256'][:16]}`, debias-ssae {versions['debias-ssae']}, torch {versions['torch']}, scikit-learn "
        f"{versions['scikit-learn']}; kept in [benchmarks/results]({up}benchmarks/results)."
    )


def rounded(value: object) -> object:
    """The same with five digits behind the point."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value


def compact(results: dict) -> dict:
    """The run without its single runs, and without the digits that nobody reads."""
    kept = {key: value for key, value in results.items() if key != "runs"}
    names = list(dict.fromkeys(name for row in kept["summary"] for name in row))
    rows = [[row.get(name) for name in names] for row in kept["summary"]]
    return rounded({**kept, "summary": {"columns": names, "rows": rows}})  # type: ignore[return-value]


def write(name: str, results: dict) -> None:
    """Keep the run; a line a row of the summary, whose column names stand once."""
    made = compact(results)
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in made["summary"].pop("rows"))
    head = json.dumps(made, indent=1, ensure_ascii=False)[: -len("\n}")]
    (RESULTS / f"{name}.json").write_text(f'{head},\n "summary_rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")


def read(name: str) -> dict:
    """What ``write`` kept, in the form of results.json without ``runs``."""
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    names, rows = kept["summary"]["columns"], kept.pop("summary_rows")
    return {**kept, "summary": [dict(zip(names, row, strict=True)) for row in rows]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    for name, page in PAGES.items():
        text, file = table(name), ROOT / page
        file.write_text(
            MARKS.sub(lambda m, text=text: m[1] + text + m[2], file.read_text(encoding="utf-8")),
            encoding="utf-8",
        )
        print(text)
