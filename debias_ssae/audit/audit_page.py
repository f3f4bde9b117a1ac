"""The page of an audit: the verdict and one picture, findings, limits; every table is folded below."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from debias_ssae.audit.gates import GateResult
from debias_ssae.audit.measures import MEASURED, TOO_FEW
from debias_ssae.audit.page import (
    Block,
    Card,
    Cell,
    Figure,
    Series,
    Table,
    count_cell,
    dot_plot,
    make_table,
    number_cell,
    p_cell,
    render,
)
from debias_ssae.audit.run import AuditReport, records
from debias_ssae.audit.verdict import (
    MOST_FINDINGS,
    by_name,
    findings,
    kind_of,
    shown_measures,
    unmeasured,
    verdict,
    words,
)
from debias_ssae.core.io import write_text

MOST_ROWS = 60
_MOST_NAMES = 40
_FIGURE_ROWS = 12
_SERIES = 6
"""Models in a figure: so many colours there are."""
_PROBES = ("probe", "given the label", "balanced accuracy", "shuffled control", "rows")
_NAN = float("nan")
_NONE = Cell("–", "")


def write_audit_report(report: AuditReport, path: str | Path) -> Path:
    """Write ``report`` as one self-contained HTML file. Raises MissingExtraError without jinja2 and matplotlib."""
    write_text(path, audit_html(report))
    return Path(path)


def audit_html(report: AuditReport, gates: Sequence[GateResult] = ()) -> str:
    """The page as a string. Raises MissingExtraError without jinja2 and matplotlib."""
    one, found = verdict(report), findings(report)
    models = f"{len(report.models)} model{'s' if len(report.models) > 1 else ''} ({', '.join(report.models)})"
    sections = ", ".join(report.sections[:6]) + (" and more" if len(report.sections) > 6 else "")
    section = one.section or report.sections[0]
    blocks = [
        *(_section(report, i, s, shown=s == section) for i, s in enumerate(report.sections)),
        *_models(report),
        *_leakage(report.extras.get("leakage")),
        *_flips(report.extras.get("flips")),
    ]
    context = {
        "title": "Fairness audit",
        "eyebrow": "Audit report",
        "lede": f"{report.n_rows:,} rows, {len(report.classes)} classes, {models}, by {sections}.",
        "verdict": one,
        "picture": _cell_figure(report, section, "Accuracy in the worst cells"),
        "gates": _gates(gates),
        "findings": found[:MOST_FINDINGS],
        "more": max(0, len(found) - MOST_FINDINGS),
        "unmeasured": unmeasured(report),
        "blocks": blocks,
        "how": report.notes,
        "provenance": {
            str(k).replace("_", " "): str(v) for k, v in report.extras.get("provenance", {}).items()
        },
    }
    return render("audit", context)


def _gates(gates: Sequence[GateResult]) -> Block | None:
    if not gates:
        return None
    names = ("result", "threshold", "section", "model", "reason")
    rows = []
    for g in sorted(gates, key=lambda g: g.passed):
        result = Cell("pass") if g.passed else Cell("fail", kind="bad")
        sign = "at least" if g.kind == "fail_under" else "at most"
        threshold = f"{words(g.metric)} {sign} {g.threshold:g}"
        rows.append([result, threshold, g.section, g.model, Cell(g.reason, wrap=True)])
    failed = sum(not g.passed for g in gates)
    text = f"{failed} of {len(gates)} thresholds failed." if failed else f"All {len(gates)} thresholds hold."
    tables = [make_table("Thresholds", names, rows, folded=not failed)]
    return Block("gates", "Gates", tables=tables, text=[text])


def _of(table: pd.DataFrame, **values: str) -> pd.DataFrame:
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def _cell_figure(report: AuditReport, section: str, title: str) -> Figure:
    """The worst cells of all models that have rows enough, worst first."""
    cells = _of(report.cells, section=section)
    enough = cells[(cells["n"] > 0) & ~cells["excluded"]]
    worst = enough.groupby(["label", "group"], sort=False)["accuracy"].min().sort_values(kind="stable")
    order = worst.index[:_FIGURE_ROWS]
    series = _series(report, cells.set_index(["label", "group"]), order, "accuracy")
    svg = dot_plot(
        [f"{a} / {b}" for a, b in order], series, title=f"{title} by {section}", x_label="accuracy"
    )
    caption = f"Accuracy in each cell label / group by {section}, lowest first; lines are 95% intervals."
    if len(report.models) > _SERIES:
        caption += f" The first {_SERIES} of {len(report.models)} models are drawn."
    if len(worst) > len(order):
        caption += f" The {len(order)} lowest of {len(worst)} are shown."
    return Figure(svg, caption)


def _series(report: AuditReport, table: pd.DataFrame, order: Any, value: str) -> list[Series]:
    """The first models' values of the rows ``order``."""
    parts = {m: _of(table, model=m).loc[order] for m in report.models[:_SERIES]}
    return [Series(m, *(part[c].tolist() for c in (value, "ci_low", "ci_high"))) for m, part in parts.items()]


