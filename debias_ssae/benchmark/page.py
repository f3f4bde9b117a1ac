"""The page of a benchmark or demo run, from its results.json: headline, what was removed, one chart, one table."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from debias_ssae.audit.page import (
    Block,
    Cell,
    Figure,
    Series,
    Table,
    dot_plot,
    make_table,
    number_cell,
    render,
)
from debias_ssae.benchmark.summary import (
    COLUMNS,
    COMPARED,
    HEADS,
    WORST,
    comparison_rows,
    headline_lines,
    headline_numbers,
    interval_of,
)
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import write_text

SHOWN = 24
"""Methods in the chart, at most, those with the best head first."""
_NONE = Cell("–", "")
Row = Mapping[str, Any]


def write_benchmark_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """Write the HTML page of ``results`` (the content of results.json).

    Raises InputError when there is nothing to show, MissingExtraError without jinja2 and matplotlib.
    """
    rows: list[Row] = list(results.get("summary") or [])
    if not rows:
        raise InputError("the results hold no summary; nothing to report")
    quick, data = bool(results.get("quick")), dict(results.get("data") or {})
    seeds = sorted({run["seed"] for run in results.get("runs") or [] if "seed" in run})
    context = {
        "title": str(results.get("title") or "Debiasing benchmark"),
        "eyebrow": "Quick look, no measurement" if quick else "Benchmark report",
        "lede": _lede(data, rows, seeds),
        "headline": headline(results),
        "limits": (),
        "quick": quick,
        "blocks": [*_removed(results.get("runs") or []), _headline(rows), *_comparisons(results)],
        "skipped": _skipped(results.get("skipped") or []),
        "provenance": _provenance(results, data, seeds),
        "config": json.dumps(results.get("config") or {}, indent=2, default=str),
    }
    write_text(path, render("benchmark", context))
    return Path(path)


def headline(results: Mapping[str, Any]) -> str:
    """The worst group before and after, and what balanced data reach, in a sentence; empty where one is missing."""
    found: dict[str, list[Row]] = {}
    for (method, _), heads in headline_lines(results.get("summary") or []):
        if "retrained" in heads:
            found.setdefault(method, []).append(heads["retrained"])
    if not {"erm", "ssae_default", "oracle"} <= set(found):
        return ""

    def told(row: Row, *more: str) -> str:
        names = "; ".join(str(name) for name in (row.get("worst_group"), *more) if name)
        return f"{interval_of(row, WORST)[0]:.2f}" + (f" ({names})" if names else "")

    after = found["ssae_default"]
    reached = " and ".join(told(row, *([row["regime"]] if len(after) > 1 else [])) for row in after)
    return (
        "The accuracy of the worst group, the label and attribute that the classifier gets wrong most often, goes from"
        f" {told(found['erm'][0])} to {reached} with SSAEDebiaser; a classifier trained on balanced data reaches"
        f" {told(found['oracle'][0])}."
    )


def _removed(runs: Sequence[Row]) -> Iterator[Block]:
    """The names of the latents that the default removes, of the first seed."""
    found = {
        str(run["regime"]): run
        for run in reversed(runs)
        if run.get("method") == "ssae_default" and run.get("removed")
    }
    if found:
        text = [
            f"{regime}: {run['n_latents']} latents: {', '.join(run['removed'])}."
            for regime, run in found.items()
        ]
        yield Block("removed", "What was removed", text=text)


def _headline(rows: Sequence[Row]) -> Block:
    """One line a method and regime; the kinds of head beside each other."""

    def best(line: tuple[str, str, list[tuple[float, float, float]]]) -> float:
        return max((worst[0] for worst in line[2][: len(HEADS)] if not math.isnan(worst[0])), default=-1.0)

    lines = sorted(headline_numbers(rows), key=best, reverse=True)
    body = [
        [
            Cell(method, kind="warn" if "†" in method else ""),
            regime,
            *(_NONE if math.isnan(one[0]) else number_cell(*one) for one in numbers),
        ]
        for method, regime, numbers in lines
    ]
    drawn = lines[:SHOWN]
    by_head = zip(*(numbers[: len(HEADS)] for *_, numbers in drawn), strict=True)
    series = [
        Series(head, *map(list, zip(*worst, strict=True)))  # type: ignore[arg-type]
        for head, worst in zip(HEADS, by_head, strict=True)
        if not all(math.isnan(value) for value, *_ in worst)
    ]
    svg = dot_plot(
        [method if regime == "none" else f"{method}, {regime}" for method, regime, _ in drawn],
        series,
        title="Worst-group accuracy by method and head",
        x_label="worst-group accuracy",
        show_undefined=False,
    )
    caption = "Worst-group accuracy by method, with 95% intervals; best head first."
    note = "Intervals: 95%, for new texts and seeds."
    if any("†" in method for method, *_ in lines):
        note = f"† needs the attribute of each text when used; never ranked. {note}"
    table = make_table(
        "Worst-group accuracy by head, and what the retrained head has", COLUMNS, body, note=note
    )
    return Block("headline", "All methods", [Figure(svg, caption)], [table])


def _comparisons(results: Mapping[str, Any]) -> Iterator[Block]:
    """The debiaser minus each member of the family."""
    found = results.get("comparisons_of_default") or []
    body = []
    for one, cells in zip(found, comparison_rows(found), strict=True):
        method = Cell(str(one.get("of", "")), kind="warn" if one["ci_high"] < 0 else "")
        body.append([method, *cells[:3], *(Cell(text, text) for text in cells[3:])])
    if body:
        text = [
            "Same texts and seeds on both sides. The family was fixed before the first run; p after Holm over its "
            "members in a regime and head; the smallest detectable difference has 80% power at 0.05 before that."
        ]
        title = "Worst-group accuracy, ssae_default minus the other"
        table = make_table(title, ("method", *COMPARED), body, folded=True)
        yield Block("comparisons", "Paired differences", tables=[table], text=text)


def _skipped(notes: Sequence[Mapping[str, str]]) -> Table | None:
    if not notes:
        return None
    body = [[n["method"], n["regime"], Cell(n["reason"], wrap=True)] for n in notes]
    return make_table("What could not run", ("method", "regime", "why"), body)


def _lede(data: Mapping[str, Any], rows: Sequence[Row], seeds: Sequence[Any]) -> str:
    n = data.get("n")
    size = f"{n:,} texts" if isinstance(n, int) else "built-in data"
    methods = len({row.get("method") for row in rows})
    times = f", {len(seeds)} seed{'s' if len(seeds) != 1 else ''}" if seeds else ""
    return f"{data.get('path') or 'Synthetic biographies'}: {size}, {methods} methods{times}."


def _provenance(results: Mapping[str, Any], data: Mapping[str, Any], seeds: Sequence[Any]) -> dict[str, str]:
    facts = {"Data": data.get("path"), "Texts": data.get("n"), "SHA-256 of the data": data.get("sha256")}
    made = dict(results.get("made") or {})
    facts |= {"Corpus": data.get("corpus"), "Date": made.get("date"), "Command": made.get("command")}
    facts |= {"Device": made.get("device"), "Precision": made.get("dtype")}
    facts["Seeds"] = ", ".join(map(str, seeds))
    facts |= {f"Version of {name}": value for name, value in dict(results.get("versions") or {}).items()}
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
