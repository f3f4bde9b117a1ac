"""The page of an audit: limits, verdict, figures and tables of each section, where the numbers come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from debias_ssae.audit import AuditReport, GateResult
from debias_ssae.audit.extra_blocks import extra_blocks
from debias_ssae.audit.page import (
    Block,
    Cell,
    Column,
    Figure,
    Table,
    TableRow,
    count_cell,
    number_cell,
    p_cell,
    render,
    trusted,
    write_text,
)
from debias_ssae.audit.plotting import Point, Series, dot_plot, heat_table, pareto_plot
from debias_ssae.audit.verdict import COMPARED_FIRST, MOST_LINES, verdict_lines

MOST_ROWS = 300
_FIGURE_ROWS = 30
_HEAT_GROUPS, _HEAT_CLASSES = 4, 30
LIMITS = (
    "Equal numbers for these groups do not make a system fair: harm also lies in what is predicted, in"
    " what it is used"
    " for, and in what happens to people who are in no group here.",
    "A gender derived from pronouns or names says how a text is worded. It is not a person's gender, it"
    " has as many"
    " values as somebody chose, and it must not be used to label people.",
    "Improving one attribute can worsen another, and one measure another. Look at every section before"
    " deciding.",
    "An undefined number is shown as undefined: it is not zero, and no evidence of fairness. “Too few to"
    " say” is an"
    " outcome, not a pass.",
    "The numbers describe these rows and rows drawn like them, not other populations or other times.",
)
RMS_FORMULA = (
    "the square root of the mean over classes of the mean over pairs of groups of (TPR - TPR)²; the class"
    " set is in the"
    " table. Noise alone makes it positive: the interval is for the true gap and may lie below the value"
)
HOW = (
    "Intervals have 95% confidence. Cells and group rates: Wilson. Worst cell, widest gap and lowest"
    " ratio: simultaneous"
    " over the cells or pairs that could be the worst, since a minimum over noisy cells reads low and a"
    " maximum gap high.",
    "Chance level of a gap: group labels dealt out at random, inside each label where rates are given the"
    " label.",
    "Tests between groups are Holm-corrected over all groups and measures of a section and model.",
    "Models are compared on the same rows, so their differences are paired. Rows marked count bootstrap"
    " or row bootstrap"
    " were resampled; their interval is the union of the percentile and the reflected one.",
    "More rows needed: so that the interval of a cell is no wider than plus or minus half the tolerance.",
)


def write_audit_report(report: AuditReport, path: str | Path) -> Path:
    """Write ``report`` as one self-contained HTML file. Raises MissingExtraError without jinja2 and
    matplotlib.
    """
    return write_text(audit_html(report), path)


def audit_html(report: AuditReport, gates: Sequence[GateResult] = ()) -> str:
    """The page as a string. Raises MissingExtraError without jinja2 and matplotlib."""
    lines = verdict_lines(report)
    blocks = [
        *_gates(gates),
        *_models(report),
        *(_section(report, i, s) for i, s in enumerate(report.sections)),
        *extra_blocks(report),
    ]
    more = len(lines) - MOST_LINES
    models = f"{len(report.models)} model{'s' if len(report.models) > 1 else ''} ({', '.join(report.models)})"
    sections = ", ".join(report.sections[:6]) + (" and more" if len(report.sections) > 6 else "")
    context = {
        "title": "Fairness audit",
        "eyebrow": "Audit report",
        "lede": f"{report.n_rows:,} rows, {len(report.classes)} classes, {models}, by {sections}.",
        "limits": LIMITS,
        "verdict": lines[:MOST_LINES],
        "verdict_note": f"{more} more findings of lesser weight are in the tables." if more > 0 else "",
        "blocks": blocks,
        "how": [*report.notes, *HOW],
        "provenance": {
            str(k).replace("_", " "): str(v) for k, v in report.extras.get("provenance", {}).items()
        },
    }
    return render("audit", context)


def _gates(gates: Sequence[GateResult]) -> list[Block]:
    if not gates:
        return []
    rows = [
        TableRow(
            [
                Cell("pass" if g.passed else "fail"),
                Cell(
                    f"{g.metric.replace('_', ' ')} {'at least' if g.kind == 'fail_under' else 'at most'}"
                    f" {g.threshold:g}"
                ),
                Cell(g.section),
                Cell(g.model),
                Cell(g.reason, wrap=True),
            ],
            "" if g.passed else "bad",
        )
        for g in gates
    ]
    failed = sum(not g.passed for g in gates)
    text = f"{failed} of {len(gates)} thresholds failed." if failed else f"All {len(gates)} thresholds hold."
    table = Table("Gates", _columns(("result", "threshold", "section", "model", "reason"), ()), rows)
    return [Block("gates", "Gates", tables=[table], text=[text])]


def _models(report: AuditReport) -> list[Block]:
    """Models side by side: trade-off and paired differences."""
    if len(report.models) < 2:
        return []
    section = report.sections[0]
    points = []
    for model in report.models:
        x, y = (
            report.measure_row(m, model=model, section=section) for m in ("accuracy", "worst_group_accuracy")
        )
        ends = [(r["ci_low"], r["ci_high"]) for r in (x, y)]
        points.append(Point(model, x["value"], y["value"], ends[0], ends[1], model))
    svg = pareto_plot(points, title="Trade-off", x_label="accuracy", y_label="worst-group accuracy")
    figure = Figure(
        trusted(svg),
        f"Accuracy against worst-group accuracy by {section}; on the dashed front no model is"
        " beaten on both. Lines are 95% intervals.",
    )
    chosen = report.comparisons[report.comparisons["section"] == section]
    labels = [
        f"{r['model_a']} - {r['model_b']}" for r in _dicts(chosen) if r["metric"] == "worst_group_accuracy"
    ]
    rows = [r for r in _dicts(chosen) if r["metric"] == "worst_group_accuracy"][:_FIGURE_ROWS]
    series = [Series("difference", *([r[k] for r in rows] for k in ("difference", "ci_low", "ci_high")))]
    differences = dot_plot(
        labels[:_FIGURE_ROWS],
        series,
        title="Paired differences",
        x_label="difference in worst-group accuracy",
        limits=None,
        reference=0.0,
    )
    figures = [
        figure,
        Figure(trusted(differences), "Paired differences; an interval across 0 shows no difference."),
    ]
    first = chosen["metric"].isin(COMPARED_FIRST)
    tables = [_comparisons(chosen[first], f"Models in pairs by {section}, on the same rows")]
    rest = pd.concat([chosen[~first], report.comparisons[report.comparisons["section"] != section]])
    tables.append(_comparisons(rest, "Models in pairs, other measures and sections", folded=True))
    return [Block("models", "Models side by side", figures, tables)]


def _section(report: AuditReport, index: int, section: str) -> Block:
    def of(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["section"] == section] if len(table) else table

    cells, groups = of(report.cells), of(report.by_group)
    figures = [_cell_figure(report, cells, index), *_rate_figures(report, groups, index)]
    small = _confusion_figures(report, of(report.confusion), index)
    tables = [
        _measures(of(report.measures), section),
        _cells(cells, section, len(cells) > 60),
        _groups(groups, section),
        _contrasts(of(report.contrasts), section),
    ]
    undefined = of(report.undefined)
    if len(undefined):
        tables.insert(1, _undefined(undefined, section))
    return Block(f"section-{index + 1}", f"By {section}", figures, tables, small_figures=small)


def _cell_figure(report: AuditReport, cells: pd.DataFrame, index: int) -> Figure:
    """The worst cells of all models, worst first."""
    worst = cells.groupby(["label", "group"], sort=False)["accuracy"].min()
    order = worst.sort_values(na_position="first").index[:_FIGURE_ROWS]
    series = []
    for model in report.models:
        part = cells[cells["model"] == model].set_index(["label", "group"]).loc[order]
        series.append(Series(model, *(part[c].tolist() for c in ("accuracy", "ci_low", "ci_high"))))
    labels = [f"{label} / {group}" for label, group in order]
    svg = dot_plot(labels, series, title=f"Accuracy by cell {index + 1}", x_label="accuracy in the cell")
    shown = "" if len(worst) <= _FIGURE_ROWS else f" The {_FIGURE_ROWS} lowest of {len(worst)} are shown."
    return Figure(
        trusted(svg), f"Accuracy in each cell label / group, lowest first, with Wilson intervals.{shown}"
    )


def _rate_figures(report: AuditReport, groups: pd.DataFrame, index: int) -> list[Figure]:
    """Accuracy and selection rate by group, where the groups fit."""
    names = list(dict.fromkeys(groups[~groups["overall"]]["group"]))
    if len(names) > _FIGURE_ROWS:
        return []
    figures = []
    metrics = ("accuracy", "selection_rate") if len(report.classes) == 2 else ("accuracy",)
    for metric in metrics:
        series = []
        for model in report.models:
            part = groups[(groups["model"] == model) & (groups["metric"] == metric) & ~groups["overall"]]
            series.append(Series(model, *(part[c].tolist() for c in ("value", "ci_low", "ci_high"))))
        name = metric.replace("_", " ")
        svg = dot_plot(names, series, title=f"{name.capitalize()} by group {index + 1}", x_label=name)
        figures.append(Figure(trusted(svg), f"{name.capitalize()} of each group, with Wilson intervals."))
    return figures


def _confusion_figures(report: AuditReport, confusion: pd.DataFrame, index: int) -> list[Figure]:
    groups, classes = list(dict.fromkeys(confusion["group"])), [str(c) for c in report.classes]
    if not 2 <= len(groups) <= _HEAT_GROUPS or len(classes) > _HEAT_CLASSES or len(report.models) > 2:
        return []
    figures = []
    for model in report.models:
        for group in groups:
            part = confusion[(confusion["model"] == model) & (confusion["group"] == group)]
            counts = part.pivot(index="label", columns="prediction", values="n")
            counts = counts.reindex(index=classes, columns=classes).fillna(0.0)
            shares = counts.div(counts.sum(axis=1).where(lambda s: s > 0), axis=0)
            svg = heat_table(
                shares.to_numpy(), classes, classes, title=f"Confusion {index + 1} {model} {group}"
            )
            figures.append(
                Figure(trusted(svg), f"{model}, {group}: what each label is predicted as (rows sum to 1).")
            )
    return figures


def _measures(table: pd.DataFrame, section: str) -> Table:
    names = ("measure", "model", "value", "outcome", "where", "p (groups at random)", "note")
    rows = [
        TableRow(
            [
                Cell(r["metric"].replace("_", " ")),
                Cell(r["model"]),
                number_cell(r["value"], r["ci_low"], r["ci_high"]),
                Cell(r["outcome"], wrap=True),
                Cell(r["where"], wrap=True),
                number_cell(r["p_permutation"])
                if r["p_permutation"] == r["p_permutation"]
                else Cell("–", ""),
                Cell(r["note"], wrap=True),
            ],
            _flag(r["outcome"]),
        )
        for r in _dicts(table)
    ]
    columns = _columns(names, ("value", "p (groups at random)"))
    return Table(f"Measures by {section}", columns, rows, note=f"TPR gap RMS: {RMS_FORMULA}.")


def _flag(outcome: str) -> str:
    if outcome in ("undefined", "too few to say"):
        return "warn"
    return "bad" if outcome in ("difference found", "below four fifths") else ""


def _cells(table: pd.DataFrame, section: str, folded: bool) -> Table:
    rows = []
    for r in _dicts(table.sort_values("accuracy", na_position="first", kind="stable")):
        undefined = r["accuracy"] != r["accuracy"]
        remark = "no rows" if undefined else "below the minimum cell size" if r["excluded"] else ""
        cells = [
            Cell(f"{r['label']} / {r['group']}"),
            Cell(r["model"]),
            count_cell(r["n"]),
            number_cell(r["accuracy"], r["ci_low"], r["ci_high"]),
            count_cell(r["more_rows_needed"]),
            Cell(remark),
        ]
        rows.append(TableRow(cells, "warn" if remark else ""))
    names = ("cell", "model", "rows", "accuracy", "more rows needed", "remark")
    columns = _columns(names, ("rows", "accuracy", "more rows needed"))
    return _cut(Table(f"Cells by {section}: label / group", columns, rows, folded=folded))


def _groups(table: pd.DataFrame, section: str) -> Table:
    names = ("group", "model", "measure", "of label", "rows", "value")
    rows = [
        TableRow(
            [
                Cell(r["group"]),
                Cell(r["model"]),
                Cell(r["metric"].replace("_", " ")),
                Cell(r["label"]),
                count_cell(r["n"]),
                number_cell(r["value"], r["ci_low"], r["ci_high"]),
            ],
            "warn" if r["value"] != r["value"] else "",
        )
        for r in _dicts(table)
    ]
    return _cut(
        Table(f"Rates of each group by {section}", _columns(names, ("rows", "value")), rows, folded=True)
    )


def _contrasts(table: pd.DataFrame, section: str) -> Table:
    names = ("group", "against", "model", "measure", "of label", "difference", "p, Holm-corrected")
    rows = [
        TableRow(
            [
                Cell(r["group"]),
                Cell(r["versus"]),
                Cell(r["model"]),
                Cell(r["metric"].replace("_", " ")),
                Cell(r["label"]),
                number_cell(r["difference"], r["ci_low"], r["ci_high"]),
                p_cell(r["p_holm"]),
            ],
            "bad" if r["p_holm"] < 0.05 else "",
        )
        for r in _dicts(table.sort_values("p_holm", kind="stable"))
    ]
    columns = _columns(names, ("difference", "p, Holm-corrected"))
    return _cut(Table(f"Groups against each other by {section}, signed", columns, rows, folded=True))


def _comparisons(table: pd.DataFrame, caption: str, *, folded: bool = False) -> Table:
    names = ("difference of", "models", "section", "difference", "finding", "p", "method")
    rows = [
        TableRow(
            [
                Cell(r["metric"].replace("_", " ")),
                Cell(f"{r['model_a']} - {r['model_b']}"),
                Cell(r["section"]),
                number_cell(r["difference"], r["ci_low"], r["ci_high"]),
                Cell(_finding(r)),
                p_cell(r["p"]),
                Cell(r["method"], wrap=True),
            ]
        )
        for r in _dicts(table)
    ]
    return _cut(Table(caption, _columns(names, ("difference", "p")), rows, folded=folded))


def _finding(row: Mapping[str, Any]) -> str:
    better = {"a better": row["model_a"], "b better": row["model_b"]}.get(row["outcome"])
    return f"{better} better" if better else str(row["outcome"])


def _undefined(table: pd.DataFrame, section: str) -> Table:
    seen = table.drop_duplicates(["what", "reason"]) if table["model"].nunique() > 1 else table
    rows = [TableRow([Cell(r["what"]), Cell(r["reason"], wrap=True)], "warn") for r in _dicts(seen)]
    return _cut(Table(f"Undefined or excluded by {section}", _columns(("what", "why"), ()), rows))


def _columns(names: Sequence[str], numeric: Sequence[str]) -> list[Column]:
    return [Column(name, name in numeric) for name in names]


def _cut(table: Table) -> Table:
    if len(table.rows) <= MOST_ROWS:
        return table
    note = f"The first {MOST_ROWS} of {len(table.rows):,} rows; all of them are in the JSON output."
    return table._replace(rows=table.rows[:MOST_ROWS], note=note)


def _dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
