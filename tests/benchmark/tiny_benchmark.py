"""A whole benchmark in seconds: a random model of three narrow blocks, sentences made of its few words."""

import numpy as np
import pandas as pd

from debias_ssae.benchmark.protocol import Split
from debias_ssae.core.config import (
    ActivationConfig,
    BenchmarkConfig,
    DebiasConfig,
    RetrievalConfig,
    SelectionConfig,
    TrainConfig,
)

TINY = BenchmarkConfig(
    methods=(),
    n_latents=8,
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
        selection=SelectionConfig(max_texts=40, min_cell=3),
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
    """In each cell 6 texts for test, 10 with groups, 4 left over; the head has 20 of the rest, or 20 and 5."""
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
