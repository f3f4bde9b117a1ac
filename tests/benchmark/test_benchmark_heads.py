"""One rule for every head's C, on its own data or on validation; weights; the network."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.benchmark.heads import Head, Validation, fit_heads
from debias_ssae.core.stats.heads import FIXED_C, GRID, choose_c, fit_head

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 10))
y = np.where(X[:, 0] + 0.5 * rng.normal(size=300) > 0, "a", "b")


def logistic(C: float):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))


def rules(heads: list[Head]) -> list[tuple[str, str]]:
    return [(head.head_model, head.C_rule) for head in heads]


def test_c_is_the_smallest_with_the_best_cross_validated_accuracy() -> None:
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    accuracy = [cross_val_score(logistic(C), X, y, cv=folds).mean() for C in GRID]
    chosen, fixed, network = fit_heads(X, y, random_state=3)
    assert accuracy[GRID.index(chosen.C)] == max(accuracy)
    assert GRID.index(chosen.C) == accuracy.index(max(accuracy))
    assert choose_c(X, y, random_state=3) == chosen.C
    assert rules([chosen, fixed, network]) == [("logistic", "cv"), ("logistic", "fixed"), ("mlp", "fixed")]
    assert (fixed.C, network.C) == (FIXED_C, None)
    for head in (chosen, fixed, network):
        assert (head.predict(X) == y).mean() > 0.8


def test_scale_of_the_representation_does_not_matter() -> None:
    a, b = (fit_heads(X * s, y)[0].predict(X * s) for s in (1, 1000))
    assert (a == b).all()


def test_group_rule_takes_the_worst_groups_best_c() -> None:
    held = rng.normal(size=(200, 10))
    validation = Validation(held, np.where(held[:, 0] > 0, "a", "b"), np.where(held[:, 1] > 0, "F", "M"))
    group = next(head for head in fit_heads(X, y, validation=validation) if head.C_rule == "group")

    def worst(C: float) -> float:
        right = logistic(C).fit(X, y).predict(held) == validation.y
        cells = {(c, g) for c, g in zip(validation.y, validation.z, strict=True)}
        return min(right[(validation.y == c) & (validation.z == g)].mean() for c, g in cells)

    found = [worst(C) for C in GRID]
    assert found[GRID.index(group.C)] == max(found)
    assert found.index(max(found)) == GRID.index(group.C)


def test_a_weight_is_as_many_copies() -> None:
    weight = np.where(y == "a", 3.0, 1.0)
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    Z = StandardScaler().fit_transform(X)
    weighted = fit_head(X, y, C=FIXED_C, sample_weight=weight)[-1]
    repeated = LogisticRegression(C=FIXED_C, max_iter=500).fit(Z[copies], y[copies])
    plain = fit_head(X, y, C=FIXED_C)[-1]
    assert weighted.coef_ == pytest.approx(repeated.coef_, abs=1e-3)
    assert weighted.intercept_ < plain.intercept_ - 0.2
