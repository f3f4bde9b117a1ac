"""scikit-learn's own checks on the numeric path: where nothing is selected, and where selection runs."""

from typing import Any, Self

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from debias_ssae import DebiasConfig, SSAEDebiaser, TrainConfig
from debias_ssae.core.config import SelectionConfig

QUICK = DebiasConfig(
    d_sae=16,
    k=4,
    general=TrainConfig(n_steps=12, batch_size=64),
    special=TrainConfig(n_steps=6, batch_size=64, lr=5e-4, tilt="auto"),
    selection=SelectionConfig(min_cell=1),
)


class AttributeFromX(SSAEDebiaser):
    """Derives an attribute from the first column, so that selection and erasure run under the checks."""

    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None, exclude: Any = None) -> Self:
        values = np.asarray(X)
        if values.ndim == 2 and values.size and values.dtype.kind == "f" and np.isfinite(values).all():
            above = values[:, 0] > np.median(values[:, 0])
            sensitive_features = above.astype(str) if 0 < above.sum() < len(above) else None
        return super().fit(X, None, sensitive_features=sensitive_features)


@pytest.mark.filterwarnings("ignore::debias_ssae.NothingRemovedWarning")
@parametrize_with_checks(
    [SSAEDebiaser(config=QUICK, random_state=0), AttributeFromX(config=QUICK, random_state=0)]
)
def test_sklearn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_the_subclass_removes_something() -> None:
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    fitted = AttributeFromX(config=QUICK, random_state=0).fit(X)
    assert len(fitted.intervention_.selection.ids) > 0
    assert not np.allclose(fitted.transform(X), X)


def test_a_row_of_a_matrix_is_edited_alike_whatever_is_beside_it() -> None:
    X = np.random.default_rng(0).normal(size=(90, 6))
    fitted = AttributeFromX(config=QUICK, random_state=0).fit(X)
    whole = fitted.transform(X)
    for rows in (slice(1), slice(40, 47)):
        np.testing.assert_allclose(fitted.transform(X[rows]), whole[rows], rtol=1e-12, atol=1e-12)
