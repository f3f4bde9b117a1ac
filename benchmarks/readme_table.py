"""Write the benchmark's tables into README.md and docs/results.md, from benchmarks/results/NAME.json.

python benchmarks/readme_table.py                             # rewrites both pages between their marks
python benchmarks/readme_table.py bias_in_bios results.json   # first keeps this run as results/bias_in_bios.json

The run: debias-ssae benchmark bias-in-bios --data FILE --corpus FILE --attribute-data FILE --out DIR --methods main \
    --regime labelled,labelled_gap,concept,concept_he_she --jobs 2
Of its rows, the committed file keeps what the tables and the comparisons need; predictions stay outside.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from debias_ssae.benchmark.summary import COLUMNS, comparison_rows, headline_lines, headline_rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "results.md"
MARKS = {
    README: re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.S),
    PAGE: re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.S),
}
TITLES = {
    "bias_in_bios": "Biographies: surgeon against nurse; the head learns from male surgeons and female nurses only",
    "reviews": "Reviews: positive against negative; the head learns from positive ones of DVDs and negative ones of "
    "electronics only",
    "wiki_bios": "Biographies of Wikipedia: athlete against politician; the head learns from female athletes and male "
    "politicians only",
}
"""Runs that have a section of docs/results.md, where they are kept."""
TOLD = {
    "none": "nothing",
    "concept_he_she": "*he* and *she*",
    "concept_pronouns": "the pronouns",
    "concept": "a list of words",
    "labelled": "gender of {n} balanced texts, with their classes",
    "labelled_gap": "gender of other texts",
    "labelled_head": "gender of the head's texts",
    "labelled_all": "gender and class of all texts but the test's",
}
SHORT = ("erm", "scrub", "counterfactual_subspace", "leace", "mean_diff", "ssae_default", "oracle")
"""README's rows, fixed before the run: simpler tools, the debiaser, and what balanced data would give."""
SHORT_TOLD = ("concept_he_she", "concept", "labelled_gap", "labelled")
"""README's columns: what is told of the attribute."""


def readme() -> str:
    """README's table: worst-group accuracy of both heads by what is told of the attribute."""
    results = read("bias_in_bios")
    lines = dict(headline_lines(results["summary"]))
    body = [
        f"| | {' | '.join(_told(regime, results) for regime in SHORT_TOLD)} |",
        "|---" * (len(SHORT_TOLD) + 1) + "|",
    ]
    for method in SHORT:
        cells = [_heads(lines.get((method, "none")) or lines.get((method, told))) for told in SHORT_TOLD]
        body.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(body) + "\n"


def _heads(heads: dict | None) -> str:
    """Accuracies of a retrained and a frozen head; a dash where there is none."""
    if heads is None:
        return "–"
    values = [heads[head]["worst_group_accuracy"] for head in ("retrained", "frozen") if heads.get(head)]
    return " / ".join(f"{value:.2f}" for value in values)


def page() -> str:
    """The sections of docs/results.md, one for each run that is kept."""
    kept = [name for name in TITLES if (RESULTS / f"{name}.json").exists()]
    return "\n".join(line for name in kept for line in section(name, read(name)))


def section(name: str, results: dict) -> Iterator[str]:
    """Every method by what it was told, the comparisons, and what made them."""
    config, data = results["config"], results["data"]
    seeds = max(row["n_seeds"] for row in results["summary"])
    yield from (f"## {TITLES[name]}", "")
    yield fill(
        f"{data['n']:,} texts, {config['n_test']} of each group for the test, {seeds} seeds of the whole pipeline, "
        f"{config['encoder']}. Worst-group accuracy with 95% intervals (bootstrap clustered by text, plus the variance "
        "between seeds); balanced accuracy, leakage given y and share of the gap from erm to oracle closed are of the "
        "retrained head. A *frozen* head was trained before the edit; *re-centred*: the output shifted so that the "
        "training mean stays where it was. † needs the attribute when used and is never ranked.",
        120,
    )
    rows = sorted(headline_rows(results["summary"]), key=_first_number, reverse=True)
    shown = [column for column in COLUMNS if column != "regime"]
    for regime in TOLD:
        some = [[f"`{method}`", *cells] for method, told, *cells in rows if told == regime]
        if some:
            yield from ("", f"**Supervision: {_told(regime, results)}**", "", f"| {' | '.join(shown)} |")
            yield "|" + "---|" * len(shown)
            yield from (f"| {' | '.join(cells)} |" for cells in some)
    records = results["comparisons_of_default"]
    if records:
        yield from ("", "`ssae_default` minus the other, worst-group accuracy, p after Holm:", "")
        yield "| supervision | head | against | difference | p | smallest detectable |"
        yield "|---|---|---|---|---|---|"
        for head, regime, other, difference, p, smallest in comparison_rows(records):
            yield f"| {_told(regime, results)} | {head} | {other} | {difference} | {p} | {smallest} |"
    yield from ("", fill(_source(results), 120, break_long_words=False, break_on_hyphens=False), "")


def _told(regime: str, results: dict) -> str:
    groups = len(results["summary"][0]["cells"])
    return TOLD[regime].format(n=groups * results["config"]["n_attribute"])


def _first_number(line: list[str]) -> float:
    return next((float(cell.split()[0]) for cell in line[2:5] if cell[0].isdigit()), 0.0)


def _source(results: dict) -> str:
    data, versions, made = results["data"], results["versions"], results["made"]
    took = f" in {made['seconds'] / 60:.0f} minutes" if made["seconds"] else ""
    spent = f" ({made['processor_seconds'] / 60:.0f} of processor time, {made['device']}, {made['dtype']})"
    return (
        f"Made on {made['date']}{took}{spent} by `{made['command']}`; data SHA-256 `{data['sha256'][:16]}`, "
        f"debias-ssae {versions['debias-ssae']}, torch {versions['torch']}, scikit-learn {versions['scikit-learn']}."
    )


def rounded(value: object) -> object:
    """The same with five digits behind the point."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value


def write(name: str, results: dict) -> None:
    """Keep the run without its single runs; a line a row of the summary, whose column names stand once."""
    kept = {key: value for key, value in results.items() if key != "runs"}
    names = list(dict.fromkeys(name for row in kept["summary"] for name in row))
    rows = [[rounded(row.get(name)) for name in names] for row in kept["summary"]]
    head = json.dumps(rounded({**kept, "summary": {"columns": names}}), indent=1, ensure_ascii=False)[
        : -len("\n}")
    ]
    body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (RESULTS / f"{name}.json").write_text(f'{head},\n "summary_rows": [\n{body}\n ]\n}}\n', encoding="utf-8")


def read(name: str) -> dict:
    """What ``write`` kept, in the form of results.json without ``runs``. Raises ValueError for a quick look."""
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if kept.get("quick"):
        raise ValueError("these results are a quick look; the pages take a full run")
    names, rows = kept["summary"]["columns"], kept.pop("summary_rows")
    return {**kept, "summary": [dict(zip(names, row, strict=True)) for row in rows]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    for file, made in ((README, readme()), (PAGE, page())):
        text = file.read_text(encoding="utf-8")
        file.write_text(MARKS[file].sub(lambda m, made=made: m[1] + made + m[2], text), encoding="utf-8")
