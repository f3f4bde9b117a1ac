"""Models in pairs, on the same rows: signed differences with intervals."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy.sparse import csr_array

from debias_ssae.audit.measures import Row, Section
from debias_ssae.audit.rates import Array, Codes, Counts, Deciding, summary_values
from debias_ssae.core.stats import extremes, shares

COMPARED = (
    "accuracy",
    "balanced_accuracy",
    "worst_group_accuracy",
    "tpr_gap_max",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
_RATES = {
    "tpr_gap_max": ("true_positive_rate",),
    "demographic_parity_difference": ("selection_rate",),
    "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
}
_DELTA = "directional delta, paired"
MOST_GROUPS = 60
"""Beyond, the pairs of groups are too many for the directional method."""


def comparison_rows(section: Section, measures: list[Row], rng: np.random.Generator) -> list[Row]:
    """One row a pair of models x measure: ``model_a - model_b``, the later model minus the earlier.

    ``measures`` are the section's rows of all models.

    Accuracy, worst-group accuracy and gaps have intervals of their own (Bonett and Price; directional delta). Gaps
    are biased under resampling, so with weights or too many groups theirs joins the two models' intervals (MOVER,
    Zou 2008), with the correlation that a bootstrap of the same rows shows. Balanced accuracy, and weighted
    accuracies, are bootstrapped: the union of the percentile and the reflected interval. Weighted rows are
    bootstrapped one by one, and the method says so.
    """
    if len(section.predicted) < 2:
        return []
    # which rates count is settled as observed: a draw may leave one empty, but never changes it
    decides = next(section.slices()).decides
    draws = _draws(section, decides, rng)
    single = {(r["model"], r["metric"]): r for r in measures}
    unweighted = section.weights is None
    kind = "count bootstrap" if unweighted else "row bootstrap"
    table = []
    for b, a in combinations(section.predicted, 2):
        for metric in COMPARED:
            value = single[a, metric]["value"] - single[b, metric]["value"]
            p = float("nan")
            if unweighted and metric in ("accuracy", "worst_group_accuracy"):
                low, high, p, method = _closed_form(section, a, b, metric, decides)
            elif metric in _RATES and unweighted and len(section.attribute.groups) <= MOST_GROUPS:
                gap = extremes.widest_gap_difference(*paired_counts(section, a, b, metric, decides))
                low, high, method = float(gap.low), float(gap.high), _DELTA
            elif metric in _RATES:
                low, high = _joined(single[a, metric], single[b, metric], draws[a][metric], draws[b][metric])
                method = f"MOVER, correlation from a {kind}"
            else:
                low, high = _ends(draws[a][metric] - draws[b][metric], value)
                method = kind
            row = {"section": section.name, "model_a": a, "model_b": b, "metric": metric, "difference": value}
            judged = {"p": p, "outcome": _outcome(low, high, metric), "method": method}
            table.append(row | {"ci_low": low, "ci_high": high} | judged)
    return table


def _joined(one: Row, two: Row, x: Array, y: Array) -> tuple[float, float]:
    """Ends of the difference of two gaps from each one's own interval; ``x``, ``y``: their draws."""
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = x[defined], y[defined]
    r = float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.std() > 0 and y.std() > 0 else 0.0
    # shared rows tighten the difference; where a gap may be 0 its noise is folded, and the ends simply add up
    r = min(max(r, 0.0), 1.0) if min(one["ci_low"], two["ci_low"]) > 0 else -1.0
    difference = one["value"] - two["value"]
    down = _hypotenuse(one["value"] - one["ci_low"], two["ci_high"] - two["value"], r)
    up = _hypotenuse(one["ci_high"] - one["value"], two["value"] - two["ci_low"], r)
    return float(max(difference - down, -1.0)), float(min(difference + up, 1.0))


def _hypotenuse(a: float, b: float, r: float) -> float:
    return float(np.sqrt(np.maximum(a * a + b * b - 2 * r * a * b, 0.0)))


def _outcome(low: float, high: float, metric: str) -> str:
    if np.isnan(low) or np.isnan(high):
        return "undefined"
    if low <= 0 <= high:
        return "no difference found"
    higher_is_better = "accuracy" in metric
    return "a better" if (low > 0) == higher_is_better else "b better"


def _ends(draws: Array, value: float) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or len(draws) < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(min(low, 2 * value - high)), float(max(high, 2 * value - low))


