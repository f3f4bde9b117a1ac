"""How good and how light retrieval is. Writes benchmarks/results/retrieval.json.

Precision: pool = a general corpus and 3,000 biographies, seeds = 50 others; share of biographies among the first
2,000 retrieved, for each method over the same pool, and for the plain maximum over seeds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

N_SEEDS, N_BIOS, N_AT = 50, 3000, 2000


def precision(data: Path, cache_dir: Path, seed: int, tracin_steps: int) -> dict[str, Any]:
    """Share of biographies at 2,000 for each method, near duplicates kept apart as retrieve does."""
    from debias_ssae.retrieval import embed_texts, retrieve

    general = pd.read_parquet(data / "general_corpus" / "data.parquet")["text"].tolist()
    bios = (
        pd.read_parquet(data / "bias_in_bios_surgeon_nurse" / "data.parquet")
        .iloc[:, 0]
        .drop_duplicates()
        .tolist()
    )
    order = np.random.default_rng(seed).permutation(len(bios))
    seeds = [bios[i] for i in order[:N_SEEDS]]
    pool = general + [bios[i] for i in order[N_SEEDS : N_SEEDS + N_BIOS]]
    vectors = embed_texts(pool, cache_dir=cache_dir, progress=True)
    out: dict[str, Any] = {"pool": len(pool), "seeds": N_SEEDS, "at": N_AT}
    maximum = np.argsort(-(vectors @ embed_texts(seeds).T).max(1), kind="stable")[:N_AT]
    out["maximum over seeds"] = float((maximum >= len(general)).mean())
    for method in ("dense", "bm25", "hybrid", "tracin"):
        start = time.process_time()
        rerank = _rerank(general, seeds, tracin_steps) if method == "tracin" else None
        found = retrieve(
            seeds, pool, n_texts=N_AT, method=method, vectors=vectors, rerank=rerank, n_candidates=4000
        )
        out[method] = float((found.corpus_ids >= len(general)).mean())
        out[f"{method} CPU-seconds"] = time.process_time() - start
        print(f"{method}: {out[method]:.3f}", flush=True)
    return out


def _rerank(general: list[str], seeds: list[str], n_steps: int) -> Any:
    """A small general SAE at the embedding output, then TracIn's scorer."""
    import torch

    from debias_ssae.core.config import SAEConfig, TrainConfig
    from debias_ssae.model import harvest, load_model
    from debias_ssae.sae.influence import tracin_scorer
    from debias_ssae.sae.training import shuffled_batches, train_sae

    model = load_model("minilm")
    x = harvest(model, general[::20], "blocks.3", max_length=128).x
    sae = train_sae(
        shuffled_batches(x, 1024, 0),
        SAEConfig(d_in=384, d_sae=1024),
        TrainConfig(n_steps=n_steps, batch_size=1024),
        random_state=0,
    ).sae
    torch.set_num_threads(1)
    return tracin_scorer(model, sae, seeds, hookpoint="blocks.3")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="The folder of real data sets.")
    parser.add_argument("--cache-dir", type=Path, required=True, help="Where vectors are kept.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracin-steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "retrieval.json")
    arguments = parser.parse_args()
    results = {
        "precision_at_2000": precision(
            arguments.data, arguments.cache_dir, arguments.seed, arguments.tracin_steps
        ),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
