"""The page of an audit."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from debias_ssae.auditing import AuditReport
from debias_ssae.plotting import Series, dot_plot
from debias_ssae.report.page import (
    Block,
    Cell,
    Column,
    Figure,
    Table,
    TableRow,
    count_cell,
    number_cell,
    render,
    trusted,
    write_text,
)

LIMITS = (
    "Equal numbers for these groups do not make a system fair: harm also lies in what is predicted, for"
    " what use, and"
    " for people who are in no group here.",
    "An attribute taken from pronouns or names is a guess about wording, with as many values as someone"
    " chose. It is not"
    " a person's identity and must not be used as one.",
    "Improving one attribute can worsen another, and one measure another; look at every section.",
    "An undefined number is shown as undefined. It is not zero and not evidence of fairness.",
    "A probe that fails to read an attribute does not show that the attribute is gone.",
)


def write_audit_report(report: AuditReport, path: str | Path) -> Path:
    """Write ``report`` as one self-contained HTML file. Raises MissingExtraError without jinja2 and
    matplotlib.
    """
    context = {
        "title": "Fairness audit",
        "eyebrow": "Audit report",
        "lede": f"{report.n_rows:,} rows, {len(report.classes)} classes, models: {', '.join(report.models)}.",
        "limits": LIMITS,
        "verdict": _verdict(report),
        "blocks": [_block(report, i, section) for i, section in enumerate(report.sections)],
        "provenance": dict(report.extras.get("provenance", {})),
        "config": json.dumps(dict(report.settings), indent=2, default=str),
    }
    return write_text(render("benchmark", context), path)


def _verdict(report: AuditReport) -> list[str]:
    lines = []
    for section in report.sections:
        for model in report.models:
            row = report.measure_row("worst_group_accuracy", model=model, section=section)
            lines.append(
                f"{section}, {model}: the worst cell is {row['where']}, right in {row['value']:.1%} of its"
                " rows"
                f" ({row['ci_low']:.1%} to {row['ci_high']:.1%}). {row['note']}"
            )
    return lines


def _block(report: AuditReport, index: int, section: str) -> Block:
    cells = report.cells[report.cells["section"] == section]
    measures = report.measures[report.measures["section"] == section]
    first = cells[cells["model"] == report.models[0]]
    labels = [f"{r.label} / {r.group}" for r in first.itertuples()][:40]
    series = []
    for model in report.models:
        part = cells[cells["model"] == model][:40]
        series.append(
            Series(model, part["accuracy"].tolist(), part["ci_low"].tolist(), part["ci_high"].tolist())
        )
    svg = dot_plot(labels, series, title=f"Accuracy by cell {index + 1}", x_label="accuracy")
    figure = Figure(trusted(svg), "Accuracy in each cell label / group, with Wilson intervals.")
    return Block(f"section-{index + 1}", f"By {section}", [figure], [_measures(measures), _cells(cells)])


def _measures(table: pd.DataFrame) -> Table:
    columns = [Column("measure"), Column("model"), Column("value", True), Column("where"), Column("note")]
    rows = [
        TableRow(
            [
                Cell(r["metric"].replace("_", " ")),
                Cell(r["model"]),
                number_cell(r["value"], r["ci_low"], r["ci_high"]),
                Cell(r["where"]),
                Cell(r["note"]),
            ],
            "warn" if r["note"] else "",
        )
        for r in _dicts(table)
    ]
    return Table("Measures", columns, rows)


def _cells(table: pd.DataFrame) -> Table:
    columns = [Column("cell"), Column("model"), Column("rows", True), Column("accuracy", True)]
    rows = []
    for r in _dicts(table):
        flag = "warn" if math.isnan(r["accuracy"]) or r["excluded"] else ""
        name = f"{r['label']} / {r['group']}"
        value = number_cell(r["accuracy"], r["ci_low"], r["ci_high"])
        rows.append(TableRow([Cell(name), Cell(r["model"]), count_cell(r["n"]), value], flag))
    return Table("Cells: label / group", columns, rows)


def _dicts(table: pd.DataFrame) -> list[Mapping[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
