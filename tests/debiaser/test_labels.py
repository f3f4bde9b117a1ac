"""Labels with holes: rows without a target or an attribute train the SAE and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from small_debiaser import CONFIG, make_texts

from debias_ssae import SSAEDebiaser
from debias_ssae.core.config import SAEConfig, SelectionConfig
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import AnnotatedTexts, FitData
from debias_ssae.selection.select import select_from_labels

TEXTS = make_texts(160, seed=1)
TARGET = np.array(["nurse" if i % 2 else "surgeon" for i in range(160)], dtype=object)
ATTRIBUTE = np.array(["f" if i % 3 else "m" for i in range(160)], dtype=object)
KNOWN = np.arange(160) % 5 > 0


def fit(encoder: Path, y: Any, z: Any, **options: Any) -> SSAEDebiaser:
    made = SSAEDebiaser(str(encoder), **{"config": CONFIG, "random_state": 0, **options})
    return made.fit(TEXTS, y, sensitive_features=z)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_eraser": None},
        {"output_eraser": "leace"},
    ],
)
def test_a_missing_target_is_a_missing_attribute(options: dict[str, Any], small_encoder: Path) -> None:
    if options.get("output_eraser") == "leace":
        pytest.importorskip("concept_erasure", reason="LEACE comes from the extra baselines")
    a = fit(small_encoder, TARGET, np.where(KNOWN, ATTRIBUTE, None), **options)
    b = fit(small_encoder, np.where(KNOWN, TARGET, None), ATTRIBUTE, **options)
    assert a.intervention_.selection.ids.tolist() == b.intervention_.selection.ids.tolist()
    assert np.array_equal(a.transform(TEXTS), b.transform(TEXTS))
    numbers = np.where(KNOWN, TARGET == "nurse", np.nan)
    assert (
        fit(small_encoder, numbers, ATTRIBUTE, **options).intervention_.selection.ids.tolist()
        == a.intervention_.selection.ids.tolist()
    )


@pytest.mark.parametrize("wrap", [pd.DataFrame, pa.array, pd.Series, lambda y: y.reshape(-1, 1).tolist()])
def test_a_column_is_a_target(wrap: Any) -> None:
    rng = np.random.default_rng(0)
    X, y, z = rng.normal(size=(120, 6)).astype(np.float32), np.arange(120) % 2, np.arange(120) % 3 > 0
    X[:, 0] += 3 * z
    made = SSAEDebiaser(config=CONFIG, random_state=0).fit(X, wrap(y), sensitive_features=z)
    assert (
        made.intervention_.selection.ids.tolist()
        == SSAEDebiaser(config=CONFIG, random_state=0)
        .fit(X, y, sensitive_features=z)
        .intervention_.selection.ids.tolist()
    )
    with pytest.raises(ValueError, match="must be flat"):
        SSAEDebiaser(config=CONFIG).fit(X, np.stack([y, y], axis=1), sensitive_features=z)


@pytest.mark.parametrize(("carriers", "expected"), [(16, 16), (64, 8)])
def test_where_latents_do_not_carry_the_attribute_few_go(
    carriers: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One latent a column; the attribute moves ``carriers`` of 64 columns, of which 32 latents may go."""
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 2, 600), rng.integers(0, 2, 600)
    x = rng.exponential(1.0, size=(600, 64))
    x[:, :carriers] += z[:, None] * 16 / carriers
    sae = SparseAutoencoder(SAEConfig(d_in=64, d_sae=64, k=64, architecture="relu"))
    sae.W_enc.data, sae.W_dec.data = torch.eye(64), torch.eye(64)
    at = torch.arange(600)
    rows = Activations(torch.from_numpy(x).float(), at, at, torch.zeros(600, 2, dtype=torch.int64), 600)
    found = select_from_labels(sae, rows, y, z, SelectionConfig(most_latents=32), random_state=0)
    assert len(found.ids) == expected
    assert ("attribute readable at the hookpoint" in caplog.text) == (expected == 8)
    assert found.report["n_latents"]["left"] < 0.25 or expected == 8


def drawn(y: Any, z: Any, config: SelectionConfig) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Texts, values and target that the selection looks at."""
    data = FitData(TEXTS, y, CONFIG.updated(selection=config), random_state=0)
    texts, codes, values, y = AnnotatedTexts(TEXTS, z, y).drawn(data)
    return texts, np.array(values)[codes], y


def test_of_many_labels_some_of_every_cell_are_looked_at() -> None:
    z = np.where(KNOWN, ATTRIBUTE, None)
    texts, values, y = drawn(TARGET, z, SelectionConfig(min_cell=2))
    assert y is not None
    assert texts == [text for text, known in zip(TEXTS, KNOWN, strict=True) if known]
    assert y.tolist() == TARGET[KNOWN].tolist()
    assert values.tolist() == ATTRIBUTE[KNOWN].tolist()
    few = SelectionConfig(min_cell=2, max_labelled=20)
    texts, values, y = drawn(TARGET, z, few)
    assert pd.Series(values).groupby([y, values]).size().tolist() == [5, 5, 5, 5]
    assert [list(TEXTS).index(text) for text in texts] == sorted(list(TEXTS).index(text) for text in texts)
    assert drawn(None, z, few)[2] is None
