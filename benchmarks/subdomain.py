"""Does fine-tuning an SAE on a subdomain serve its rare tokens? General against specialised SAEs, as the SSAE paper
asks.

python benchmarks/subdomain.py --data DATA --encoder MODEL --out results/subdomain [--quick]

The subdomain is biographies. For each L0 and training seed a general SAE (GSAE) is trained on a general corpus that
holds some biographies of another kind; it is then fine-tuned, each time for as many steps, on what each way of
selecting texts gives, with the mean loss or with TERM at several target effective sample sizes. "continued" is the
GSAE trained on for as many steps on the general corpus. Every SAE is measured on held-out biographies and held-out
general texts. A stopped run goes on; one file a group of SAEs. MODEL is a causal language model (Gemma 3 270M here),
or an encoder such as minilm, for which no cross-entropy is measured.

Fixed before any run: the place (after the middle block), L0 in {16, 32, 64, 128}, 3 seeds, the effective sample
sizes, the bars (BARS), and that all methods share everything but the texts and the loss.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tracin import row_influence, seed_gradient

from debias_ssae.benchmark.sae_evaluation import loss_records, splice
from debias_ssae.core import io
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations, harvest, load_model
from debias_ssae.model.causal import load_causal, next_tokens
from debias_ssae.retrieval import retrieve
from debias_ssae.sae import SparseAutoencoder, load_sae, save_sae, shuffled_batches, train_sae
from debias_ssae.sae.evaluation import values_of
from debias_ssae.sae.evaluation.tokens import coverage, encode_tokens, frequency_deciles, reconstruction

L0S, SEEDS, ESS = (16, 32, 64, 128), (0, 1, 2), (0.5, 0.25, 0.1)
SELECTIONS = ("continued", "bm25", "dense", "tracin", "seeds")
BARS = {
    "domain perplexity below the GSAE's at every L0 (paired over seeds)": ("perplexity", 1.0),
    "domain FVU at least 25% lower": ("fvu", 0.75),
    "coverage of the rarest 30% of domain token types at least 1.5 times the GSAE's": (
        "coverage_rarest_30",
        1.5,
    ),
    "TERM's error on the rarest decile below the mean loss's at equal L0": ("rarest_fvu", 1.0),
}


@dataclass(frozen=True)
class Size:
    """How much of everything: the full form, or a look of minutes."""

    d_sae: int = 8192
    n_general: int = 9_000
    n_other: int = 3_000
    n_seeds: int = 1_200
    n_selected: int = 2_000
    n_held_out: int = 500
    n_positions: int = 1_500
    general: tuple[int, int] = (600, 2048)
    """Optimiser steps, rows a step."""
    special: tuple[int, int] = (150, 2048)
    l0s: tuple[int, ...] = L0S
    seeds: tuple[int, ...] = SEEDS
    max_length: int = 64

    def train(self, name: str) -> TrainConfig:
        """How the general or the special SAE is trained; the rates are the package's."""
        n_steps, batch_size = self.general if name == "general" else self.special
        return TrainConfig(n_steps=n_steps, batch_size=batch_size, lr=2e-3 if name == "general" else 5e-4)


QUICK = Size(
    d_sae=2048, n_general=2_500, n_other=700, n_seeds=500, n_selected=600, n_held_out=250, n_positions=250,
    general=(200, 1024), special=(60, 1024), l0s=(32,), seeds=(0,),
)  # fmt: skip


def read_texts(data: Path, size: Size) -> dict[str, list[str]]:
    """Corpus, seeds, and held-out texts of the domain and of the corpus; no text is in two of them."""
    rng = np.random.default_rng(0)
    bios = pd.read_parquet(data / "bias_in_bios_surgeon_nurse" / "data.parquet")
    general = pd.read_parquet(data / "general_corpus" / "data.parquet")["text"].tolist()
    other = pd.read_parquet(data / "wiki_bios" / "data.parquet")["text"].tolist()
    test = bios.loc[bios["split"] != "train", "text"].tolist()
    train = [t for t in bios.loc[bios["split"] == "train", "text"].tolist() if t not in set(test)]
    general = [general[i] for i in rng.permutation(len(general))]
    held = general[: size.n_held_out]
    return {
        "corpus": general[size.n_held_out :][: size.n_general]
        + [other[i] for i in rng.permutation(len(other))[: size.n_other]],
        "seeds": [train[i] for i in rng.permutation(len(train))[: size.n_seeds]],
        "domain": [test[i] for i in rng.permutation(len(test))[: size.n_held_out]],
        "general": held,
    }


