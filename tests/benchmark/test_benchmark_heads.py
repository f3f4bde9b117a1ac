"""One rule for every head's C, on its own data; weights."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.core.stats.heads import FIXED_C, GRID, choose_c, fit_head

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 10))
y = np.where(X[:, 0] + 0.5 * rng.normal(size=300) > 0, "a", "b")


def logistic(C: float):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))


def test_c_is_the_smallest_with_the_best_cross_validated_accuracy() -> None:
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    accuracy = [cross_val_score(logistic(C), X, y, cv=folds).mean() for C in GRID]
    model = fit_head(X, y, random_state=3)
    chosen = model[-1]
    assert accuracy[GRID.index(chosen.C)] == max(accuracy)
    assert GRID.index(chosen.C) == accuracy.index(max(accuracy))
    assert choose_c(X, y, random_state=3) == chosen.C
    assert (model.predict(X) == y).mean() > 0.8


def test_scale_of_the_representation_does_not_matter() -> None:
    a, b = (fit_head(X * s, y).predict(X * s) for s in (1, 1000))
    assert (a == b).all()


def test_a_weight_is_as_many_copies() -> None:
    weight = np.where(y == "a", 3.0, 1.0)
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    Z = StandardScaler().fit_transform(X)
    weighted = fit_head(X, y, C=FIXED_C, sample_weight=weight)[-1]
    repeated = LogisticRegression(C=FIXED_C, max_iter=500).fit(Z[copies], y[copies])
    plain = fit_head(X, y, C=FIXED_C)[-1]
    assert weighted.coef_ == pytest.approx(repeated.coef_, abs=1e-3)
    assert weighted.intercept_ < plain.intercept_ - 0.2
