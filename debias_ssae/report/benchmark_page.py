"""The page of a benchmark or demo run, from its results.json."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from debias_ssae.exceptions import InputError
from debias_ssae.plotting import Point, Series, dot_plot, pareto_plot
from debias_ssae.report.page import (
    Block,
    Cell,
    Column,
    Figure,
    Table,
    TableRow,
    number_cell,
    render,
    trusted,
    write_text,
)

METRICS = ("worst_group_accuracy", "accuracy", "balanced_accuracy", "attribute_accuracy", "leakage")
_NAN = float("nan")
_FIGURE_ROWS = 40
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


def write_benchmark_report(results: Mapping[str, Any], path: str | Path) -> Path:
    """Write the HTML page of ``results`` (the content of results.json: config, versions, data, runs,
    summary).

    Raises InputError when there is neither a summary nor a run, MissingExtraError without jinja2 and
    matplotlib.
    """
    rows = list(results.get("summary") or _summarised(results.get("runs") or []))
    if not rows:
        raise InputError("results hold no summary and no runs; nothing to report")
    data = dict(results.get("data") or {})
    seeds = sorted({run["seed"] for run in results.get("runs") or [] if "seed" in run})
    context = {
        "title": str(results.get("title") or "Debiasing benchmark"),
        "eyebrow": "Benchmark report",
        "lede": _lede(data, rows, seeds),
        "limits": _LIMITS,
        "verdict": _verdict(rows),
        "blocks": _blocks(rows),
        "provenance": _provenance(results, data, seeds),
        "config": json.dumps(results.get("config") or {}, indent=2, default=str),
    }
    return write_text(render("benchmark", context), path)


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


def _blocks(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """A block of figures and a table for each way of evaluating: only comparable rows stand together."""
    return [_block(i, title, members) for i, (title, members) in enumerate(_blocks_of(rows))]


def _block(index: int, title: str, rows: list[Mapping[str, Any]]) -> Block:
    rows = sorted(rows, key=lambda r: -_or(value_of(r, METRICS[0])[0], -1.0))
    names = [_method(r, rows) for r in rows]
    shown = list(zip(rows, names, strict=True))[:_FIGURE_ROWS]
    worst = [value_of(r, METRICS[0]) for r, _ in shown]
    series = [Series("worst-group accuracy", *map(list, zip(*worst, strict=True)))]  # type: ignore[arg-type]
    svg = dot_plot(
        [n for _, n in shown],
        series,
        title=f"Worst-group accuracy {index + 1}",
        x_label="worst-group accuracy",
    )
    figures = [Figure(trusted(svg), f"Worst-group accuracy by method, with intervals. {title}.")]
    points = []
    for row, name in shown:
        (x, *x_ends), (y, *y_ends) = value_of(row, "accuracy"), value_of(row, METRICS[0])
        if not (math.isnan(x) or math.isnan(y)):
            points.append(
                Point(name, x, y, (x_ends[0], x_ends[1]), (y_ends[0], y_ends[1]), str(row.get("regime", "")))
            )
    if len(points) > 1:
        svg = pareto_plot(
            points, title=f"Trade-off {index + 1}", x_label="accuracy", y_label="worst-group accuracy"
        )
        figures.append(
            Figure(
                trusted(svg), "Accuracy against worst-group accuracy; the dashed front is not beaten on both."
            )
        )
    return Block(f"results-{index + 1}", title, figures, [_table(rows, names, title)])


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> Table:
    metrics = [m for m in METRICS if any(not math.isnan(value_of(r, m)[0]) for r in rows)]
    facts = [k for k in ("regime", "n_latents", "C") if any(r.get(k) is not None for r in rows)]
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


def _evaluation(key: tuple[Any, ...]) -> str:
    setting, representation, head, head_model, rule = key
    parts = [
        f"{setting} setting" if setting else "",
        f"{representation} representation" if representation else "",
    ]
    parts += [f"{head} head" if head else "", str(head_model or "")]
    parts += [{"cv": "C cross-validated", "fixed": "C fixed"}.get(str(rule), "")]
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
    return f"{data.get('path') or 'Synthetic biographies'}: {size}, {methods} methods{times}."


def _verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for block in _blocks_of(rows):
        values = {str(r.get("method")): value_of(r, METRICS[0]) for r in block[1][::-1]}
        base, ours = values.get("erm"), [r for r in block[1] if str(r.get("method")).startswith("ssae")]
        for row in ours:
            value, low, high = value_of(row, METRICS[0])
            line = f"{block[0]}: {_method(row, block[1])} reaches a worst-group accuracy of "
            line += _said(value, low, high)
            if base is not None:
                line += f"; without debiasing (erm) it is {_said(*base)}"
            if "oracle" in values:
                line += f", with balanced training data (oracle) {_said(*values['oracle'])}"
            lines.append(line + ".")
        beaten = [
            n for n, v in values.items() if ours and v[0] > max(value_of(r, METRICS[0])[0] for r in ours)
        ]
        others = [n for n in beaten if n != "oracle"]
        if others:
            lines.append(
                f"{block[0]}: {', '.join(sorted(others))} read{'s' * (len(others) == 1)} higher than ssae."
            )
    return lines or ["No row of the method ssae or erm is in these results; see the tables."]


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
    facts["Seeds"] = ", ".join(map(str, seeds))
    facts |= {f"Version of {name}": value for name, value in dict(results.get("versions") or {}).items()}
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
