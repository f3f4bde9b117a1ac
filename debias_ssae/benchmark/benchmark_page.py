"""The page of a benchmark or demo run, from its results.json."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from debias_ssae.audit.page import (
    Block,
    Cell,
    Column,
    Table,
    TableRow,
    number_cell,
    render,
    write_text,
)
from debias_ssae.benchmark.benchmark_blocks import (
    comparison_blocks,
    curve_blocks,
    grid_blocks,
    headline_blocks,
    paper_blocks,
    sum_blocks,
)
from debias_ssae.benchmark.comparisons import head_kind
from debias_ssae.core.errors import InputError

METRICS = (
    "worst_group_accuracy",
    "accuracy",
    "balanced_accuracy",
    "gap_closed",
    "attribute_accuracy",
    "leakage",
    "leakage_given_y",
    "leakage_mlp",
    "leakage_mlp_given_y",
    "flips",
    "flips_unlisted",
    "tpr_gap_rms",
    "demographic_parity_difference",
    "equalized_odds_difference",
    "seconds_fit",
    "seconds_transform",
)
_NAN = float("nan")
_LIMITS = (
    "Worst-group accuracy is the lowest accuracy over the cells label x attribute. It says nothing about"
    " groups that are"
    " not in the data.",
    "The attribute (in Bias in Bios, a gender taken from the pronouns of the text) is a proxy with two"
    " values. It is not"
    " a person's identity, and equal numbers for two groups can hide harm to people in neither.",
    "Attribute accuracy and leakage are what the probes used here reached. A probe that fails does not"
    " show that the"
    " attribute is gone.",
    "Intervals cover new test texts and new seeds of the same data set, not other data sets or other"
    " attributes.",
)


def report_directory(directory: str | Path) -> Path:
    """Write report.html from what a directory holds of results.json, curves.json and grid.json.

    Raises InputError where it holds none, MissingExtraError without jinja2 and matplotlib.
    """
    directory = Path(directory)
    found = {}
    for name in ("results", "curves", "grid"):
        file = directory / f"{name}.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    if not found:
        raise InputError(f"{directory} holds no results.json, curves.json or grid.json; nothing to report")
    results = found.get("results") or {**next(iter(found.values())), "summary": [], "runs": []}
    return write_benchmark_report(
        results, directory / "report.html", curves=found.get("curves"), grid=found.get("grid")
    )


def write_benchmark_report(
    results: Mapping[str, Any],
    path: str | Path,
    *,
    curves: Mapping[str, Any] | None = None,
    grid: Mapping[str, Any] | None = None,
) -> Path:
    """Write the HTML page of ``results``, ``curves`` and ``grid`` (the content of their JSON files).

    Raises InputError when there is nothing to show, MissingExtraError without jinja2 and matplotlib.
    """
    rows = list(results.get("summary") or _summarised(results.get("runs") or []))
    quick = any((one or {}).get("quick") for one in (results, curves, grid))
    if not rows and not curves and not grid:
        raise InputError("results hold no summary and no runs; nothing to report")
    data = dict(results.get("data") or {})
    seeds = sorted({run["seed"] for run in results.get("runs") or [] if "seed" in run})
    first = [
        *headline_blocks(rows),
        *comparison_blocks(results.get("comparisons") or [], results.get("comparisons_of_default") or []),
        *sum_blocks(results.get("sums") or []),
        *curve_blocks((curves or {}).get("curves") or []),
        *grid_blocks(grid or {}),
        *paper_blocks(rows),
    ]
    context = {
        "title": str(results.get("title") or "Debiasing benchmark"),
        "eyebrow": "Quick look, no measurement" if quick else "Benchmark report",
        "lede": _lede(data, rows, seeds),
        "limits": [*([_QUICK] if quick else []), *_LIMITS],
        "verdict": _verdict(rows) if rows else [],
        "blocks": first,
        "details": [_block(title, members) for title, members in _blocks_of(rows)],
        "skipped": _skipped(results.get("skipped") or []),
        "provenance": _provenance(results, data, seeds),
        "config": json.dumps(results.get("config") or {}, indent=2, default=str),
    }
    return write_text(render("benchmark", context), path)


_QUICK = (
    "This is a quick look: few texts and seeds, a small SAE, a sample of the corpus. It shows the shape of the"
    " result; its numbers are no measurement."
)


def value_of(row: Mapping[str, Any], metric: str) -> tuple[float, float, float]:
    """``mean, low, high`` of a metric in a summary row: nested, flat with suffixes, or a bare number; NaN if
    absent.
    """
    found = row.get(metric)
    if isinstance(found, Mapping):
        parts = [found.get(k) for k in ("mean", "ci_low", "ci_high")]
    else:
        mean = row.get(f"{metric}_mean", found)
        parts = [mean, row.get(f"{metric}_ci_low"), row.get(f"{metric}_ci_high")]
    value, low, high = (_NAN if p is None else float(p) for p in parts)
    return value, low, high


def _summarised(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, without intervals, when results came without a summary."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run.get(k) for k in _KEYS), []).append(run)
    rows = []
    for key, members in groups.items():
        row = dict(zip(_KEYS, key, strict=True))
        for metric in METRICS:
            values = [float(m[metric]) for m in members if m.get(metric) is not None]
            row[metric] = sum(values) / len(values) if values else None
        rows.append(row)
    return rows


_KEYS = (
    "setting",
    "representation",
    "head",
    "head_model",
    "C_rule",
    "method",
    "regime",
    "n_latents",
    "d_sae",
)
_BLOCK_KEYS = ("setting", "representation", "head", "head_model", "C_rule")


def _block(title: str, rows: list[Mapping[str, Any]]) -> Block:
    """Every metric of the rows that were evaluated alike."""
    rows = sorted(rows, key=lambda r: -_or(value_of(r, METRICS[0])[0], -1.0))
    names = [_method(r, rows) for r in rows]
    tables = [_table(rows, names, title)]
    if any(row.get("cells") for row in rows):
        tables.append(_cells(rows, names))
    return Block("", title, [], tables)


def _cells(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Size and accuracy of each cell."""
    cells = list(dict.fromkeys(cell for row in rows for cell in row.get("cells") or {}))
    sizes = {
        cell: next(r["cells"][cell]["n"] for r in rows if cell in (r.get("cells") or {})) for cell in cells
    }
    columns = [Column("method"), *(Column(f"{cell} (n={sizes[cell]:g})", True) for cell in cells)]
    body = []
    for row, name in zip(rows, names, strict=True):
        found = [(row.get("cells") or {}).get(cell) for cell in cells]
        body.append(TableRow([Cell(name), *(number_cell(c["accuracy"] if c else None) for c in found)]))
    return Table("Accuracy in each cell (test texts a seed)", columns, body)


