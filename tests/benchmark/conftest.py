"""A whole benchmark in seconds: a random model of three narrow blocks, sentences made of its few words."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from debias_ssae.benchmark.methods import Corpus, Seed
from debias_ssae.benchmark.splits import Split, majority_values
from debias_ssae.concept import Concept
from debias_ssae.config import (
    ActivationConfig,
    BenchmarkConfig,
    DebiasConfig,
    RetrievalConfig,
    SelectionConfig,
    TrainConfig,
)
from debias_ssae.encoder import ActivationEncoder

sys.path.append(str(Path(__file__).parents[1] / "activations"))

TINY = BenchmarkConfig(
    methods=(),
    n_test=6,
    n_attribute=10,
    max_head=20,
    short_concepts={"pronouns": "pronouns", "he_she": ["he", "she"]},
    bottleneck_words=("clinic", "city", "born in"),
    debias=DebiasConfig(
        d_sae=48,
        k=6,
        general=TrainConfig(n_steps=8, batch_size=64),
        special=TrainConfig(n_steps=4, batch_size=64, lr=5e-4, tilt="auto"),
        general_rows=1_000,
        retrieval=RetrievalConfig(n_texts=20, method="bm25"),
        activations=ActivationConfig(dtype="float32"),
        selection=SelectionConfig(n_latents=8, max_texts=40, min_cell=3),
    ),
)
_WORDS = ("the", "a", "works", "in", "city", "clinic", "and", "of", "with", "was", "born", "2", ".")
_PRONOUNS = {"F": ("she", "her", "Mary"), "M": ("he", "his", "James")}


def sentence(rng: np.random.Generator, target: str, gender: str) -> str:
    """A sentence that names profession and gender. All are equally long, so that a text's batch has the same
    shape whatever the other texts say, and its vector the same bits.
    """
    words = [*rng.choice(_WORDS, 6), target, *rng.choice(_PRONOUNS[gender], 2), *rng.choice(_WORDS, 2)]
    return " ".join(rng.permutation(words))


def tiny_table(classes: tuple[str, ...] = ("nurse", "surgeon"), n: int = 40) -> pd.DataFrame:
    """Columns text, target, sensitive; ``n`` texts of each cell."""
    rng = np.random.default_rng(0)
    cells = [(c, g) for c in classes for g in ("F", "M")]
    rows = [(sentence(rng, c, g), c, g) for c, g in cells for _ in range(n)]
    return pd.DataFrame(rows, columns=["text", "target", "sensitive"])


def tiny_split(table: pd.DataFrame, setting: str = "confounded") -> Split:
    """In each cell 6 texts for test, 10 for A, 4 left over; the head has 20 of the rest, or 20 and 5."""
    head, attribute, test, rest = [], [], [], []
    classes = list(table.target.unique())
    for (c, g), rows in table.groupby(["target", "sensitive"]).groups.items():
        test += list(rows[:6])
        attribute += list(rows[6:16])
        rest += list(rows[16:20])
        if (classes.index(c) % 2 == 0) == (g == "F"):
            head += list(rows[20:40])
        elif setting == "natural":
            head += list(rows[20:26])
    return Split(*(np.array(sorted(part)) for part in (head, attribute, test, rest)))


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
