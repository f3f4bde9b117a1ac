"""From a variant to result rows and per-example predictions."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from debias_ssae.audit.leakage import probe_leakage
from debias_ssae.audit.rates import confusion, summary_values
from debias_ssae.benchmark.answers import PREDICTION_KEYS
from debias_ssae.benchmark.heads import Head, Validation, fit_heads
from debias_ssae.benchmark.methods import Rows, Seed, Variant

MEASURES = (
    "accuracy",
    "balanced_accuracy",
    "worst_group_accuracy",
    "tpr_gap_rms",
    "demographic_parity_difference",
    "equalized_odds_difference",
)
LEAKAGE = tuple(
    f"leakage{probe}{given}{control}"
    for given in ("", "_given_y")
    for probe in ("", "_mlp")
    for control in ("", "_shuffled")
)

LEAKAGE_FOLDS = 3
"""Of the test texts, for the probes."""


class Test(NamedTuple):
    """One kind of head and the rows that it predicts."""

    kind: str
    representation: str
    heads: list[Head]
    rows: Rows


def evaluate(
    seed: Seed, variant: Variant, frozen: list[Head]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield a result row and its predictions for each head: retrained, and trained before the edit.

    ``frozen`` are ``frozen_heads(seed)``; they see an edited representation as it is, and shifted so that the
    mean of the head's texts stays where it was. A variant that edits nothing, or that is itself a classifier,
    has one kind of head.
    """
    corpus, test = seed.corpus, seed.split.test
    y, z = corpus.y[test], corpus.z[test]
    facts = _facts(seed, variant)
    for kind, representation, heads, rows in _tests(seed, variant, frozen):
        for head in heads:
            y_pred = head.predict(rows.test, z)
            row = {
                "method": variant.method,
                "setting": corpus.config.setting,
                "regime": variant.regime,
                "representation": representation,
                "head": kind,
                "head_model": head.head_model,
                "C": head.C,
                "C_rule": head.C_rule,
                "draw": variant.draw,
                "seed": seed.number,
                **scores(y, y_pred, z, corpus.majority),
                **_flips(head, rows, y_pred),
                **facts,
            }
            keys = {key: row[key] for key in PREDICTION_KEYS}
            yield (
                row,
                pd.DataFrame({**keys, "text_id": corpus.text_ids[test], "y": y, "z": z, "y_pred": y_pred}),
            )


def frozen_heads(seed: Seed) -> list[Head]:
    """Heads trained on the plain representations of the head's texts."""
    return fit_heads(
        seed.plain.head, seed.head_y, validation=_validation(seed, seed.plain), random_state=seed.number
    )


def _tests(seed: Seed, variant: Variant, frozen: list[Head]) -> Iterator[Test]:
    rows, name = variant.rows, f"{seed.corpus.config.pooling}({seed.corpus.config.layer})"
    if variant.heads:
        yield Test("retrained", name, list(variant.heads), rows)
        return
    if rows.plain and variant.training is None:
        yield Test("retrained", name, frozen, rows)
        return
    yield Test("retrained", name, _retrained(seed, variant), rows)
    if variant.training is None and rows.head.shape[1] == seed.plain.head.shape[1]:
        before, after = (X.mean(axis=0, dtype=np.float64) for X in (seed.plain.head, rows.head))
        shift = (before - after).astype(rows.head.dtype)
        yield Test("frozen", name, frozen, rows)
        yield Test("frozen", f"{name}, re-centred", frozen, rows.map(lambda X: X + shift))


def _retrained(seed: Seed, variant: Variant) -> list[Head]:
    validation = _validation(seed, variant.rows)
    if variant.training is None:
        return fit_heads(variant.rows.head, seed.head_y, validation=validation, random_state=seed.number)
    X, y, weight, chooses = variant.training
    return fit_heads(
        X, y, sample_weight=weight, chooses=chooses, validation=validation, random_state=seed.number
    )


def _validation(seed: Seed, rows: Rows) -> Validation:
    chosen, at = seed.choosing, seed.split.attribute
    return Validation(rows.attribute[chosen], seed.corpus.y[at][chosen], seed.corpus.z[at][chosen])


