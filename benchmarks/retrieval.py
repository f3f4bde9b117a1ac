"""How good and how light retrieval is. Writes benchmarks/results/retrieval.json.

Precision: pool = a general corpus and 3,000 biographies, seeds = 50 others; share of biographies among the first
2,000 retrieved, for each method over the same pool, and for the plain maximum over seeds. ``--only fit`` measures what
``fit`` does by default, embedding included, beside other lengths at which texts are cut.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

N_SEEDS, N_BIOS, N_AT = 50, 3000, 2000


def pool_of(data: Path, seed: int) -> tuple[list[str], list[str], int]:
    """Return the seeds, the pool, and how many texts of the pool are general: they come first."""
    general = pd.read_parquet(data / "general_corpus" / "data.parquet")["text"].tolist()
    bios = pd.read_parquet(data / "bias_in_bios_surgeon_nurse" / "data.parquet").iloc[:, 0].drop_duplicates()
    texts = [bios.iloc[i] for i in np.random.default_rng(seed).permutation(len(bios))]
    return texts[:N_SEEDS], general + texts[N_SEEDS : N_SEEDS + N_BIOS], len(general)


def as_fit(data: Path, seed: int) -> dict[str, dict[str, float]]:
    """Precision and CPU-seconds of retrieval as ``fit`` does it, by the tokens at which texts are cut."""
    from debias_ssae.core.config import RetrievalConfig
    from debias_ssae.retrieval import load_embedder, retrieve

    seeds, pool, n_general = pool_of(data, seed)
    config, out = RetrievalConfig(n_texts=N_AT), {}
    load_embedder(config.embedder)
    for length in (16, 32):
        start = time.process_time()
        options = config.updated(max_length=length).model_dump()
        found = retrieve(seeds, pool, **options)
        seconds = time.process_time() - start
        out[str(length)] = {
            "precision": float((found.corpus_ids >= n_general).mean()),
            "cpu_seconds": seconds,
        }
        print(length, out[str(length)], flush=True)
    return out


def precision(data: Path, cache_dir: Path | None, seed: int, tracin_steps: int) -> dict[str, Any]:
    """Share of biographies at 2,000 for each method, near duplicates kept apart as retrieve does."""
    from debias_ssae.retrieval import embed_texts, retrieve

    seeds, pool, n_general = pool_of(data, seed)
    general = pool[:n_general]
    vectors = embed_texts(pool, cache_dir=cache_dir)
    out: dict[str, Any] = {"pool": len(pool), "seeds": N_SEEDS, "at": N_AT}
    maximum = np.argsort(-(vectors @ embed_texts(seeds).T).max(1), kind="stable")[:N_AT]
    out["maximum over seeds"] = float((maximum >= n_general).mean())
    for method in ("dense", "bm25", "hybrid", "tracin"):
        start = time.process_time()
        if method == "tracin":
            candidates = retrieve(seeds, pool, n_texts=2 * N_AT, cache_dir=cache_dir)
            order = np.argsort(-influences(candidates.texts, general, seeds, tracin_steps), kind="stable")
            chosen = candidates.corpus_ids[order[:N_AT]]
        else:
            chosen = retrieve(seeds, pool, n_texts=N_AT, method=method, cache_dir=cache_dir).corpus_ids
        out[method] = float((chosen >= n_general).mean())
        out[f"{method} CPU-seconds"] = time.process_time() - start
        print(f"{method}: {out[method]:.3f}", flush=True)
    return out


def influences(texts: list[str], general: list[str], seeds: list[str], n_steps: int) -> NDArray[np.float64]:
    """TracIn of each text on the seeds' loss under a small general SAE: the mean over its rows, -1 without any."""
    import torch
    from tracin import row_influence, seed_gradient

    from debias_ssae.core.config import SAEConfig, TrainConfig
    from debias_ssae.model import harvest, load_model
    from debias_ssae.sae.training import shuffled_batches, train_sae

    model = load_model("minilm").with_limits(128)
    x = harvest(model, general[::20], "blocks.3").x
    sae = train_sae(
        shuffled_batches(x, 1024, 0),
        SAEConfig(d_in=384, d_sae=1024),
        TrainConfig(n_steps=n_steps, batch_size=1024),
        random_state=0,
    ).sae
    torch.set_num_threads(1)
    gradient = seed_gradient(sae, harvest(model, seeds, "blocks.3").x)
    rows = harvest(model, texts, "blocks.3")
    owners, pulls = rows.text_ids.numpy(), row_influence(sae, gradient, rows.x).numpy()
    sums, counts = (np.bincount(owners, weights=w, minlength=len(texts)) for w in (pulls, None))
    return np.where(counts > 0, sums / np.maximum(counts, 1), -1.0)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="The folder of real data sets.")
    parser.add_argument("--cache-dir", type=Path, help="Where vectors are kept.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("fit", "methods"))
    parser.add_argument("--tracin-steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "retrieval.json")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if arguments.only != "fit":
        options = (arguments.cache_dir, arguments.seed, arguments.tracin_steps)
        results["precision_at_2000"] = precision(arguments.data, *options)
    if arguments.only != "methods":
        results["as fit, by tokens"] = as_fit(arguments.data, arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
