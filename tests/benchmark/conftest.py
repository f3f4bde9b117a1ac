"""Seeds of the tiny benchmark."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_benchmark import TINY, tiny_split

from debias_ssae.benchmark.methods import Corpus, Seed
from debias_ssae.benchmark.splits import Split, majority_values
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.text.concept import Concept

sys.path.append(str(Path(__file__).parents[1] / "model"))


@pytest.fixture(scope="session")
def make_seed() -> Callable[..., Seed]:
    """Build a seed of the tiny benchmark: ``make_seed(table, split=None, pool=None, **config)``."""
    from small_models import sentences, small_model

    model = small_model("bert")
    pool = sentences(60, seed=5)

    def make(
        table: pd.DataFrame, split: Split | None = None, *, extra: tuple[str, ...] = (), **options
    ) -> Seed:  # type: ignore[no-untyped-def]
        fields = {
            name: options.pop(name) for name in ("cache_dir", "concept", "attribute_texts") if name in options
        }
        config = TINY.updated(**options)
        encoder = ActivationEncoder("tiny", token_budget=config.debias.activations.token_budget)
        encoder.__dict__["language_model"] = model
        y, z = table.target.to_numpy(str), table.sensitive.to_numpy(str)
        corpus = Corpus(
            texts=table.text.tolist(),
            text_ids=np.arange(len(table)),
            y=y,
            z=z,
            majority=majority_values(y, z),
            pool=[*pool, *extra],
            config=config,
            encoder=encoder,
            **{"concept": Concept.load("gender"), **fields},
        )
        return Seed(corpus, split or tiny_split(table, config.setting), 0)

    return make