def _skipped(notes: Sequence[Mapping[str, str]]) -> Table | None:
    if not notes:
        return None
    body = [TableRow([Cell(n["method"]), Cell(n["regime"]), Cell(n["reason"], wrap=True)]) for n in notes]
    return Table("What could not run", [Column("method"), Column("regime"), Column("why")], body)


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> Table:
    metrics = [m for m in METRICS if any(not math.isnan(value_of(r, m)[0]) for r in rows)]
    facts = [
        k for k in ("regime", "n_latents", "C", "n_parameters") if any(r.get(k) is not None for r in rows)
    ]
    columns = [Column("method"), *(Column(k.replace("_", " "), k != "regime") for k in facts)]
    columns += [Column(m.replace("_", " "), True) for m in metrics]
    body = []
    for row, name in zip(rows, names, strict=True):
        cells = [Cell(name), *(_fact(row.get(k)) for k in facts)]
        body.append(TableRow([*cells, *(number_cell(*value_of(row, m)) for m in metrics)]))
    return Table(f"Methods: {title}", columns, body)


def _fact(value: Any) -> Cell:
    if isinstance(value, Mapping):
        value = value.get("mean")
    if value is None:
        return Cell("–", "")
    return Cell(f"{value:g}", f"{value:.9g}") if isinstance(value, int | float) else Cell(str(value))


_RULES = {
    "cv": "C cross-validated",
    "fixed": "C fixed",
    "group": "C by group labels of A",
    "own": "set by the method",
}


