"""One rule for every head's C, on its own data."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debias_ssae.benchmark.heads import FIXED_C, GRID, fit_heads

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 10))
y = np.where(X[:, 0] + 0.5 * rng.normal(size=300) > 0, "a", "b")


def test_c_is_the_smallest_with_the_best_cross_validated_accuracy() -> None:
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    accuracy = [
        cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500)), X, y, cv=folds
        ).mean()
        for C in GRID
    ]
    chosen, fixed = fit_heads(X, y, random_state=3)
    assert accuracy[GRID.index(chosen.C)] == max(accuracy)
    assert GRID.index(chosen.C) == accuracy.index(max(accuracy))
    assert (chosen.C_rule, fixed.C_rule, fixed.C) == ("cv", "fixed", FIXED_C)
    assert (chosen.predict(X) == y).mean() > 0.8


def test_scale_of_the_representation_does_not_matter() -> None:
    a, b = (fit_heads(X * s, y)[0].predict(X * s) for s in (1, 1000))
    assert (a == b).all()
