"""Where to edit: on which texts the candidates are compared, whatever the labels look like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_debiaser import CONFIG, make_texts

from debias_ssae import Concept, SSAEDebiaser
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.hookpoints import draw_sample


@pytest.mark.parametrize("minority", [0.03, 0.2])
def test_every_cell_of_confounded_texts_is_drawn_from(minority: float) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    z = np.where(rng.random(2000) < minority, 1 - y, y)
    texts = [str(i) for i in range(2000)]
    sample = draw_sample(texts, y=y, sensitive_features=z, random_state=0)
    rows = np.array(list(map(int, sample.texts)))
    assert len(set(rows)) == len(rows) <= 500
    assert np.array_equal(sample.z, z[rows])
    assert sample.y is not None
    sizes = [np.sum((sample.y == c) & (sample.z == g)) for c in (0, 1) for g in (0, 1)]
    assert min(sizes) >= 20
    again = draw_sample(texts, y=y, sensitive_features=z, random_state=0)
    assert again.texts == sample.texts


def test_small_cells_and_lone_classes_are_left_out() -> None:
    y, z = np.repeat(["p", "q", "r"], 60), np.tile([0, 1], 90)
    z[60:120] = 0
    z[120:] = 0
    z[120:125] = 1
    sample = draw_sample([str(i) for i in range(180)], y=y, sensitive_features=z)
    assert set(sample.y) == {"p"}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name a hookpoint"):
        draw_sample([str(i) for i in range(180)], y=z, sensitive_features=z)


def test_few_counterfactuals_and_seed_texts_do(small_encoder: Path, concept: Concept) -> None:
    plain = [" ".join(w for w in t.split() if w not in concept.words) for t in make_texts(60)]
    few = [*plain, *(f"{word} works in the city" for word in ("he", "she", "his", "her"))]
    seeds = {"male": tuple(f"he {t}" for t in plain[:7]), "female": tuple(f"she {t}" for t in plain[7:14])}
    for given, texts in ((concept, few), (Concept(values=("male", "female"), seed_texts=seeds), plain)):
        made = SSAEDebiaser(
            str(small_encoder), concept=given, hookpoint="auto", config=CONFIG, random_state=0
        ).fit(texts)
        assert len(made.interventions_) == 1
        assert made.residual_ is None or given.pairs
        assert set(made.record_["left_by_hookpoint"]) == {"embeddings", "blocks.0", "final"}


def test_one_counterfactual_cannot_compare(small_encoder: Path, concept: Concept) -> None:
    options: dict[str, Any] = {"concept": concept, "hookpoint": "auto", "config": CONFIG}
    with pytest.raises(InputError, match="there are 1, two are needed"):
        SSAEDebiaser(str(small_encoder), **options).fit(["she works", "the city", "the clinic"])
