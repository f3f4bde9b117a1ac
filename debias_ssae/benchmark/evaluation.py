"""From a variant's representations to result rows and per-example predictions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from debias_ssae.auditing import worst_group_accuracy
from debias_ssae.benchmark.heads import Head, fit_heads
from debias_ssae.benchmark.methods import Seed, Variant

PREDICTION_KEYS = (
    "method",
    "setting",
    "regime",
    "representation",
    "head",
    "head_model",
    "C_rule",
    "draw",
    "seed",
)


def evaluate(
    seed: Seed, variant: Variant, frozen: list[Head]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield a result row and its predictions for each head: retrained, and trained before the edit.

    ``frozen`` are heads fitted on the plain representations of the head's texts; they see every method's
    output as it is, and shifted so that the mean of the head's texts stays where it was. ERM and the oracle
    have no edit, so for them there is only the one head.
    """
    corpus, split = seed.corpus, seed.split
    y, z = corpus.y[split.test], corpus.z[split.test]
    if variant.method == "oracle":
        retrained = fit_heads(variant.X_attribute, corpus.y[split.attribute], random_state=seed.number)
    elif variant.method == "erm":
        retrained = frozen
    else:
        retrained = fit_heads(variant.X_head, corpus.y[split.head], random_state=seed.number)
    leak = leakage(variant, corpus.z[split.attribute], z, seed.number)
    majority = corpus.majority
    name = f"{corpus.config.pooling}({corpus.config.layer})"
    kinds = [("retrained", name, retrained, variant.X_test)]
    if variant.method not in ("erm", "oracle"):
        shift = seed.plain_head.mean(axis=0) - variant.X_head.mean(axis=0)
        kinds.append(("frozen", name, frozen, variant.X_test))
        kinds.append(("frozen", f"{name}, re-centred", frozen, variant.X_test + shift))
    for kind, representation, heads, X_test in kinds:
        for head in heads:
            y_pred = head.predict(X_test)
            row = {
                "method": variant.method,
                "setting": corpus.config.setting,
                "regime": variant.regime,
                "representation": representation,
                "head": kind,
                "head_model": "logistic",
                "C": head.C,
                "C_rule": head.C_rule,
                "d_sae": variant.d_sae,
                "n_latents": variant.n_latents,
                "draw": variant.draw,
                "seed": seed.number,
                **scores(y, y_pred, z, majority),
                "leakage": leak,
                "seconds_fit": variant.seconds_fit,
                "seconds_transform": variant.seconds_transform,
            }
            keys = {key: row[key] for key in PREDICTION_KEYS}
            yield (
                row,
                pd.DataFrame(
                    {**keys, "text_id": corpus.text_ids[split.test], "y": y, "z": z, "y_pred": y_pred}
                ),
            )


def scores(y: np.ndarray, y_pred: np.ndarray, z: np.ndarray, majority: dict[str, str]) -> dict[str, Any]:
    """Accuracies of one head on the test texts. ``attribute_accuracy``: how often the prediction, read as its
    class's majority attribute value, gives the attribute away (one over the number of values is chance).
    """
    cells = {
        f"{c}, {g}": np.mean(y_pred[(y == c) & (z == g)] == c) for c in np.unique(y) for g in np.unique(z)
    }
    return {
        "accuracy": float(accuracy_score(y, y_pred)),
        "balanced_accuracy": float(balanced_accuracy_score(y, y_pred)),
        "worst_group_accuracy": float(worst_group_accuracy(y, y_pred, sensitive_features=z)),
        "worst_group": min(cells, key=lambda cell: cells[cell]),
        "attribute_accuracy": float(np.mean([majority[c] == g for c, g in zip(y_pred, z, strict=True)])),
    }


def leakage(variant: Variant, z_train: np.ndarray, z_test: np.ndarray, random_state: int) -> float:
    """Balanced accuracy of a linear attribute probe: fitted on set A, C by cross-validation, scored on test."""
    probe, _ = fit_heads(variant.X_attribute, z_train, random_state=random_state)
    return float(balanced_accuracy_score(z_test, probe.predict(variant.X_test)))
