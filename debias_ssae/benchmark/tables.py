"""The results in a table that fits a page: one line a method and regime, the three heads side by side."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from debias_ssae.audit.page import with_interval

WORST = "worst_group_accuracy"
HEADS = ("retrained", "frozen", "frozen, re-centred")
COLUMNS = (
    "method",
    "regime",
    "retrained",
    "frozen",
    "frozen, re-centred",
    "balanced accuracy",
    "leakage given y",
    "gap closed",
)


def head_kind(row: Mapping[str, Any]) -> str:
    """``retrained``, ``frozen`` or ``frozen, re-centred``."""
    return str(row.get("head")) + (", re-centred" if "re-centred" in str(row.get("representation")) else "")


def headline_lines(
    summary: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[tuple[str, str], dict[str, Mapping[str, Any]]]]:
    """Yield method and regime with a row for each kind of head: logistic, C by cross-validation.

    A method that brings a head of its own stands with that.
    """
    lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for rule in ("cv", "own"):
        for row in summary:
            key = str(row.get("method")), str(row.get("regime"))
            if row.get("head_model") == "logistic" and row.get("C_rule") == rule:
                lines.setdefault(key, {}).setdefault(head_kind(row), row)
    yield from lines.items()


def headline_numbers(
    summary: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str, list[tuple[float, float, float]]]]:
    """Yield method, regime and the numbers of COLUMNS with their intervals: worst-group accuracy of each head, then
    what the retrained head has.

    A dagger marks a method that needs the attribute when used; one that lacks seeds says so.
    """
    most = max((row.get("n_seeds") or 0 for row in summary), default=0)
    for (method, regime), heads in headline_lines(summary):
        shown = heads.get("retrained") or next(iter(heads.values()))
        fewer = f" ({shown['n_seeds']} of {most} seeds)" if (shown.get("n_seeds") or most) < most else ""
        name = method + (" †" if shown.get("needs_attribute") else "") + fewer
        yield (
            name,
            regime,
            [
                *(interval_of(heads.get(head), WORST) for head in HEADS),
                *(
                    interval_of(shown, metric)
                    for metric in ("balanced_accuracy", "leakage_given_y", "gap_closed")
                ),
            ],
        )


def headline_rows(summary: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of COLUMNS as text, the accuracies of the worst group with their intervals."""
    for method, regime, numbers in headline_numbers(summary):
        rest = (with_interval(value) for value, *_ in numbers[len(HEADS) :])
        yield [method, regime, *(with_interval(*one) for one in numbers[: len(HEADS)]), *rest]


def terminal_rows(summary: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Yield method, supervision, "before -> after" and the interval of the worst-group accuracy of a retrained head;
    at most 78 columns wide together.
    """
    rows = list(headline_rows(summary))
    before = next((row[2].partition(" (")[0] for row in rows if row[0].split()[0] == "erm"), "–")
    for method, regime, *heads in rows:
        if method.split()[0] != "erm":
            value, _, interval = next((cell for cell in heads if cell != "–"), "–").partition(" (")
            yield method, regime, f"{before} -> {value}", interval.rstrip(")") or "–"


def skipped_lines(notes: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield a line for each reason why methods did not run, with the methods."""
    by_reason: dict[str, list[str]] = {}
    for note in notes:
        name = f"{note['method']} ({note['regime']})" if note["regime"] else note["method"]
        by_reason.setdefault(note["reason"], []).append(name)
    for reason, names in by_reason.items():
        yield f"not run: {', '.join(names)}: {reason}"


def interval_of(row: Mapping[str, Any] | None, metric: str) -> tuple[float, float, float]:
    """``mean, low, high``; NaN where absent."""
    found = ((row or {}).get(f"{metric}{end}") for end in ("", "_ci_low", "_ci_high"))
    value, low, high = (math.nan if v is None else float(v) for v in found)
    # an interval from few seeds may leave the range that an accuracy has
    return (value, max(low, 0.0), min(high, 1.0)) if metric.endswith("accuracy") else (value, low, high)


def markdown_table(results: Mapping[str, Any]) -> str:
    """The headline table, and the comparisons, as markdown."""
    rows = list(headline_rows(results["summary"]))
    lines = ["**Quick look: few texts, small SAE; no measurement.**", ""] if results.get("quick") else []
    lines += ["Worst-group accuracy, mean and 95% interval, by head:", ""]
    lines += _markdown(COLUMNS, rows)
    if any("†" in row[0] for row in rows):
        lines += ["", "† needs the attribute of each text when used; never ranked."]
    if results.get("comparisons_of_default"):
        lines += ["", "ssae_default minus the other, worst-group accuracy:", ""]
        lines += _markdown(COMPARED, comparison_rows(results["comparisons_of_default"]))
    lines += ["", *(f"- {line}" for line in skipped_lines(results.get("skipped") or ()))]
    return "\n".join(lines).rstrip() + "\n"


COMPARED = ("head", "regime", "against", "difference", "p (Holm)", "smallest detectable")


def comparison_rows(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of COMPARED."""
    for one in comparisons:
        name = one["against"] if one["against"] == one["method"] else f"{one['against']}: {one['method']}"
        if one["method_regime"] != one["regime"]:
            name += f" ({one['method_regime']})"
        difference = with_interval(one["difference"], one["ci_low"], one["ci_high"], form="+z.3f")
        p = "< 0.01" if one["p_holm"] < 0.01 else f"{one['p_holm']:.2f}"
        yield [one["head"], one["regime"], name, difference, p, f"{one['smallest_detectable']:.3f}"]


def _markdown(columns: Sequence[str], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
