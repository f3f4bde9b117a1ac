"""One row for each method and way of evaluating, with intervals; the debiaser against a family of methods; and both in
tables that fit a page: one line a method and regime, the three heads side by side.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from scipy.stats import t

from debias_ssae.audit.page import with_interval
from debias_ssae.core.stats.seeds import JointBootstrap, Moves, gap_closed
from debias_ssae.core.stats.shares import critical_value, holm

KEYS = ("method", "setting", "regime", "representation", "head", "head_model", "C_rule")
"""What makes a row of the summary; with the seed, what tells one head's predictions from another's."""
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
STATISTICS = {"accuracy": "mean", "balanced_accuracy": "balanced", "worst_group_accuracy": "worst_cell"}


class Answers:
    """The predictions of a run, one bootstrap for all rows: a text is drawn with all its seeds and methods."""

    def __init__(self, predictions: pd.DataFrame) -> None:
        """Take the content of predictions.parquet."""
        known = predictions.fillna(dict.fromkeys(KEYS, ""))
        ordered = known.sort_values(["seed", "text_id"], kind="stable")
        self._rows: dict[tuple[Any, ...], pd.DataFrame] = dict(
            iter(ordered.groupby(list(KEYS), sort=False))  # type: ignore[arg-type]
        )
        self._bootstraps: dict[tuple[int, ...], tuple[JointBootstrap, list[np.ndarray]]] = {}
        self._moves: dict[tuple[tuple[Any, ...], str], Moves] = {}

    def moves(self, key: tuple[Any, ...], metric: str) -> Moves:
        """An accuracy of the row ``key``."""
        if (key, metric) not in self._moves:
            table = self._rows[key]
            seeds = {int(seed): table[table["seed"] == seed] for seed in table["seed"].unique()}
            bootstrap, classes = self._bootstrap(seeds)
            self._moves[key, metric] = bootstrap.moves(
                [(part["y"] == part["y_pred"]).to_numpy(dtype=float) for part in seeds.values()],
                STATISTICS[metric],  # type: ignore[arg-type]
                groups=classes if metric == "balanced_accuracy" else None,
            )
        return self._moves[key, metric]

    def cells(self, key: tuple[Any, ...]) -> dict[str, dict[str, float]]:
        """Test texts of each cell in a seed, and its accuracy; both are means over seeds."""
        table = self._rows[key]
        right = (table["y"] == table["y_pred"]).to_numpy(dtype=float)
        found = table.assign(right=right).groupby(["y", "z"])["right"].agg(["size", "mean"])
        n_runs = table["seed"].nunique()
        names = [f"{y}, {z}" for y, z in found.index]
        facts = zip(names, found["size"], found["mean"], strict=True)
        return {name: {"n": float(n / n_runs), "accuracy": float(mean)} for name, n, mean in facts}

    def _bootstrap(self, seeds: dict[int, pd.DataFrame]) -> tuple[JointBootstrap, list[np.ndarray]]:
        """The draws for these seeds, shared by every row that has them, and the test texts' classes."""
        names = tuple(seeds)
        if names not in self._bootstraps:
            cells = [
                (part["y"].astype(str) + "\0" + part["z"].astype(str)).to_numpy() for part in seeds.values()
            ]
            ids = [part["text_id"].to_numpy() for part in seeds.values()]
            bootstrap = JointBootstrap(ids, cells)
            self._bootstraps[names] = bootstrap, [part["y"].to_numpy() for part in seeds.values()]
        return self._bootstraps[names]


_FACTS = ("C", "d_sae", "n_latents", "seconds_fit", "seconds_transform")
_NOT_METRICS = {*KEYS, *_FACTS, "hookpoint", "seed", "worst_group", "needs_attribute", "vectors", "removed"}


