"""Absorption, splitting and hedging on a causal language model: TopK beside Matryoshka, wide beside narrow.

python benchmarks/absorption.py --data DATA --encoder MODEL --out results/absorption [--only topk-8192-8 ...] [--ablate]

SAEs of the same rows, steps and rates differ in architecture, width and k alone. Each goes through the sections
`absorption` (first letters of the model's own words, and gender), `geometry` (hedging of profession and gender) and
`reconstruction` of `debias-ssae sae eval`, after the middle block, on biographies that no SAE was trained on. What
"A is for Absorption" (Chanin et al. 2024, arXiv 2409.14507) leads one to expect was written down before any run: wider
and sparser SAEs absorb more, Matryoshka SAEs less. Seeds differ in the start and order of training and in the words
drawn. Writes absorption.json: a row for each SAE and seed. An SAE or section that is there is not made again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from subdomain import QUICK, kept_rows, read_texts, trained

from debias_ssae.benchmark.sae_evaluation import Subject, evaluate_sae
from debias_ssae.core import io
from debias_ssae.core.config import EvaluationConfig, SAEConfig, TrainConfig
from debias_ssae.model.causal import load_causal
from debias_ssae.text.concept import Concept

SAES: dict[str, dict[str, Any]] = {
    f"{architecture}-{d_sae}-{k}": {"architecture": architecture, "d_sae": d_sae, "k": k}
    for architecture, d_sae, k in (
        ("topk", 2048, 32),
        ("topk", 8192, 32),
        ("topk", 8192, 8),
        ("matryoshka", 8192, 32),
        ("matryoshka", 8192, 8),
        ("batchtopk", 8192, 8),
    )
}
TRAIN = TrainConfig(n_steps=600, batch_size=2048, lr=2e-3)
CONFIG = EvaluationConfig(n_tokens=20_000, max_length=64, n_words=2_600, n_ablated=5)
KEPT = {
    "reconstruction": ("fvu", "l0", "dead_share"),
    "absorption": (
        "n_split", "probe_f1", "best_latent_f1", "k_sparse_f1", "full_absorption", "absorption_fraction",
        "absorption_rate",
    ),
    "geometry": ("probe_cosine", "hedging_own", "hedging_other"),
}  # fmt: skip
"""The measures of each section that go into the table."""
MEANS = ("mean", "profession", "gender")
"""The mean over the letters, or over the values of a concept; and the two concepts of hedging."""


def means(records: list[dict[str, Any]]) -> dict[str, float]:
    """The measures of KEPT: means over letters, over the values of gender, and over the two concepts of hedging."""
    values: dict[str, list[float]] = {}
    for r in records:
        if r["measure"] not in KEPT[r["section"]] or r.get("concept", "mean") not in MEANS or "decile" in r:
            continue
        task = "" if "task" not in r else f"{r['task']}: "
        values.setdefault(task + r["measure"], []).append(r["value"])
    return {name: float(np.mean(found)) for name, found in values.items()}


def main() -> None:
    """Make what is not there yet, print a row for each SAE and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(SAES), default=list(SAES))
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--ablate", action="store_true", help="Also the paper's ablation rule, which takes most of the time."
    )
    args = parser.parse_args()
    out = io.writable_directory(args.out)
    causal = load_causal(args.encoder)
    model = causal.body
    hookpoint = f"blocks.{model.n_blocks // 2 - 1}"
    texts = read_texts(args.data, QUICK)
    rows = kept_rows(model, texts["corpus"] + texts["seeds"], hookpoint, QUICK, out / "rows.safetensors")
    bios = pd.read_parquet(args.data / "bias_in_bios_surgeon_nurse" / "data.parquet").drop_duplicates("text")
    labels = bios.set_index("text").loc[texts["domain"], ["profession", "gender"]].reset_index(drop=True)
    found: list[dict[str, Any]] = []
    for seed in args.seed:
        for name in args.only:
            cfg = SAEConfig(d_in=rows.x.shape[1], **SAES[name])
            sae = trained(rows.x, cfg, TRAIN, seed, None, out / "saes" / f"{name}-{seed}")
            subject = Subject(
                sae, model, hookpoint, texts["domain"], labels=labels, causal=causal if args.ablate else None,
                concept=Concept.load("gender"), config=CONFIG, seed=seed,
            )  # fmt: skip
            records = evaluate_sae(subject, out / f"{name}-{seed}", sections=list(KEPT))
            found.append({"sae": name, "seed": seed, **means(records)})
            io.write_json(out / "absorption.json", {
                "encoder": Path(args.encoder).name, "hookpoint": hookpoint, "n_rows": len(rows.x),
                "train": TRAIN.model_dump(mode="json"), "config": CONFIG.model_dump(mode="json"), "rows": found,
            })  # fmt: skip
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in found[-1].items()}, flush=True)


if __name__ == "__main__":
    main()