def _section(report: AuditReport, index: int, section: str, *, shown: bool) -> Block:
    """``shown``: the picture above is of this section."""
    groups = _of(report.by_group, section=section)
    figures = [] if shown else [_cell_figure(report, section, f"Cells {index + 1}")]
    figures += _group_figure(report, groups, section, index)
    tables = [
        _measures(report, section),
        _cells(report, section),
        _rates(report, groups, section),
        _contrasts(report, section),
    ]
    if len(undefined := _of(report.undefined, section=section)):
        tables.append(_undefined(undefined, section))
    return Block(f"section-{index + 1}", f"By {section}", figures, [t for t in tables if t.rows])


def _group_figure(report: AuditReport, groups: pd.DataFrame, section: str, index: int) -> list[Figure]:
    rows = _of(groups[~groups["overall"]], metric="accuracy").set_index("group")
    names = list(dict.fromkeys(rows.index))
    if len(names) > 2 * _FIGURE_ROWS:
        return []
    series = _series(report, rows, names, "value")
    svg = dot_plot(names, series, title=f"Accuracy by group {index + 1}", x_label="accuracy")
    return [Figure(svg, f"Accuracy of each group by {section}, with 95% intervals.")]


def _measures(report: AuditReport, section: str) -> Table:
    """A row a measure, the models beside each other, and with two their difference."""
    measures = shown_measures(report, section)
    rows: list[list[Cell | str]] = []
    compared = _of(report.comparisons, section=section)
    differences = {r["metric"]: r for r in records(compared)} if len(report.models) == 2 else {}
    names = ["measure"]
    for model in report.models:
        names += [model, f"outcome, {model}" if len(report.models) > 1 else "outcome"]
    for metric, models in measures.items():
        row: list[Cell | str] = [words(metric)]
        for r in models:
            said = "" if r["outcome"] == MEASURED else r["outcome"]
            value = number_cell(r["value"], r["ci_low"], r["ci_high"])
            row += [value, Cell(said, note=r["where"], wrap=True, kind=kind_of(said))]
        if differences:
            row.append(_difference(differences[metric]) if metric in differences else _NONE)
        rows.append(row)
    noted = [f"{words(r['metric'])}: {r['note']}" for m in measures.values() for r in m if r["note"]]
    note = "; ".join(dict.fromkeys(noted))
    if differences:
        note = f"Difference: {report.models[1]} minus {report.models[0]}, on the same rows. {note}"
    names += ["difference"] if differences else []
    end = "." if note and not note.endswith(". ") else ""
    return make_table(f"Measures by {section}", names, rows, note=note + end)


def _difference(row: Mapping[str, Any]) -> Cell:
    return number_cell(row["difference"], row["ci_low"], row["ci_high"], signed=True)