def kept_rows(model: Any, texts: list[str], hookpoint: str, size: Size, file: Path) -> Activations:
    """Harvested once, kept as bfloat16."""
    if not file.exists():
        rows = harvest(model.with_limits(size.max_length), texts, hookpoint)
        io.write_arrays(file, {
            "x": rows.x.to(torch.bfloat16).view(torch.int16).numpy(), "text_ids": rows.text_ids.numpy(),
            "token_ids": rows.token_ids.numpy(), "offsets": rows.offsets.numpy(),
        })  # fmt: skip
    t = {name: torch.from_numpy(array) for name, array in io.sealed_arrays(file)[0].items()}
    return Activations(
        t["x"].view(torch.bfloat16).float(), t["text_ids"], t["token_ids"], t["offsets"], len(texts)
    )


def rows_of(rows: Activations, ids: np.ndarray) -> torch.Tensor:
    """Rows of the texts with these numbers."""
    return rows.x[torch.from_numpy(np.isin(rows.text_ids.numpy(), ids))]


def trained(
    x: torch.Tensor, cfg: SAEConfig, train: TrainConfig, seed: int, init: Any, folder: Path
) -> SparseAutoencoder:
    """Trained once, kept."""
    if not folder.exists():
        save_sae(
            train_sae(
                shuffled_batches(x, train.batch_size, seed), cfg, train, init=init, random_state=seed
            ).sae,
            folder,
        )
    return load_sae(folder)


def variants(full: bool) -> Iterator[tuple[str, str, float | None]]:
    """Name, selection, TERM's target effective sample size (None: the mean loss)."""
    for selection in SELECTIONS:
        yield f"{selection}, mean", selection, None
        if full or selection == "dense":
            for ess in ESS if full else ESS[:1]:
                yield f"{selection}, TERM {ess:g}", selection, ess


def group(
    k: int,
    seed: int,
    full: bool,
    size: Size,
    texts: Mapping[str, list[str]],
    rows: Mapping[str, Activations],
    selected: dict[str, np.ndarray],
    causal: Any,
    hookpoint: str,
    out: Path,
) -> list[dict[str, Any]]:
    """All SAEs of one L0 and seed: trained and measured."""
    cfg = SAEConfig(d_in=rows["corpus"].x.shape[1], d_sae=size.d_sae, k=k)
    folder = out / "saes" / f"k{k}-seed{seed}"
    saes = {"gsae": trained(rows["corpus"].x, cfg, size.train("general"), seed, None, folder / "gsae")}
    chosen = {**selected, "tracin": by_tracin(saes["gsae"], texts, rows, selected["candidates"], size)}
    for name, selection, ess in variants(full):
        x = (
            rows["seeds"].x
            if selection == "seeds"
            else rows["corpus"].x
            if selection == "continued"
            else rows_of(rows["corpus"], chosen[selection])
        )
        train = size.train("special")
        train = train if ess is None else train.updated(tilt="auto", tilt_ess=ess)
        saes[name] = trained(x, cfg, train, seed, saes["gsae"], folder / name.replace(", ", "-"))
    found: list[dict[str, Any]] = []
    for part in ("domain", "general"):
        ids = rows[part].token_ids.numpy()
        counts = np.bincount(
            rows["corpus"].token_ids.numpy(),
            minlength=int(max(ids.max(), rows["corpus"].token_ids.max())) + 1,
        )
        deciles = frequency_deciles(ids, counts)
        losses: dict[str, dict[str, float]] = {}
        if causal is not None:
            splices = {"zero": torch.zeros_like, **{name: splice(sae) for name, sae in saes.items()}}
            scored = next_tokens(
                replace(causal, body=causal.body.with_limits(size.max_length)),
                texts[part],
                hookpoint,
                splices,
                max_positions=size.n_positions,
            )
            for r in loss_records(scored.loss, scored.kl):
                losses.setdefault(r["splice"], {})[r["measure"]] = r["value"]
        for name, sae in saes.items():
            run = encode_tokens(sae, rows[part].x)
            records = reconstruction(run, deciles)
            whole = {
                m: next(r["value"] for r in records if r["measure"] == m and "decile" not in r)
                for m in ("fvu", "l0", "dead_share", "cosine")
            }
            tail = {r["measure"]: r["value"] for r in coverage(run.latents, ids, counts) if "decile" not in r}
            rarest = values_of(records, "fvu", decile=0)
            clean = losses.get("clean", {}).get("perplexity")
            found.append({
                "k": k, "seed": seed, "sae": name, "part": part, **whole, **tail,
                "rarest_fvu": rarest[0] if rarest else float("nan"), "clean_perplexity": clean, **losses.get(name, {}),
            })  # fmt: skip
    return found


def by_tracin(
    sae: SparseAutoencoder,
    texts: Mapping[str, list[str]],
    rows: Mapping[str, Activations],
    candidates: np.ndarray,
    size: Size,
) -> np.ndarray:
    """Of the dense candidates those whose rows pull the GSAE where the seeds' rows pull it."""
    gradient = seed_gradient(sae, rows["seeds"].x)
    inside = np.isin(rows["corpus"].text_ids.numpy(), candidates)
    influence = row_influence(sae, gradient, rows["corpus"].x[torch.from_numpy(inside)]).numpy()
    owners = rows["corpus"].text_ids.numpy()[inside]
    sums, counts = (np.bincount(owners, weights=w, minlength=len(texts["corpus"])) for w in (influence, None))
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    return candidates[np.argsort(-mean[candidates], kind="stable")[: size.n_selected]]