def _evaluation(key: tuple[Any, ...]) -> str:
    setting, representation, head, head_model, rule = key
    parts = [
        f"{setting} setting" if setting else "",
        f"{representation} representation" if representation else "",
    ]
    parts += [f"{head} head" if head else "", str(head_model or "")]
    parts += [_RULES.get(str(rule), "")]
    title = ", ".join(p for p in parts if p) or "results"
    return title[0].upper() + title[1:]


def _method(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The method's name, with what sets it apart from its namesakes in the same block."""
    name = str(row.get("method", "?"))
    same = [r for r in rows if r.get("method") == row.get("method")]
    for fact in ("regime", "n_latents", "d_sae"):
        value = row.get(fact)
        if len({str(r.get(fact)) for r in same}) > 1 and value is not None:
            value = value.get("mean") if isinstance(value, Mapping) else value
            name += f" {value:g} latents" if fact == "n_latents" else f" {fact.replace('_', ' ')} {value}"
    return name.replace(" regime ", " ")


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _lede(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], seeds: Sequence[Any]) -> str:
    n = data.get("n")
    size = f"{n:,} rows" if isinstance(n, int) else "built-in data"
    methods = len({r.get("method") for r in rows})
    times = f", {len(seeds)} seed{'s' if len(seeds) != 1 else ''}" if seeds else ""
    compared = f", {methods} methods{times}" if methods else ""  # of curves or the grid alone there are none
    return f"{data.get('path') or 'Synthetic biographies'}: {size}{compared}."


def _verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """erm and oracle, then a line for the debiaser with each kind of head, and one for what reads higher.

    The debiaser is ssae_default where that was run, else ssae.
    """
    name = "ssae_default" if any(r.get("method") == "ssae_default" for r in rows) else "ssae"
    # a method with a head of its own stands beside the ordinary ones
    plain: list[Mapping[str, Any]] = [
        {**r, "C_rule": "cv"}
        for r in rows
        if r.get("head_model") == "logistic" and r.get("C_rule") in ("cv", "own")
    ] or list(rows)
    ends = {
        str(r.get("method")): value_of(r, METRICS[0]) for r in plain if r.get("method") in ("erm", "oracle")
    }
    between = "; ".join(f"{end} {_said(*ends[end])}" for end in ("erm", "oracle") if end in ends)
    lines = [f"Without debiasing, and with balanced training data: {between}."] if between else []
    for title, members in _blocks_of(plain):
        ours = [r for r in members if r.get("method") == name]
        ours = [r for r in ours if r.get("regime") in ("concept", "labelled")] or ours
        if ours:
            title = _head_title(ours[0]) or title
            said = "; ".join(f"{_method(r, members)} {_said(*value_of(r, METRICS[0]))}" for r in ours)
            lines.append(f"{title}: worst-group accuracy of {said}.")
        best = max((value_of(r, METRICS[0])[0] for r in ours), default=_NAN)
        higher = sorted(
            {
                str(r.get("method"))
                for r in members
                if value_of(r, METRICS[0])[0] > best
                and r.get("rank", 0) is not None
                and r.get("method") not in ("oracle", name)
            }
        )
        if higher:
            lines.append(f"{title}: {', '.join(higher)} read{'s' * (len(higher) == 1)} higher than {name}.")
    if not any(r.get("method") == name for r in rows):
        lines.append("No row of the method ssae is in these results; see the tables.")
    return lines


def _head_title(row: Mapping[str, Any]) -> str:
    """ "Frozen, re-centred head" and the like; nothing where the row does not say."""
    return f"{head_kind(row).capitalize()} head" if row.get("head") else ""


def _blocks_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(k) for k in _BLOCK_KEYS), []).append(row)
    return [(_evaluation(key), members) for key, members in groups.items()]


def _said(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _provenance(results: Mapping[str, Any], data: Mapping[str, Any], seeds: Sequence[Any]) -> dict[str, str]:
    facts = {"Data": data.get("path"), "Rows": data.get("n"), "SHA-256 of the data": data.get("sha256")}
    made = dict(results.get("made") or {})
    facts |= {"Corpus": data.get("corpus"), "Date": made.get("date"), "Command": made.get("command")}
    facts |= {"Device": made.get("device"), "Precision": made.get("dtype")}
    facts["Seeds"] = ", ".join(map(str, seeds))
    facts |= {f"Version of {name}": value for name, value in dict(results.get("versions") or {}).items()}
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