def _closed_form(
    section: Section, a: str, b: str, metric: str, decides: Deciding
) -> tuple[float, float, float, str]:
    """Ends, p value and method."""
    right_a, right_b = (section.predicted[m] == section.truth for m in (a, b))
    cell = section.attribute.codes * len(section.classes) + section.truth
    masks = (right_a & ~right_b, right_b & ~right_a, right_a & right_b, np.ones_like(right_a))
    only_a, only_b, both, n = (np.bincount(cell[mask], minlength=decides.cells.size) for mask in masks)
    if metric == "accuracy":
        low, high = shares.paired_difference(only_a.sum(), only_b.sum(), n.sum())
        p = float(shares.sign_test(only_a.sum(), only_b.sum()))
        return float(low), float(high), p, "Bonett-Price; McNemar mid-p"
    counted = decides.cells.ravel()  # the others count as without rows
    found = extremes.lowest_share_difference(*(v * counted for v in (only_a, only_b, both, n)))
    return float(found.low), float(found.high), float("nan"), _DELTA


def paired_counts(section: Section, a: str, b: str, metric: str, decides: Deciding) -> Array:
    """[4, n_families, n_groups] rows hit by a alone, by b alone, by both, and all rows, for the rates behind a gap.

    Rates that decide nothing have no rows.
    """
    families = []
    for label in range(len(section.classes)) if metric == "tpr_gap_max" else section.labels:
        labelled = section.truth == label
        insides = {
            "true_positive_rate": labelled,
            "false_positive_rate": ~labelled,
            "selection_rate": np.ones_like(labelled),
        }
        hit_a, hit_b = section.predicted[a] == label, section.predicted[b] == label
        masks = (hit_a & ~hit_b, hit_b & ~hit_a, hit_a & hit_b, np.ones_like(hit_a))
        for rate in _RATES[metric]:
            kept = decides.rates[rate][:, label]
            inside = (section.attribute.codes[insides[rate] & mask] for mask in masks)
            families.append([np.bincount(codes, minlength=len(kept)) * kept for codes in inside])
    return np.array(families, dtype=float).transpose(1, 0, 2)


def _draws(section: Section, decides: Deciding, rng: np.random.Generator) -> dict[str, dict[str, Array]]:
    """Each model's measures [n_bootstrap] under resampling of the same rows for all models.

    Rows that share group, label and every model's prediction are one category, of which only the count is drawn.
    """
    n, n_groups = len(section.classes), len(section.attribute.groups)
    joint = base = section.attribute.codes * n + section.truth
    for codes in section.predicted.values():
        # numbered anew each time, so that many models do not overflow the code
        joint = np.unique(joint * n + codes, return_inverse=True)[1]
    _, first, where = np.unique(joint, return_index=True, return_inverse=True)
    n_cells, order = n_groups * n * n, np.arange(len(first))
    # [n_cells, n_categories]: which cell of a model's confusion counts each category belongs to
    merges = {
        m: csr_array((np.ones(len(first)), ((base * n + codes)[first], order)), shape=(n_cells, len(first)))
        for m, codes in section.predicted.items()
    }
    found: dict[str, list[dict[str, Array]]] = {m: [] for m in merges}
    step = max(1, 4_000_000 // n_cells)  # draws that fit in memory
    for counts in _drawn_counts(section, where, len(first), rng):
        for part in (counts[i : i + step] for i in range(0, len(counts), step)):
            for model, merge in merges.items():
                sums = (merge @ part.T).T.reshape(len(part), n_groups, n, n)
                found[model].append(summary_values(Counts(sums, sums), section.positive, decides))
    return {
        m: {k: np.concatenate([one[k] for one in chunks]) for k in chunks[0]} for m, chunks in found.items()
    }


def _drawn_counts(section: Section, where: Codes, n: int, rng: np.random.Generator) -> Iterator[Array]:
    """[n_draws, n] rows, or sums of weights, of each category; ``where`` is each row's."""
    if section.weights is None:
        for chunk in shares.count_draws(
            np.bincount(where, minlength=n).astype(float), section.n_bootstrap, rng
        ):
            yield chunk.astype(float)
    else:
        for times in shares.row_draws(len(where), section.n_bootstrap, rng):
            yield np.bincount(where, section.weights * times, n)[None].astype(float)
