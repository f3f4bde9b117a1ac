"""A service's day: texts in a stream with flat memory, and requests from many threads, each answered as if alone.

The language model is a small random BERT that the script makes, so that nothing has to be downloaded. Memory is what
the process holds (resident), measured after the first tenth and at the end. Libraries keep a kernel for each new shape
of a batch, so the same batches are sent again and again afterwards: then nothing at all may grow.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transform_scale import WORDS
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from debias_ssae import DebiasConfig, SSAEDebiaser, TrainConfig

VOCABULARY = ["[PAD]", "[UNK]", *WORDS, "her", "his", "a", "of", "hospital", "old", "with"]
STEP = TrainConfig(n_steps=20, batch_size=256)
CONFIG = {"d_sae": 64, "k": 8, "general": STEP, "special": STEP, "selection": {"min_cell": 5}}
BATCH = 500
REQUESTS = 64
"""Different requests, of 1 to 20 texts."""


def texts_of(n: int, rng: np.random.Generator) -> list[str]:
    """Sentences of 3 to 24 words, hardly any of them twice."""
    return [" ".join(rng.choice(VOCABULARY[2:], rng.integers(3, 25))) for _ in range(n)]


def fitted(folder: Path) -> SSAEDebiaser:
    """A debiaser of a small random model, saved and loaded as a service does."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(folder / "lm")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertModel(BertConfig(**sizes, vocab_size=len(VOCABULARY), max_position_embeddings=40)).save_pretrained(
        folder / "lm"
    )
    texts = texts_of(200, np.random.default_rng(0))
    debiaser = SSAEDebiaser(str(folder / "lm"), config=DebiasConfig(**CONFIG), n_latents=6, random_state=0)  # type: ignore[arg-type]
    debiaser.fit(texts, sensitive_features=["she" in text.split() for text in texts]).save(folder / "model")
    return SSAEDebiaser.load(folder / "model")


def resident_mib() -> float:
    """What the process holds in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def stream(debiaser: SSAEDebiaser, n_texts: int) -> dict[str, Any]:
    """Transform ``n_texts`` texts, a batch at a time; how much memory was held along the way."""
    rng, held, begin, before = np.random.default_rng(1), [], time.process_time(), 0.0
    n_batches = max(10, n_texts // BATCH)
    for i in range(n_batches):
        if not np.isfinite(debiaser.transform(texts_of(BATCH, rng))).all():
            raise SystemExit("an answer is not finite")
        if (i + 1) % (n_batches // 10) == 0:
            held.append(round(resident_mib(), 1))
    same = [texts_of(BATCH, rng) for _ in range(4)]
    for i in range(4 + n_batches // 8):
        debiaser.transform(same[i % 4])
        before = resident_mib() if i == 3 else before
    return {
        "texts": n_batches * BATCH,
        "texts_sent_again": (n_batches // 8) * BATCH,
        "grown_mib_when_sent_again": round(resident_mib() - before, 1),
        "resident_mib_each_tenth": held,
        "grown_mib_after_the_first_tenth": round(held[-1] - held[0], 1),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def requests(debiaser: SSAEDebiaser, n_requests: int, n_threads: int) -> dict[str, Any]:
    """Answer ``n_requests`` requests from ``n_threads`` threads; how many answers differ from the one given alone."""
    rng, begin = np.random.default_rng(2), time.process_time()
    asked = [texts_of(int(rng.integers(1, 21)), rng) for _ in range(REQUESTS)]
    alone = [debiaser.transform(texts) for texts in asked]
    before = resident_mib()

    def differs(i: int) -> float:
        return float(np.abs(debiaser.transform(asked[i]) - alone[i]).max())

    with ThreadPoolExecutor(n_threads) as pool:
        found = list(pool.map(differs, rng.integers(0, REQUESTS, n_requests).tolist()))
    return {
        "requests": n_requests,
        "threads": n_threads,
        "answers_that_differ": sum(d > 0 for d in found),
        "largest_difference": max(found),
        "grown_mib": round(resident_mib() - before, 1),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def soak(n_texts: int, n_requests: int, n_threads: int = 8) -> dict[str, Any]:
    """Return what both did."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        debiaser = fitted(Path(folder))
        return {"stream": stream(debiaser, n_texts), "requests": requests(debiaser, n_requests, n_threads)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "soak.json")
    given = parser.parse_args()
    results = soak(given.texts, given.requests, given.threads)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
