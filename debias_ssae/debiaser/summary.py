"""What ``fit`` did, in numbers and in words: what was removed, what a probe still reads, what it cost."""

from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from debias_ssae.core.stats.heads import FIXED_C, logistic_head, quiet
from debias_ssae.core.steps import duration
from debias_ssae.debiaser.output import KINDS, Samples, apply_output, fit_eraser
from debias_ssae.erase import LinearEraser

if TYPE_CHECKING:
    from debias_ssae.debiaser.pipeline import Fitted

MEASURED = 400
"""Samples that are looked at; their representations are at hand for most of what follows the edit."""
MOST_NAMES = 12
LOST = 0.02
"""A smaller difference of the target's figures is no loss: fewer than ten of MEASURED samples."""
FEWEST = 20
"""Fewer samples of a value say nothing."""


def measure(samples: Mapping[str, Samples], fitted: "Fitted") -> dict[str, Any]:
    """Return how well probes read each attribute and the target, before and after: balanced accuracy, 5 folds.

    ``samples`` are those of each attribute, by its name; the target is read in the first. An output eraser of the
    package's is fitted anew on each fold's training part: on what it was fitted on, nothing is left to read, whatever
    it leaves elsewhere.
    """
    found: dict[str, Any] = {}
    for name, all_of_it in samples.items():
        if len(all_of_it.X) < 2 * FEWEST:
            continue
        seen = all_of_it.some(MEASURED, np.random.default_rng(0))
        if (read := _both(seen, seen.z, fitted)) is not None:
            found[name] = read
        if "target" not in found and (read := _both(seen, seen.y, fitted)) is not None:
            found["target"] = read
    return found


def _both(seen: Samples, labels: np.ndarray | None, fitted: "Fitted") -> dict[str, Any] | None:
    """How well ``labels`` are read before and after; None where too few are known."""
    if labels is None:
        return None
    known = np.flatnonzero([value == value and value is not None for value in labels])
    codes, part = np.unique(labels[known], return_inverse=True)[1], seen.at(known)
    # a text that is there several times is one sample
    sizes = np.bincount(np.unique(np.stack([codes, part.together]), axis=1)[0])
    if len(sizes) < 2 or sizes.min() < FEWEST:
        return None
    return {
        "before": _read(part, codes, partial(_before, part)),
        "after": _read(part, codes, partial(_after, part, fitted)),
        "chance": 1 / len(sizes),
        "n": len(seen.X),
    }


def _before(samples: Samples, train: np.ndarray) -> np.ndarray:
    return samples.plain


def _after(samples: Samples, fitted: "Fitted", train: np.ndarray) -> np.ndarray:
    if fitted.output_kind not in KINDS or not isinstance(fitted.output_eraser, LinearEraser):
        return apply_output(fitted.output_eraser, samples.edited)
    return fit_eraser(fitted.output_kind, samples.at(train))(samples.edited)  # pairs stay whole, and in order


def _read(samples: Samples, codes: np.ndarray, of_fold: Callable[[np.ndarray], np.ndarray]) -> float:
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    predicted = np.empty_like(codes)
    with quiet():
        for train, test in folds.split(codes, codes, samples.together):
            X = of_fold(train)
            probe = logistic_head(FIXED_C, class_weight="balanced")
            predicted[test] = probe.fit(X[train], codes[train]).predict(X[test])
    return float(balanced_accuracy_score(codes, predicted))


def sentences(report: Mapping[str, Any]) -> list[str]:
    """Return ``report`` as sentences, most telling first."""
    lines = []
    for hookpoint, one in report.get("removed", {}).items():
        said = [name if n == 1 else f"{name} ({n} latents)" for name, n in one.get("names", {}).items()]
        names = "; ".join(said[:MOST_NAMES])
        names += f"; and {len(said) - MOST_NAMES} more" if len(said) > MOST_NAMES else ""
        lines.append(
            f"Removed {one['n']} of {one['d_sae']:,} latents at {hookpoint}"
            + (f": {names}." if names else ".")
        )
    kind = report.get("output_eraser")
    if kind:
        said_of = "one for each attribute" if kind == "auto" else kind.replace("_", " ")
        lines.append(f"Output eraser: {said_of}.")
    if choice := report.get("choice"):
        lines.append(_chosen(choice))
    for name, one in sorted(report.get("measured", {}).items(), key=lambda item: item[0] == "target"):
        what = f"the {name}" if name in ("attribute", "target") else name
        lines.append(
            f"A linear probe reads {what} with balanced accuracy {one['before']:.2f} before and {one['after']:.2f} "
            f"after (chance {one['chance']:.2f}; {one['n']} training samples, 5 folds)."
            + (_cost(one["before"] - one["after"]) if name == "target" else "")
        )
    if "seconds" in report:
        lines.append(f"Fitted in {duration(report['seconds'])}.")
    return lines


def _cost(lost: float) -> str:
    """What a lower figure for the target means."""
    if lost < LOST:
        return (
            " The target is read as well as before, in training texts that may hold the shortcut: debias-ssae evaluate "
            "on balanced texts tells more."
        )
    return f" The {lost:.2f} lost is what the edit costs, or what the shortcut gave: debias-ssae evaluate tells which."


def _chosen(choice: Mapping[str, Any]) -> str:
    """What was tried and why this was picked."""

    def scored(name: str) -> str:
        one = choice["candidates"][name]
        return f"{one['worst_group_retrained']:.2f} retrained, {one['worst_group_frozen']:.2f} frozen"

    picked, default = choice["picked"], choice["default"]
    on = "the labelled texts"
    if choice.get("of_pairs"):
        on = "swapped pairs of the listed words"
    elif choice.get("as_they_are"):
        on = "the training texts as they are"
    if picked == default:
        return (
            f"{len(choice['candidates'])} ways were tried on {on}; no other is clearly better than "
            f"{default} (worst group {scored(default)})."
        )
    start = "Here latents do not help" if picked.endswith("alone") and picked != "latents alone" else "Picked"
    return (
        f"{start}: {picked}. Tried on {on}, its worst group is {scored(picked)}; that of the default, {default}, is "
        f"{scored(default)}."
    )


def html(report: Mapping[str, Any]) -> str:
    """Return ``report`` for a notebook."""
    items = "".join(f"<li>{escape(line)}</li>" for line in sentences(report))
    return f"<ul>{items}</ul>"
