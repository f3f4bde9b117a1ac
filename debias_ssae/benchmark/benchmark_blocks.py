"""Sections of the benchmark's page: headline, comparisons, curves, grid, the paper's table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from debias_ssae.audit.page import Block, Cell, Column, Figure, Table, TableRow, number_cell, trusted
from debias_ssae.audit.plotting import Line, Point, Series, dot_plot, line_plot, pareto_plot
from debias_ssae.benchmark.paper import NOT_COMPARABLE, PAPER
from debias_ssae.benchmark.tables import (
    COLUMNS,
    COMPARED,
    HEADLINE_HEADS,
    comparison_rows,
    headline_lines,
    leakage_of,
)

MAIN_REGIMES = ("none", "labelled", "labelled_head", "labelled_all", "concept")
"""In the figures; the table holds short lists and other labels as well."""
WORST = "worst_group_accuracy"
_NAN = float("nan")
Row = Mapping[str, Any]


def interval_of(row: Row | None, metric: str) -> tuple[float, float, float]:
    """``mean, low, high``; NaN where absent."""
    if row is None:
        return _NAN, _NAN, _NAN
    found = (row.get(f"{metric}{end}") for end in ("", "_ci_low", "_ci_high"))
    value, low, high = (_NAN if v is None else float(v) for v in found)
    # an interval from few seeds may leave the range that an accuracy has
    return (value, max(low, 0.0), min(high, 1.0)) if metric.endswith("accuracy") else (value, low, high)


def headline_blocks(rows: Sequence[Row]) -> Iterator[Block]:
    """One line a method and regime; the three heads beside each other."""
    lines = list(headline_lines(rows))
    if not lines:
        return
    body, dots, points = [], [], []
    for (method, regime), heads in sorted(lines, key=lambda line: -_best(line[1])):
        shown = heads.get("retrained") or next(iter(heads.values()))
        needs = bool(shown.get("needs_attribute"))
        cells = [Cell(method + (" †" if needs else "")), Cell(regime)]
        worst = [interval_of(heads.get(head), WORST) for head in HEADLINE_HEADS]
        cells += [
            number_cell(*one) if heads.get(head) else Cell("–", "")
            for head, one in zip(HEADLINE_HEADS, worst, strict=True)
        ]
        cells.append(number_cell(*interval_of(shown, "balanced_accuracy")))
        leak = leakage_of(shown)
        cells.append(Cell("–", "") if leak is None else number_cell(leak))
        cells.append(_gap_cell(shown))
        body.append(TableRow(cells, "warn" if needs else ""))
        if regime not in MAIN_REGIMES:
            continue
        name = method if regime in ("none", "concept") else f"{method}, {regime}"
        dots.append((name, worst))
        x, y = interval_of(shown, "balanced_accuracy"), worst[0]
        if not needs and not math.isnan(x[0]) and not math.isnan(y[0]):
            points.append(Point(name, x[0], y[0], (x[1], x[2]), (y[1], y[2]), regime.split("_")[0]))
    columns = [Column(name, i > 1) for i, name in enumerate(COLUMNS)]
    note = (
        "† needs the attribute of each text when used; never ranked. Intervals: 95%, for new texts and seeds."
    )
    table = Table("Worst-group accuracy by head, and what the retrained head has", columns, body, note)
    figures = list(_headline_figures(dots, points))
    yield Block("headline", "All methods", figures, [table])


def _headline_figures(dots: Sequence[tuple[str, Any]], points: Sequence[Point]) -> Iterator[Figure]:
    series = [
        Series(head, *map(list, zip(*(worst[i] for _, worst in dots), strict=True)))  # type: ignore[arg-type]
        for i, head in enumerate(HEADLINE_HEADS)
        if any(not math.isnan(worst[i][0]) for _, worst in dots)
    ]
    svg = dot_plot(
        [name for name, _ in dots],
        series,
        title="Worst-group accuracy by method and head",
        x_label="worst-group accuracy",
        show_undefined=False,
    )
    yield Figure(trusted(svg), "Worst-group accuracy by method, with 95% intervals; best head first.")
    if len(points) > 1:
        svg = pareto_plot(
            points,
            title="Worst-group against balanced accuracy",
            x_label="balanced accuracy",
            y_label="worst-group accuracy",
        )
        yield Figure(
            trusted(svg),
            "Retrained head: balanced against worst-group accuracy. The dashed front is not beaten on both; "
            "colours are what a method is told.",
        )


def comparison_blocks(comparisons: Sequence[Row], of_default: Sequence[Row] = ()) -> Iterator[Block]:
    """ssae, and what the debiaser does by default, minus each member of the family."""
    if not comparisons:
        return
    primary = [one for one in comparisons if one["regime"] == comparisons[-1]["regime"]]
    if any(one["regime"] == "concept" for one in comparisons):
        primary = [one for one in comparisons if one["regime"] == "concept"]
    heads = list(dict.fromkeys(one["head"] for one in primary))
    labels = list(dict.fromkeys(one["against"] for one in primary))
    series = []
    for head in heads:
        found = {one["against"]: one for one in primary if one["head"] == head}
        values = [interval_of(_difference(found.get(label)), "difference") for label in labels]
        series.append(Series(head, *map(list, zip(*values, strict=True))))  # type: ignore[arg-type]
    svg = dot_plot(
        [f"ssae − {label}" for label in labels],
        series,
        title="Paired differences",
        x_label="difference in worst-group accuracy",
        limits=None,
        reference=0.0,
    )
    caption = (
        f"Regime {primary[0]['regime']}: ssae minus the other, same texts and seeds; right: ssae is better."
    )
    folded = {
        "The same in other regimes": [one for one in comparisons if one not in primary],
        "ssae_default against it": of_default,
    }
    columns = [Column(name, i > 2) for i, name in enumerate(COMPARED)]
    note = (
        "The family was fixed before the first run. Holm's correction is over the members of a regime and head; the "
        "smallest detectable difference has 80% power at 0.05 before that correction. The best linear eraser is the "
        "one with the highest mean in the column that it is compared in."
    )
    yield Block(
        "comparisons",
        "Is the SSAE better?",
        [Figure(trusted(svg), caption)],
        [
            Table("ssae against a fixed family", columns, _compared(primary), note),
            *(Table(title, columns, _compared(rows), folded=True) for title, rows in folded.items() if rows),
        ],
    )


def sum_blocks(sums: Sequence[Row]) -> Iterator[Block]:
    """What a linear eraser gains from the SSAE before it."""
    if sums:
        columns = [Column("method", False), *(Column(name, i > 2) for i, name in enumerate(COMPARED))]
        rows = [
            TableRow([Cell(one["of"]), *row.cells], row.flag)
            for one, row in zip(sums, _compared(sums), strict=True)
        ]
        note = "Same texts and seeds; Holm's correction is over the rows of a regime and head."
        yield Block(
            "sums",
            "And before a linear eraser?",
            tables=[Table("method minus the eraser alone", columns, rows, note)],
        )


def _compared(comparisons: Sequence[Row]) -> list[TableRow]:
    return [
        TableRow([Cell(cell) for cell in cells], "warn" if one["ci_high"] < 0 else "")
        for one, cells in zip(comparisons, comparison_rows(comparisons), strict=True)
    ]


def _difference(one: Row | None) -> Row | None:
    return (
        None
        if one is None
        else {**one, "difference_ci_low": one["ci_low"], "difference_ci_high": one["ci_high"]}
    )


def curve_blocks(curves: Sequence[Row]) -> Iterator[Block]:
    """Accuracy against latents removed and alpha."""
    if not curves:
        return
    ends = {row["method"]: row for row in curves if row["method"] in ("erm", "oracle")}
    figures = []
    for metric, y_label in ((WORST, "worst-group accuracy"), ("balanced_accuracy", "balanced accuracy")):
        levels = {name: float(row[metric]) for name, row in ends.items()}
        for head in ("retrained", "frozen, re-centred"):
            lines = [
                _line(
                    name,
                    [r for r in curves if r["method"] == method and r["head"] == head],
                    metric,
                    ends.get("erm"),
                )
                for name, method in (("ssae", "ssae"), ("random latents", "random_latents"))
            ]
            svg = line_plot(
                [line for line in lines if len(line.x) > 1],
                title=f"{y_label}, {head}, by number of latents",
                x_label="latents removed",
                y_label=y_label,
                references=levels,
            )
            figures.append(
                Figure(trusted(svg), f"{head.capitalize()} head: {y_label} by number of latents removed.")
            )
    alphas = [_line(head, [*_alpha_rows(curves, head)], WORST, ends.get("erm")) for head in HEADLINE_HEADS]
    if any(len(line.x) > 1 for line in alphas):
        svg = line_plot(alphas, title="By alpha", x_label="alpha", y_label="worst-group accuracy")
        figures.append(Figure(trusted(svg), "Share of what the latents write that is removed; 0 is erm."))
    yield Block("curves", "How many latents, and how strongly", figures, [])


def _alpha_rows(curves: Sequence[Row], head: str) -> Iterator[Row]:
    yield from (row for row in curves if row["method"] == "alpha" and row["head"] == head)
    # alpha = 1 at the default number of latents is a point of the other curve
    yield from (
        {**row, "value": 1.0}
        for row in curves
        if row["method"] == "ssae" and row["head"] == head and row.get("default")
    )


def _line(name: str, rows: Sequence[Row], metric: str, erm: Row | None) -> Line:
    every = [*([] if erm is None else [{**erm, "value": 0.0}]), *rows]
    every = sorted(every, key=lambda row: row["value"])
    values = [interval_of(row, metric) for row in every]
    y, low, high = (list(column) for column in zip(*values, strict=True)) if values else ([], [], [])
    return Line(name, [float(row["value"]) for row in every], y, low, high)


def grid_blocks(grid: Row) -> Iterator[Block]:
    """General against specialised SAEs in each setting."""
    if not grid:
        return
    rows, differences = grid["grid"], grid["differences"]
    settings = list(dict.fromkeys(one["setting"] for one in differences))
    series = []
    for head in HEADLINE_HEADS:
        found = {
            one["setting"]: one for one in differences if one["head"] == head and one["against"] == "gsae"
        }
        values = [interval_of(_difference(found.get(setting)), "difference") for setting in settings]
        series.append(Series(head, *map(list, zip(*values, strict=True))))  # type: ignore[arg-type]
    svg = dot_plot(
        settings,
        series,
        title="ssae minus gsae by setting",
        x_label="difference in worst-group accuracy",
        limits=None,
        reference=0.0,
    )
    target = grid["target"]
    text = [
        f"Fixed before the run: at least +{target['expected']:.3f} was expected in the setting {target['setting']!r} "
        f"with the head {target['head']!r}; elsewhere not worse than gsae by 0.02."
    ]
    tables = [_grid_table(rows, settings), _difference_table(differences)]
    caption = "ssae minus gsae, paired; right of the line specialising pays."
    yield Block("grid", "General against specialised SAE", [Figure(trusted(svg), caption)], tables, text)


def _grid_table(rows: Sequence[Row], settings: Sequence[str]) -> Table:
    known = {(row["setting"], row["method"], row["head"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows if row["method"] not in ("erm", "oracle")))
    columns = [Column("setting"), Column("head"), Column("erm", True), *(Column(m, True) for m in methods)]
    columns += [Column("oracle", True)]
    body = []
    for setting in settings:
        for head in HEADLINE_HEADS:
            cells = [Cell(setting), Cell(head), _worst(known.get((setting, "erm", "retrained")))]
            cells += [_worst(known.get((setting, m, head))) for m in methods]
            body.append(TableRow([*cells, _worst(known.get((setting, "oracle", "retrained")))]))
    return Table("Worst-group accuracy in each setting", columns, body)


def _difference_table(differences: Sequence[Row]) -> Table:
    columns = [Column("setting"), Column("head"), Column("difference of"), Column("difference", True)]
    columns += [Column("p (Holm)", True), Column("p not worse by 0.02 (Holm)", True)]
    body = []
    for one in differences:
        cells = [Cell(one["setting"]), Cell(one["head"]), Cell(f"{one['ssae']} − {one['against']}")]
        cells.append(number_cell(one["difference"], one["ci_low"], one["ci_high"]))
        cells += [Cell(f"{one[name]:.3f}") for name in ("p_holm", "p_non_inferior_holm")]
        body.append(TableRow(cells))
    return Table("Paired differences in worst-group accuracy", columns, body, folded=True)


def paper_blocks(rows: Sequence[Row]) -> Iterator[Block]:
    """The paper's table beside the rows here that come nearest."""
    lines: dict[str, dict[str, Row]] = {}
    for (method, regime), heads in headline_lines(rows):
        if method not in lines or regime == "concept":
            lines[method] = heads
    if not {"ssae", "gsae"} <= set(lines):
        return
    columns = [Column("paper"), *(Column(name, True) for name in ("Prof", "Gen", "Worst"))]
    columns += [Column("here"), *(Column(n, True) for n in ("balanced", "attribute", "worst group"))]
    body = []
    for one in PAPER:
        cells = [Cell(one.name), *(Cell(f"{v:.1f}") for v in (one.profession, one.gender, one.worst))]
        ours = lines.get(one.method, {}).get(one.head)
        cells.append(Cell(f"{one.method}, {one.head}" if ours else "–"))
        for metric in ("balanced_accuracy", "attribute_accuracy", WORST):
            value = _NAN if ours is None or ours.get(metric) is None else 100 * float(ours[metric])
            cells.append(Cell("–", "") if math.isnan(value) else Cell(f"{value:.1f}", f"{value:.6g}"))
        body.append(TableRow(cells))
    note = "Paper: Muhamed, Diab, Smith, arXiv 2411.00743, table 1; percent; Gen at 50 is chance."
    table = Table("The paper's numbers and ours", columns, body, note)
    yield Block("paper", "Beside the paper", [], [table], NOT_COMPARABLE)


def _worst(row: Row | None) -> Cell:
    return Cell("–", "") if row is None else number_cell(*interval_of(row, WORST))


def _gap_cell(row: Row) -> Cell:
    value, low, high = interval_of(row, "gap_closed")
    return Cell("–", "") if math.isnan(value) else number_cell(value, low, high)


def _best(heads: Mapping[str, Row]) -> float:
    values = [interval_of(row, WORST)[0] for row in heads.values()]
    return max((v for v in values if not math.isnan(v)), default=-1.0)