def _side_by_side(
    report: AuditReport, table: pd.DataFrame, keys: Sequence[str], value: str
) -> Iterator[tuple[dict[str, Any], list[Cell]]]:
    """Rows that differ in the model alone as one: the first of them, and the cells of the models."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in records(table):
        found.setdefault(tuple(r[k] for k in keys), []).append(r)
    for members in found.values():
        of = {r["model"]: number_cell(r[value], r["ci_low"], r["ci_high"]) for r in members}
        yield members[0], [of.get(m, _NONE) for m in report.models]


def _cells(report: AuditReport, section: str) -> Table:
    table = _of(report.cells, section=section)
    grouped = table.groupby(["label", "group"])
    table = table.assign(
        worst=grouped["accuracy"].transform("min"),
        more_rows_needed=grouped["more_rows_needed"].transform("max"),
    )
    table = table[table["n"] > 0].sort_values(["excluded", "worst"], kind="stable")
    few = f"fewer than {report.settings['min_group']} rows, or the attribute is missing: decides nothing"
    rows = []
    for r, models in _side_by_side(report, table, ("label", "group"), "accuracy"):
        cell = Cell(f"{r['label']} / {r['group']}", kind="warn" if r["excluded"] else "")
        ends = count_cell(r["more_rows_needed"]), few if r["excluded"] else ""
        rows.append([cell, count_cell(r["n"]), *models, *ends])
    names = ("cell", "rows", *report.models, "more rows needed", "remark")
    caption = f"Accuracy in each cell by {section}: label / group"
    return make_table(caption, names, rows, folded=True, most=MOST_ROWS)


def _rates(report: AuditReport, table: pd.DataFrame, section: str) -> Table:
    rows = []
    for r, models in _side_by_side(report, table, ("metric", "label", "group"), "value"):
        measure = Cell(words(r["metric"]), kind="warn" if r["value"] != r["value"] else "")
        rows.append([measure, r["label"], r["group"], count_cell(r["n"]), *models])
    names = ("measure", "of label", "group", "rows", *report.models)
    return make_table(f"Rates of each group by {section}", names, rows, folded=True, most=MOST_ROWS)


def _contrasts(report: AuditReport, section: str) -> Table:
    """The widest differences first, among those with rows enough to be tested."""
    table = _of(report.contrasts, section=section).dropna(subset=["p"])
    keys = ["metric", "label", "group", "versus"]
    widest = table["difference"].abs().groupby([table[k] for k in keys]).transform("max")
    table = table.assign(widest=widest).sort_values("widest", ascending=False, kind="stable")
    lowest = table.groupby(keys)["p_holm"].min()
    rows = []
    for r, models in _side_by_side(report, table, keys, "difference"):
        p = p_cell(float(lowest[tuple(r[k] for k in keys)]))
        rows.append([r["group"], r["versus"], words(r["metric"]), r["label"], *models, p])
    last = "p, Holm" if len(report.models) == 1 else "lowest p, Holm"
    names = ("group", "against", "measure", "of label", *report.models, last)
    caption = f"Groups against each other by {section}, signed"
    return make_table(caption, names, rows, folded=True, most=MOST_ROWS)


def _undefined(table: pd.DataFrame, section: str) -> Table:
    """What has no rows or too few, by the reason."""
    seen = table.drop_duplicates(["what"])
    kinds = seen["reason"].map(
        lambda r: "fewer rows than the minimum" if "fewer than" in r else r.split(":")[0]
    )
    kinds = kinds.where(kinds.str.startswith(("no row", "fewer", "one group")), "no denominator")
    rows = []
    for kind, members in seen.groupby(kinds, sort=False):
        names = members["what"].tolist()
        shown = "; ".join(names[:_MOST_NAMES]) + (
            f"; and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES)
        )
        rows.append([str(kind), count_cell(len(names)), Cell(shown, wrap=True)])
    caption = f"Without rows or with too few by {section}"
    return make_table(caption, ("why", "how many", "which"), rows, folded=True)


def _models(report: AuditReport) -> Iterator[Block]:
    """Models in pairs."""
    if len(report.models) < 2:
        return
    rows = []
    for r in records(report.comparisons):
        better = {"a better": r["model_a"], "b better": r["model_b"]}.get(r["outcome"])
        said = f"{better} better" if better else r["outcome"].replace("no difference found", TOO_FEW)
        pair, method = f"{r['model_a']} minus {r['model_b']}", Cell(r["method"], wrap=True)
        rows.append([words(r["metric"]), pair, r["section"], _difference(r), said, p_cell(r["p"]), method])
    names = ("measure", "models", "section", "difference", "finding", "p", "method")
    table = make_table("Models in pairs, on the same rows", names, rows, most=MOST_ROWS)
    yield Block("models", "Models against each other", tables=[table])


def _leakage(leakage: Mapping[str, Any] | None) -> Iterator[Block]:
    for number, (attribute, found) in enumerate(by_name(leakage, "results").items()):
        rows = found["results"]
        labels = [f"{r['probe']}{', given the label' if r['given_y'] else ''}" for r in rows]
        probe = Series("probe", *([r[k] for r in rows] for k in ("balanced_accuracy", "ci_low", "ci_high")))
        nothing = [_NAN] * len(rows)
        control = Series("shuffled control", [r["shuffled"] for r in rows], nothing, nothing)
        chance = rows[0]["chance"]
        svg = dot_plot(
            labels,
            [probe, control],
            title=f"Leakage {number + 1}",
            x_label="balanced accuracy",
            reference=chance,
        )
        caption = f"What probes read of the attribute; the dashed line is chance ({chance:.2f})."
        body = []
        for r in rows:
            value = number_cell(r["balanced_accuracy"], r["ci_low"], r["ci_high"])
            given = "yes" if r["given_y"] else "no"
            body.append([r["probe"], given, value, number_cell(r["shuffled"]), count_cell(r["n"])])
        text = [*found["claims"]]
        if found.get("skipped"):
            text.append(f"Too few rows to probe given the label: {', '.join(found['skipped'])}.")
        title = f"What the representations still tell{f' of {attribute}' if attribute else ''}"
        figures, tables = [Figure(svg, caption)], [make_table("Probes", _PROBES, body)]
        yield Block(f"leakage-{number + 1}", title, figures, tables, text)


def _flips(flips: Mapping[str, Any] | None) -> Iterator[Block]:
    for index, (name, found) in enumerate(by_name(flips, "rate").items()):
        rows = [
            [r["prediction"], count_cell(r["n"]), count_cell(r["flipped"]), number_cell(r["rate"])]
            for r in found["by_prediction"]
        ]
        names = ("prediction on the text", "texts", "flipped", "share")
        table = make_table(f"Flips by prediction{f', {name}' if name else ''}", names, rows)
        text = [
            f"Of {found['n_texts']:,} texts, {found['n_with_counterfactual']:,} hold a word of the concept. Swapping"
            f" those words, and nothing else, changes {found['n_flipped']:,} predictions ({100 * found['rate']:.1f}%)."
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
        yield Block(f"flips-{index + 1}", title, tables=[table], text=text, cards=cards)
