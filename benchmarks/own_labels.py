"""The commonest way to call it: fit(X, y, sensitive_features=z), where one text in ten of a class breaks the shortcut.

python benchmarks/own_labels.py --data DATA [--seeds 3] [--out benchmarks/results/own_labels.json]

In training 90% of each class hold the class's usual value of the attribute, which is known for these texts. Each method
is fitted on them; a head is trained on the same texts, once on their debiased representations (retrained) and once on
the plain ones (frozen), and judged by the worst of the test's balanced cells. The oracle learns from as many balanced
texts. The best simple method is the best on the test; the difference to it has a 95% interval of paired resamples of
the cells' texts.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from everywhere import biographies, reviews, wiki

from debias_ssae import ActivationEncoder, SSAEDebiaser
from debias_ssae.baselines import LEACE, MeanDifference
from debias_ssae.core.io import write_json
from debias_ssae.core.stats.heads import fit_head

CASES = {
    "biographies": (biographies, ("nurse", "surgeon"), ("F", "M"), 120),
    "wiki": (wiki("athlete", "writer"), ("athlete", "writer"), None, 60),
    "reviews": (reviews, ("negative", "positive"), None, 120),
}
"""The two classes, the usual value of each (None: in the values' order), and the test texts of a cell."""
USUAL, RARE = 270, 30
SIMPLE = {
    "mean difference": MeanDifference(),
    "mean difference in each class": MeanDifference(conditional=True),
    "LEACE": LEACE(),
    "LEACE in each class": LEACE(conditional=True),
}


def parts(table: pd.DataFrame, classes: Any, usual: Any, n_test: int, seed: int) -> list[pd.DataFrame]:
    """Training, test and balanced training texts of one seed."""
    table = table.drop_duplicates("text").sample(frac=1, random_state=seed)
    usual = dict(zip(classes, usual or sorted(table["sensitive"].unique()), strict=True))
    found: list[list[pd.DataFrame]] = [[], [], []]
    for (target, value), cell in table.groupby(["target", "sensitive"]):
        rest = cell[n_test:]
        for part, rows in zip(
            found,
            (
                rest[: USUAL if usual[target] == value else RARE],
                cell[:n_test],
                rest[: (USUAL + RARE) // 2],
            ),
            strict=True,
        ):
            part.append(rows)
    return [pd.concat(part).sample(frac=1, random_state=seed).reset_index(drop=True) for part in found]


def one_seed(name: str, data: Path, corpus: list[str], seed: int) -> dict[str, Any]:
    """Which test texts each method got right, cell by cell."""
    load, *rest = CASES[name]
    train, test, balanced = parts(load(data), *rest, seed)
    texts, held = train["text"].tolist(), test["text"].tolist()
    y, z = train["target"].to_numpy(), train["sensitive"].to_numpy()
    encoder = ActivationEncoder("minilm")
    plain, plain_held = encoder.encode(texts), encoder.encode(held)
    before, cells = (
        fit_head(plain, y),
        [rows.to_numpy() for rows in test.groupby(["target", "sensitive"]).groups.values()],
    )
    right: dict[str, dict[str, Any]] = {}

    def judge(method: str, x: np.ndarray, x_held: np.ndarray) -> None:
        heads = {"retrained": fit_head(x, y), "frozen": before}
        right[method] = {k: head.predict(x_held) == test["target"].to_numpy() for k, head in heads.items()}
        print(
            name, seed, method, {k: round(worst(v, cells), 3) for k, v in right[method].items()}, flush=True
        )

    judge("ERM", plain, plain_held)
    oracle = fit_head(encoder.encode(balanced["text"].tolist()), balanced["target"].to_numpy())
    right["oracle"] = {"retrained": oracle.predict(plain_held) == test["target"].to_numpy()}
    for method, linear in SIMPLE.items():
        linear.fit(plain, y, sensitive_features=z)
        judge(method, linear.transform(plain), linear.transform(plain_held))
    debiaser = SSAEDebiaser(encoder, corpus=corpus, random_state=seed)
    debiaser.fit(texts, y, sensitive_features=z, exclude=held)
    judge("default", debiaser.transform(texts), debiaser.transform(held))
    picked = (debiaser.report_.get("choice") or {}).get("picked")
    print(name, seed, "picked", picked, flush=True)
    return {"right": right, "cells": cells, "picked": picked}


def worst(right: np.ndarray, cells: list[np.ndarray]) -> float:
    """Accuracy of the worst cell."""
    return float(min(right[cell].mean() for cell in cells))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the default less the best simple method."""
    found: dict[str, Any] = {"picked": [run["picked"] for run in runs]}
    for head in ("retrained", "frozen"):
        table = {
            method: [worst(run["right"][method][head], run["cells"]) for run in runs]
            for method, made in runs[0]["right"].items()
            if head in made
        }
        best = max(SIMPLE, key=lambda method: np.mean(table[method]))
        rng, draws = np.random.default_rng(0), []
        for _ in range(1000):
            moved = []
            for run in runs:
                cells = [rng.choice(cell, len(cell)) for cell in run["cells"]]
                ours, other = (worst(run["right"][method][head], cells) for method in ("default", best))
                moved.append(ours - other)
            draws.append(np.mean(moved))
        found[head] = {
            "worst_group": table,
            "mean": {method: float(np.mean(values)) for method, values in table.items()},
            "best_simple": best,
            "difference": float(np.mean(table["default"]) - np.mean(table[best])),
            "interval": np.quantile(draws, [0.025, 0.975]).tolist(),
        }
    return found


def main() -> None:
    """Measure every case and seed, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-corpus", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "own_labels.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    corpus = pd.read_parquet(given.data / "general_corpus" / "data.parquet")["text"].tolist()[
        : given.n_corpus
    ]
    results = {}
    for name in given.only:
        results[name] = summary([one_seed(name, given.data, corpus, seed) for seed in range(given.seeds)])
        for head in ("retrained", "frozen"):
            print(name, head, results[name][head], flush=True)
        write_json(given.out, {"usual": USUAL, "rare": RARE, "cases": results})


if __name__ == "__main__":
    main()
