"""One seed judged by the plain heads only: worst-group and balanced accuracy, for sweeps of many points."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.benchmark.answers import KEYS, Answers
from debias_ssae.benchmark.heads import choose_c, fit_logistic
from debias_ssae.benchmark.methods import Corpus, Seed
from debias_ssae.benchmark.passes import Encoding

HEADS = ("retrained", "frozen", "frozen, re-centred")
METRICS = ("worst_group_accuracy", "balanced_accuracy")


class BareSeed:
    """Heads with C by cross-validation; no leakage, no counterfactuals, no MLP."""

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        corpus, split = seed.corpus, seed.split
        self.plain = self._run(corpus.passes.plain())
        self.frozen = self._head(self.plain[0], corpus.y[split.head])

    def erm(self) -> dict[str, np.ndarray]:
        """Predictions of the head without any edit."""
        return {"retrained": self.frozen.predict(self.plain[1])}

    def oracle(self) -> dict[str, np.ndarray]:
        """Predictions of a head trained on set A."""
        corpus, rows = self.seed.corpus, self.seed.split.attribute
        X = corpus.passes.run(corpus.passes.plain(), corpus.texts)[0][rows]
        return {"retrained": self._head(X, corpus.y[rows]).predict(self.plain[1])}

    def edited(self, encoding: Encoding) -> dict[str, np.ndarray]:
        """Predictions of each head under an edit."""
        head, test = self._run(encoding)
        retrained = self._head(head, self.seed.corpus.y[self.seed.split.head])
        shift = self.plain[0].mean(axis=0) - head.mean(axis=0)
        seen = (retrained, test), (self.frozen, test), (self.frozen, test + shift)
        return {name: model.predict(X) for name, (model, X) in zip(HEADS, seen, strict=True)}

    def part(
        self, method: str, setting: str, predictions: dict[str, np.ndarray], **facts: Any
    ) -> tuple[list[dict[str, Any]], pd.DataFrame]:
        """A row and the predictions of each head; ``setting`` is the point of the sweep."""
        corpus, rows = self.seed.corpus, self.seed.split.test
        made, frames = [], []
        for head, y_pred in predictions.items():
            keys = dict.fromkeys(KEYS, "") | {"method": method, "setting": setting, "head": head}
            keys |= {"head_model": "logistic", "C_rule": "cv"}
            made.append({**keys, **facts, "seed": self.seed.number})
            tested = {"text_id": corpus.text_ids[rows], "y": corpus.y[rows], "z": corpus.z[rows]}
            frames.append(
                pd.DataFrame({**keys, "draw": 0, "seed": self.seed.number, **tested, "y_pred": y_pred})
            )
        return made, pd.concat(frames, ignore_index=True)

    def _run(self, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
        corpus, split = self.seed.corpus, self.seed.split
        if encoding.shared:
            X = corpus.passes.run(encoding, corpus.texts)[0]
            return X[split.head], X[split.test]
        X = corpus.passes.run(encoding, self.seed.texts(np.concatenate([split.head, split.test])))[0]
        return X[: len(split.head)], X[len(split.head) :]

    def _head(self, X: np.ndarray, y: np.ndarray) -> Any:
        return fit_logistic(X, y, choose_c(X, y, random_state=self.seed.number))


def summarise_bare(rows: list[dict[str, Any]], answers: Answers) -> Iterator[dict[str, Any]]:
    """Yield one row for each point, method and head: the facts' means, accuracies with intervals, WGA by seed."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    for key, members in groups.items():
        facts = {name: _mean([m.get(name) for m in members]) for name in members[0] if name not in KEYS}
        facts.pop("seed")
        summary = {name: value for name, value in zip(KEYS, key, strict=True) if value != ""} | facts
        for metric in METRICS:
            moves = answers.moves(key, metric)
            value, low, high = moves.interval()
            summary |= {metric: value, f"{metric}_ci_low": low, f"{metric}_ci_high": high}
            summary[f"{metric}_seeds"] = [float(one) for one in moves.point]
        yield summary


def of_seed(corpus: Corpus, splits: Any, number: int) -> BareSeed:
    """The seed ``number`` of a run."""
    return BareSeed(Seed(corpus, splits[number], number))


def _mean(values: list[Any]) -> Any:
    known = [v for v in values if v is not None]
    if not known or isinstance(known[0], str):
        return known[0] if known else None
    return float(np.mean(known))