def _facts(seed: Seed, variant: Variant) -> dict[str, Any]:
    """What is the same for all heads of a variant."""
    return {
        "hookpoint": variant.hookpoint,
        # at the embeddings an SAE sees a token without its context
        "level": None
        if variant.hookpoint is None
        else "token"
        if variant.hookpoint == "embeddings"
        else "context",
        "d_sae": variant.d_sae,
        "n_latents": variant.n_latents,
        "needs_attribute": variant.needs_attribute,
        "n_parameters": variant.n_parameters,
        **_leakage(seed, variant.rows),
        "seconds_fit": variant.seconds_fit,
        "seconds_transform": variant.seconds_transform,
    }


def scores(y: np.ndarray, y_pred: np.ndarray, z: np.ndarray, majority: dict[str, str]) -> dict[str, Any]:
    """Measures of one head on the test texts. ``attribute_accuracy``: how often the prediction, read as its
    class's majority attribute value, gives the attribute away (one over the number of values is chance).
    ``cells``: size and accuracy of each cell (class x attribute).
    """
    classes, codes = np.unique(np.concatenate([y, y_pred]), return_inverse=True)
    groups, group_codes = np.unique(z, return_inverse=True)
    counts = confusion(group_codes, codes[: len(y)], codes[len(y) :], (len(groups), len(classes)))
    sizes = counts.sums.sum(axis=-1)
    found = summary_values(counts, len(classes) - 1)
    right = np.diagonal(counts.sums, axis1=-2, axis2=-1)
    cells = {
        f"{classes[c]}, {groups[g]}": {"n": int(sizes[g, c]), "accuracy": float(right[g, c] / sizes[g, c])}
        for c, g in np.argwhere(sizes.T > 0)
    }
    return {
        **{name: float(found[name]) for name in MEASURES},
        "worst_group": min(cells, key=lambda cell: cells[cell]["accuracy"]),
        "attribute_accuracy": float(np.mean([majority.get(c) == g for c, g in zip(y_pred, z, strict=True)])),
        "cells": cells,
    }


def _flips(head: Head, rows: Rows, y_pred: np.ndarray) -> dict[str, Any]:
    """Share of test texts whose prediction changes with the attribute's words, and of how many texts: "flips"
    with the words of the run's concept, "flips_unlisted" with such of them as the method was not given.
    """
    found: dict[str, Any] = {}
    for kind, name in (("listed", "flips"), ("unlisted", "flips_unlisted")):
        counterfactuals = rows.counterfactuals.get(kind)
        # a counterfactual has no known attribute to hand to those who ask for it
        n = 0 if counterfactuals is None or head.needs_attribute else len(counterfactuals.at)
        found |= {name: None, f"{name}_n": n}
        if counterfactuals is not None and n:
            found[name] = float(np.mean(head.predict(counterfactuals.X) != y_pred[counterfactuals.at]))
    return found


def _leakage(seed: Seed, rows: Rows) -> dict[str, float | None]:
    """Many methods leave the representation as it is: it is probed once."""
    if not rows.plain:
        return leakage(seed, rows)
    if not seed.plain_leakage:
        seed.plain_leakage.update(leakage(seed, rows))
    return seed.plain_leakage


def leakage(seed: Seed, rows: Rows) -> dict[str, float | None]:
    """Balanced accuracy of attribute probes: marginal and inside each class, linear and a small network, and each
    fitted on a shuffled attribute. Cross-fitted on the test texts, which no method has seen: on set A, where many
    are fitted, an eraser leaves nothing to find whatever it leaves elsewhere.
    """
    corpus, test = seed.corpus, seed.split.test
    report = probe_leakage(
        rows.test,
        corpus.z[test],
        corpus.y[test],
        probes=("linear", "mlp"),
        n_folds=LEAKAGE_FOLDS,
        mdl=False,
        random_state=seed.number,
    )
    found: dict[str, float | None] = dict.fromkeys(LEAKAGE)
    for result in report.results:
        name = "leakage" + ("_mlp" if result.probe == "mlp" else "") + ("_given_y" if result.given_y else "")
        found[name], found[f"{name}_shuffled"] = result.balanced_accuracy, result.shuffled
    return found