def compared(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each SAE's measures over its own GSAE's, paired by L0 and seed: mean and the seeds' own values."""
    frame = pd.DataFrame(records)
    found = []
    for (k, part), inside in frame.groupby(["k", "part"]):
        base = inside[inside["sae"] == "gsae"].set_index("seed")
        for name, mine in inside.groupby("sae", sort=False):
            mine = mine.set_index("seed")
            row = {"k": int(k), "part": part, "sae": name, "n_seeds": len(mine)}
            for measure in (
                "fvu",
                "rarest_fvu",
                "perplexity",
                "coverage_rarest_30",
                "loss_recovered_zero",
                "l0",
            ):
                if measure in mine and mine[measure].notna().all():
                    row[measure] = float(mine[measure].mean())
                    ratio = mine[measure] / base[measure]
                    row[f"{measure}_ratio"] = [float(v) for v in ratio]
            found.append(row)
    return found


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Perplexity (or FVU) against L0, a line an SAE; beside it, at each L0, coverage and error of the rarest."""
    from matplotlib.figure import Figure

    measure = "perplexity" if any("perplexity" in r for r in rows) else "fvu"
    figure = Figure(figsize=(13, 8), layout="constrained")
    for line, part in enumerate(("domain", "general")):
        for column, name in enumerate((measure, "coverage_rarest_30", "rarest_fvu")):
            axes = figure.add_subplot(2, 3, 3 * line + column + 1)
            for sae in dict.fromkeys(r["sae"] for r in rows):
                mine = sorted(
                    (r["l0"], r[name]) for r in rows if r["sae"] == sae and r["part"] == part and name in r
                )
                axes.plot(*zip(*mine, strict=True), marker="o", label=sae)
            axes.set(xlabel="L0", ylabel=name, title=f"held-out {part} texts")
    axes.legend(fontsize=7)
    with io.writing(file) as temporary:
        figure.savefig(temporary, format="svg")


def main() -> None:
    """Run what is not there yet; write subdomain.json and subdomain.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="Rows and SAEs; default OUT.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--l0", type=int, action="append", help="Only these, one after the other.")
    parser.add_argument("--seed", type=int, action="append")
    args = parser.parse_args()
    size, cache = (QUICK if args.quick else Size()), io.writable_directory(args.cache or args.out)
    try:
        causal = load_causal(args.encoder)
    except InputError:
        causal = None
    model = load_model(args.encoder) if causal is None else causal.body
    hookpoint = f"blocks.{model.n_blocks // 2 - 1}"
    texts = read_texts(args.data, size)
    rows = {
        name: kept_rows(model, part, hookpoint, size, cache / f"rows-{name}.safetensors")
        for name, part in texts.items()
    }
    options: dict[str, Any] = {"held_out": texts["domain"], "cache_dir": cache / "vectors", "random_state": 0}
    selected: dict[str, np.ndarray] = {}
    for name in ("bm25", "dense"):
        selected[name] = retrieve(
            texts["seeds"], texts["corpus"], n_texts=size.n_selected, method=name, **options
        ).corpus_ids
    selected["candidates"] = retrieve(
        texts["seeds"], texts["corpus"], n_texts=2 * size.n_selected, **options
    ).corpus_ids
    records: list[dict[str, Any]] = []
    for seed in args.seed or size.seeds:
        for k in args.l0 or size.l0s:
            file = args.out / "groups" / f"k{k}-seed{seed}.json"
            if not file.exists():
                found = group(k, seed, not args.quick, size, texts, rows, selected, causal, hookpoint, cache)
                io.writable_directory(file.parent)
                io.write_json(file, {"records": found})
            records += io.read_json(file)["records"]
            print(f"k={k} seed={seed}: done", flush=True)
    wiki = len(texts["corpus"]) - size.n_other
    shares = {name: float((ids >= wiki).mean()) for name, ids in selected.items()}
    results = {
        "encoder": Path(args.encoder).name, "hookpoint": hookpoint, "bars": list(BARS), "size": str(size),
        "quick": args.quick, "seeds": sorted({r["seed"] for r in records}), "share_of_biographies_selected": shares,
        "n_tokens": {name: len(part.x) for name, part in rows.items()},
        "records": records, "compared": compared(records),
    }  # fmt: skip
    io.write_json(args.out / "subdomain.json", results)
    plot(results["compared"], args.out / "subdomain.svg")
    for row in results["compared"]:
        shown = {
            m: round(row[m], 4) for m in ("fvu", "rarest_fvu", "coverage_rarest_30", "perplexity") if m in row
        }
        print(f"{row['part']:8s} k={row['k']:<4d} {row['sae']:18s} {shown}")


if __name__ == "__main__":
    main()
