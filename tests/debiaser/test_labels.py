"""Labels with holes: rows without a target or an attribute train the SAE and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from small_debiaser import CONFIG, make_texts

from debias_ssae import Concept, SSAEDebiaser
from debias_ssae.core.config import SAEConfig, SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import select_from_labels
from debias_ssae.debiaser.intervention import draw_labelled
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder

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
        {"residual": None},
        {"residual": "leace"},
        {"edit": "keep", "hookpoint": "final"},
        {"hookpoint": "auto"},
    ],
)
def test_a_missing_target_is_a_missing_attribute(options: dict[str, Any], small_encoder: Path) -> None:
    if options.get("residual") == "leace":
        pytest.importorskip("concept_erasure", reason="LEACE comes from the extra baselines")
    a = fit(small_encoder, TARGET, np.where(KNOWN, ATTRIBUTE, None), **options)
    b = fit(small_encoder, np.where(KNOWN, TARGET, None), ATTRIBUTE, **options)
    assert a.latents_.tolist() == b.latents_.tolist()
    assert np.array_equal(a.transform(TEXTS), b.transform(TEXTS))
    numbers = np.where(KNOWN, TARGET == "nurse", np.nan)
    assert fit(small_encoder, numbers, ATTRIBUTE, **options).latents_.tolist() == a.latents_.tolist()


def test_the_guard_of_a_concept_reads_known_targets_alone(small_encoder: Path, concept: Concept) -> None:
    y = np.where(KNOWN, TARGET, None)
    found = fit(small_encoder, y, None, concept=concept).interventions_["embeddings"].found
    assert found is not None
    assert "hedged" in found.report
    one_class = fit(small_encoder, np.where(TARGET == "nurse", TARGET, None), None, concept=concept)
    unguarded = one_class.interventions_["embeddings"].found
    assert unguarded is not None
    assert unguarded.report.keys() == found.report.keys() - {"hedged"} | {"guard"}
    assert "1 of 1 classes" in unguarded.report["guard"]


@pytest.mark.parametrize("wrap", [pd.DataFrame, pa.array, pd.Series, lambda y: y.reshape(-1, 1).tolist()])
def test_a_column_is_a_target(wrap: Any) -> None:
    rng = np.random.default_rng(0)
    X, y, z = rng.normal(size=(120, 6)).astype(np.float32), np.arange(120) % 2, np.arange(120) % 3 > 0
    X[:, 0] += 3 * z
    made = SSAEDebiaser(config=CONFIG, random_state=0).fit(X, wrap(y), sensitive_features=z)
    assert (
        made.latents_.tolist()
        == SSAEDebiaser(config=CONFIG, random_state=0).fit(X, y, sensitive_features=z).latents_.tolist()
    )
    with pytest.raises(ValueError, match="1d array"):
        SSAEDebiaser(config=CONFIG).fit(X, np.stack([y, y], axis=1), sensitive_features=z)


def test_keeping_needs_a_target(fitted: SSAEDebiaser) -> None:
    rows = fitted.encoder_.rows(TEXTS, "embeddings")
    with pytest.raises(InputError, match="pass y"):
        select_from_labels(fitted.sae_, rows, None, ATTRIBUTE, CONFIG.selection, keep=True)


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
    found = select_from_labels(sae, rows, y, z, SelectionConfig(most_latents=32, guard=False), random_state=0)
    assert len(found.latents) == expected
    assert ("attribute readable at the hookpoint" in caplog.text) == (expected == 8)
    assert found.report["n_latents"]["left"] < 0.25 or expected == 8


def test_of_many_labels_some_of_every_cell_are_looked_at() -> None:
    z = np.where(KNOWN, ATTRIBUTE, None)
    texts, y, values = draw_labelled(TEXTS, TARGET, z, SelectionConfig(min_cell=2), 0)
    assert texts == [text for text, known in zip(TEXTS, KNOWN, strict=True) if known]
    assert y.tolist() == TARGET[KNOWN].tolist()
    assert values.tolist() == ATTRIBUTE[KNOWN].tolist()
    few = SelectionConfig(min_cell=2, max_labelled=20)
    texts, y, values = draw_labelled(TEXTS, TARGET, z, few, 0)
    assert pd.Series(values).groupby([y, values]).size().tolist() == [5, 5, 5, 5]
    assert [list(TEXTS).index(text) for text in texts] == sorted(list(TEXTS).index(text) for text in texts)
    assert draw_labelled(TEXTS, None, z, few, 0)[1] is None
