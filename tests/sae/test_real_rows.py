"""The bars on real activations: MiniLM's embedding output on a general corpus."""

import pytest
import torch
from planted_sae import evaluate

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.model import load_model, stream_rows
from debias_ssae.sae import shuffled_batches, train_sae
from debias_ssae.text import load_corpus


@pytest.fixture(scope="module")
def rows(data_dir):
    texts = load_corpus(data_dir / "general_corpus" / "data.parquet")[::40]
    found = torch.cat(list(stream_rows(load_model("minilm"), texts, "embeddings")))
    # the corpus comes source by source: what is held out is to be like what is trained on
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


@pytest.mark.slow
@pytest.mark.realdata
def test_few_latents_die_and_bfloat16_costs_nothing(rows):
    test, train = rows[:10_000], rows[10_000:]
    cfg = SAEConfig(d_in=384, d_sae=768, k=32)
    measured = {}
    for dtype in ("float32", "bfloat16"):
        settings = TrainConfig(n_steps=200, batch_size=1024, matmul_dtype=dtype, device="cpu")
        sae = train_sae(shuffled_batches(train, 1024, 0), cfg, settings, random_state=0).sae
        measured[dtype] = evaluate(sae, test)
        assert measured[dtype]["dead_fraction"] < 0.01
        assert measured[dtype]["l0"] == pytest.approx(32, rel=0.1)
        assert measured[dtype]["fvu"] < 0.3
    assert measured["bfloat16"]["fvu"] == pytest.approx(measured["float32"]["fvu"], rel=0.01)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("architecture", ["matryoshka", "jumprelu"])
def test_under_one_in_a_hundred_latents_is_dead_at_the_end(rows, architecture):
    cfg = SAEConfig(d_in=384, d_sae=768, k=32, architecture=architecture)
    settings = TrainConfig(n_steps=250, batch_size=1024, device="cpu")
    sae = train_sae(shuffled_batches(rows[10_000:], 1024, 0), cfg, settings, random_state=0).sae
    assert evaluate(sae, rows)["dead_fraction"] < 0.01