def summarise(runs: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """Return one flat row for each method, regime, head and C rule.

    Each metric has its mean and ``_ci_low``, ``_ci_high``: for the accuracies a bootstrap of the test texts, a
    text drawn with all its seeds, plus the variance between seeds; for the others Student's t over seeds.
    ``gap_closed`` is (WGA - WGA of erm) / (WGA of oracle - WGA of erm), same bootstrap.
    """
    table = pd.DataFrame(runs)
    table[list(KEYS)] = table[list(KEYS)].fillna("")
    metrics = [name for name in table.columns if name not in _NOT_METRICS and is_numeric_dtype(table[name])]
    rows = []
    for key, group in table.groupby(list(KEYS), sort=False):
        row: dict[str, Any] = {name: None if k == "" else k for name, k in zip(KEYS, key, strict=True)}
        row |= {name: _mean(group[name]) for name in _FACTS if name in table}
        row["n_seeds"] = int(group["seed"].nunique())
        row["needs_attribute"] = "needs_attribute" in group and bool(group["needs_attribute"].any())
        row["worst_group"] = group["worst_group"].mode()[0]
        row["cells"] = answers.cells(key)
        for metric in metrics:
            if metric in STATISTICS:
                row |= _named(metric, answers.moves(key, metric))
            else:
                row |= _student(metric, group[metric].dropna().to_numpy(dtype=float))
        rows.append(row)
    _add_gap_closed(rows, answers)
    return rows


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """The row's key in ``Answers``."""
    return tuple("" if row[key] is None else row[key] for key in KEYS)


def _add_gap_closed(rows: list[dict[str, Any]], answers: Answers) -> None:
    ends: dict[str, dict[str, Moves]] = {}
    for row in rows:
        if row["method"] in ("erm", "oracle"):
            moves = answers.moves(key_of(row), "worst_group_accuracy")
            ends.setdefault(row["setting"], {})[row["method"]] = moves
    for row in rows:
        row |= {"gap_closed": None, "gap_closed_ci_low": None, "gap_closed_ci_high": None}
        between = ends.get(row["setting"], {})
        if len(between) == 2:
            own = answers.moves(key_of(row), "worst_group_accuracy")
            if len({len(m.point) for m in (own, *between.values())}) == 1:
                share = gap_closed(own, between["erm"], between["oracle"])
                row |= {} if share is None else _named("gap_closed", share)


def _named(metric: str, moves: Moves) -> dict[str, float]:
    value, low, high = moves.interval()
    return {metric: value, f"{metric}_ci_low": low, f"{metric}_ci_high": high}


def _student(metric: str, values: np.ndarray) -> dict[str, float]:
    mean = float(values.mean()) if len(values) else float("nan")
    half = float("nan")
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {metric: mean, f"{metric}_ci_low": mean - half, f"{metric}_ci_high": mean + half}


def _mean(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.mean())


OTHERS = ("scrub", "token_mask", "counterfactual_subspace", "best linear eraser", "gsae")
"""What the debiaser is compared with; fixed before the first run."""
LINEAR_ERASERS = ("mean_diff", "leace", "leace_conditional", "inlp", "splince")
"""Among which the best is chosen, by the mean worst-group accuracy that is then compared: to our loss."""
_POWER = critical_value(0.6)  # the normal quantile of 80%


def compare_with_family(summary: Sequence[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """Return a record for each regime of ``ssae_default``, head kind and member of the family that was run.

    A member is taken in that regime where it has a row of it, else in the regime that it has. Difference in worst-group
    accuracy, the debiaser minus the other, with a 95% interval, p value, Holm's p over the members of that regime and
    head, and the smallest difference that this test would find with 80% power.
    """
    records = []
    for regime in dict.fromkeys(row["regime"] for row in summary if row["method"] == "ssae_default"):
        for head in HEADS:
            alike = [row for row in summary if head_kind(row) == head]
            ours = [row for row in alike if (row["method"], row["regime"]) == ("ssae_default", regime)]
            if ours:
                records += _family(ours[0], alike, answers)
    return records


def _family(ours: dict[str, Any], alike: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    found = [(name, _member(name, ours, alike)) for name in OTHERS]
    records = [_record(name, ours, row, answers) for name, row in found if row is not None]
    for record, p in zip(records, holm([r["p_value"] for r in records]), strict=True):
        record["p_holm"] = float(p)
    return records


def _member(name: str, ours: dict[str, Any], alike: list[dict[str, Any]]) -> dict[str, Any] | None:
    names = LINEAR_ERASERS if name == "best linear eraser" else (name,)
    rows = [row for row in alike if row["method"] in names and row["setting"] == ours["setting"]]
    same = [row for row in rows if row["regime"] == ours["regime"]]
    full = [row for row in rows if row["regime"] in ("concept", "labelled")]
    candidates = [row for row in same or full if row["n_seeds"] == ours["n_seeds"]]
    return max(candidates, key=lambda row: row["worst_group_accuracy"], default=None)


def _record(name: str, ours: dict[str, Any], other: dict[str, Any], answers: Answers) -> dict[str, Any]:
    a, b = (answers.moves(key_of(row), "worst_group_accuracy") for row in (ours, other))
    difference = a.minus(b)
    value, low, high = difference.interval()
    half = (high - low) / 2
    low, high = max(low, -1.0), min(high, 1.0)
    return {
        "setting": ours["setting"],
        "head": head_kind(ours),
        "regime": ours["regime"],
        "of": ours["method"],
        "against": name,
        "method": other["method"],
        "method_regime": other["regime"],
        "difference": value,
        "ci_low": low,
        "ci_high": high,
        "p_value": difference.p_value(),
        "smallest_detectable": half * (1 + _POWER / critical_value(0.95)),
        "n_seeds": ours["n_seeds"],
    }


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
