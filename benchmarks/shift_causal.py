"""The SSAE paper's case study on a causal language model: SHIFT with general and with specialised SAEs.

python benchmarks/shift_causal.py --data DATA --encoder MODEL --out results/shift_causal [--quick]

As published (Marks et al. 2024, arXiv 2403.19647, section 4; Muhamed et al. 2025, table 1), as far as the papers
tell: a linear probe of the profession reads the mean-pooled residual stream after the middle block; SAEs stand at the
embeddings and after several blocks before it; latents are attributed by integrated gradients on 100 texts of the
confounded training set (male surgeons, female nurses), those above a fixed effect are judged, and the judged ones are
set to zero at every token in every pass. The probe is kept (frozen) or trained again on the edited activations of the
same texts (retrained). Our changes: surgeons and nurses, whose slice holds all four cells in every split; a
mechanical judge, the shipped list of gender words, in the place of the person.

Written down before any run: - THE SETTING in which the SSAE should beat the GSAE by 12.5 points of worst-group
accuracy, as in the paper's table 1 (88.5 against 76.0): full width, frozen probe, all latents above the threshold
(HEADLINE). Every other row is reported as well. - The threshold: a latent is kept where its mean effect on the lead
of a text's own class is more than 1% of the mean lead (the paper's 0.1 logits do not carry over to another probe). -
The judge: at least 40% of the latent's activation mass is on listed gender words (the package's rule for cards). -
The control: "matched" removes from GSAE and SSAE equally many judged latents a hookpoint, the strongest; "random" as
many latents as the GSAE's "all", drawn from those above the threshold that the judge left.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from subdomain import trained

from debias_ssae.core import io
from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.stats.shares import wilson
from debias_ssae.erase import LatentEraser
from debias_ssae.model import Activations, LanguageModel, embed, harvest_many, load_model
from debias_ssae.retrieval import retrieve
from debias_ssae.review.cards import JUDGED_SHARE
from debias_ssae.sae import SparseAutoencoder
from debias_ssae.selection.classifier import LinearHead, integrated_gradients
from debias_ssae.selection.naming import find_words, firing, word_shares
from debias_ssae.text.concept import Concept

HEADLINE = {"width": 1, "head": "frozen", "removed": "all", "expected": 0.125}
LEAST_EFFECT = 0.01
CELLS = (("surgeon", "M"), ("surgeon", "F"), ("nurse", "M"), ("nurse", "F"))
PAPER = {"GSAE frozen": 0.760, "SSAE frozen": 0.885, "GSAE retrained": 0.890, "SSAE retrained": 0.895,
         "GSAE 1/8 frozen": 0.486, "SSAE 1/8 frozen": 0.788, "original": 0.244, "oracle": 0.919}  # fmt: skip
HEAD_C = 0.1


@dataclass(frozen=True)
class Size:
    """How much of everything: the full form, or a look of minutes."""

    d_sae: int = 8192
    k: int = 32
    general: int = 500
    special: int = 150
    n_corpus: int = 8_000
    n_selected: int = 2_000
    n_train: int = 1_000
    n_test: int = 150
    n_attributed: int = 100
    steps: int = 10
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    widths: tuple[int, ...] = (1, 8)
    """The SAE has one in so many of its latents."""
    max_length: int = 64

    def train(self, name: str) -> TrainConfig:
        """How the general or the special SAE is trained; the rates are the package's."""
        n_steps, lr = (self.general, 2e-3) if name == "general" else (self.special, 5e-4)
        return TrainConfig(n_steps=n_steps, batch_size=1024, lr=lr)


QUICK = Size(
    d_sae=2048, general=150, special=50, n_corpus=1_600, n_selected=400, n_train=200, n_test=60, n_attributed=30,
    steps=4, seeds=(0,), widths=(1,), max_length=48,
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Texts, classes (True: nurse) and cells of one seed."""

    train: list[str]
    y_train: np.ndarray
    test: list[str]
    y_test: np.ndarray
    cells: np.ndarray
    balanced: list[str]
    y_balanced: np.ndarray


def make_split(bios: pd.DataFrame, size: Size, seed: int) -> Split:
    """Confounded training texts, a test set with four equal cells, and balanced training texts for the oracle."""
    rng = np.random.default_rng(seed)
    bios = bios.drop_duplicates("text", keep=False)

    def draw(frame: pd.DataFrame, profession: str, gender: str, n: int) -> list[str]:
        cell = frame.loc[(frame["profession"] == profession) & (frame["gender"] == gender), "text"].tolist()
        return [cell[i] for i in rng.permutation(len(cell))[:n]]

    train, test = bios[bios["split"] == "train"], bios[bios["split"] != "train"]
    parts = [draw(train, *CELLS[0], size.n_train), draw(train, *CELLS[3], size.n_train)]
    n = min(map(len, parts))
    tests = [draw(test, *cell, size.n_test) for cell in CELLS]
    least = min(size.n_train // 2, *(len(draw(train, *cell, size.n_train)) for cell in CELLS))
    equal = [draw(train, *cell, least) for cell in CELLS]

    def classes(groups: list[list[str]]) -> np.ndarray:
        return np.repeat(
            [False, False, True, True] if len(groups) == 4 else [False, True], [len(g) for g in groups]
        )

    parts = [part[:n] for part in parts]
    return Split(
        [*chain(*parts)],
        classes(parts),
        [*chain(*tests)],
        classes(tests),
        np.repeat(np.arange(4), [len(t) for t in tests]),
        [*chain(*equal)],
        classes(equal),
    )


def judged(
    sae: SparseAutoencoder,
    effects: np.ndarray,
    least: float,
    rows: Activations,
    texts: list[str],
    words: set[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Latents above the threshold that the judge ticks, strongest first, and those that it leaves."""
    order = np.argsort(-effects, kind="stable")
    above = order[effects[order] > least]
    worded, fired = find_words(texts, rows), firing(sae, rows.x, above.tolist())
    shares = [
        sum(v for w, v in word_shares(worded, fired[:, i]).items() if w in words) for i in range(len(above))
    ]
    ticked = np.array(shares) >= JUDGED_SHARE if shares else np.zeros(0, bool)
    return above[ticked], above[~ticked]


def attributed(sae: SparseAutoencoder, rows: Activations, gradients: torch.Tensor) -> np.ndarray:
    """Mean effect of each latent on the lead of a text's own class."""
    total = np.zeros(sae.cfg.d_sae)
    with torch.no_grad():
        for part, slope in zip(rows.x.split(4096), gradients.split(4096), strict=True):
            total += (sae.encode(part) * (slope @ sae.W_dec.T)).sum(0).double().numpy()
    return total / rows.n_texts


def row(name: str, head: str, accuracy: np.ndarray, cells: np.ndarray, **more: Any) -> dict[str, Any]:
    """Accuracy of the four cells, the lowest and its Wilson interval."""
    by_cell = np.array([accuracy[cells == c].mean() for c in range(4)])
    worst = int(by_cell.argmin())
    low, high = wilson(accuracy[cells == worst].sum(), (cells == worst).sum())
    return {
        "method": name, "head": head, "worst_group_accuracy": float(by_cell[worst]), "low": float(low),
        "high": float(high),
        "cells": {"/".join(CELLS[c]): float(by_cell[c]) for c in range(4)}, "accuracy": float(by_cell.mean()), **more,
    }  # fmt: skip


def run_seed(
    model: LanguageModel,
    data: Mapping[str, Any],
    size: Size,
    seed: int,
    hookpoints: list[str],
    layer: str,
    cache: Path,
    say: Any,
) -> list[dict[str, Any]]:
    """All rows of one seed."""
    split = make_split(data["bios"], size, seed)
    options: dict[str, Any] = {"layer": layer, "pooling": "mean"}
    plain = {
        name: embed(model, texts, **options)
        for name, texts in (("train", split.train), ("test", split.test), ("balanced", split.balanced))
    }
    frozen = LinearHead.fit(plain["train"], split.y_train, HEAD_C)
    right = frozen.predict(plain["test"]) == split.y_test
    found = [row("original", "frozen", right, split.cells, seed=seed)]
    oracle = LinearHead.fit(plain["balanced"], split.y_balanced, HEAD_C)
    found.append(
        row("oracle", "retrained", oracle.predict(plain["test"]) == split.y_test, split.cells, seed=seed)
    )
    say("heads")

    rng = np.random.default_rng(seed)
    picked = rng.permutation(len(split.train))[: size.n_attributed]
    texts = [split.train[i] for i in picked]
    directions = torch.from_numpy(frozen.margins(split.y_train[picked].astype(int)).astype(np.float32))
    least = LEAST_EFFECT * float(
        frozen.lead(plain["train"][picked], split.y_train[picked].astype(int)).mean()
    )
    corpus = data["rows"]
    attribution = {}
    for hookpoint in hookpoints:
        attribution[hookpoint] = integrated_gradients(
            model, texts, directions, hookpoint, layer=layer, pooling="mean",
            baseline=corpus[hookpoint].x.mean(0), steps=size.steps,
        )  # fmt: skip
        say(f"gradients at {hookpoint}")
    words = {word.lower() for word in Concept.load("gender").words}
    chosen_texts = data["selected"]
    selected = torch.from_numpy(np.isin(corpus[hookpoints[0]].text_ids.numpy(), chosen_texts))
    for width in size.widths:
        removed: dict[str, dict[str, np.ndarray]] = {"GSAE": {}, "SSAE": {}, "rest": {}}
        saes: dict[str, dict[str, SparseAutoencoder]] = {"GSAE": {}, "SSAE": {}}
        for hookpoint in hookpoints:
            cfg = SAEConfig(d_in=model.d_model, d_sae=size.d_sae // width, k=size.k)
            folder, x = cache / f"saes-seed{seed}" / f"{hookpoint}-{width}", corpus[hookpoint].x
            gsae = trained(x, cfg, size.train("general"), seed, None, folder / "gsae")
            ssae = trained(x[selected], cfg, size.train("special"), seed, gsae, folder / "ssae")
            for name, sae in (("GSAE", gsae), ("SSAE", ssae)):
                saes[name][hookpoint] = sae
                rows, gradients = attribution[hookpoint]
                effects = attributed(sae, rows, gradients)
                removed[name][hookpoint], left = judged(
                    sae, effects, least, data["named"][hookpoint], data["named_texts"], words
                )
                if name == "GSAE":
                    removed["rest"][hookpoint] = left
            say(f"SAEs at {hookpoint}, 1/{width} of the width")
        matched = {h: min(len(removed["GSAE"][h]), len(removed["SSAE"][h])) for h in hookpoints}
        sets = {
            ("GSAE", "all"): removed["GSAE"], ("SSAE", "all"): removed["SSAE"],
            ("GSAE", "matched"): {h: removed["GSAE"][h][:n] for h, n in matched.items()},
            ("SSAE", "matched"): {h: removed["SSAE"][h][:n] for h, n in matched.items()},
            ("GSAE", "random"): {h: rng.permutation(i)[: len(removed["GSAE"][h])] for h, i in removed["rest"].items()},
        }  # fmt: skip
        for (name, what), ids in sets.items():
            edits = {h: LatentEraser.from_sae(saes[name][h], ids[h]) for h in hookpoints if len(ids[h])}
            edited = {
                p: embed(model, t, edits=edits, **options) if edits else plain[p]
                for p, t in (("train", split.train), ("test", split.test))
            }
            retrained = LinearHead.fit(edited["train"], split.y_train, HEAD_C)
            about = {
                "width": width,
                "removed": what,
                "seed": seed,
                "n_latents": {h: len(ids[h]) for h in hookpoints},
            }
            for head, fitted in (("frozen", frozen), ("retrained", retrained)):
                found.append(
                    row(name, head, fitted.predict(edited["test"]) == split.y_test, split.cells, **about)
                )
            say(f"{name} {what}: {', '.join(str(round(r['worst_group_accuracy'], 3)) for r in found[-2:])}")
    return found


def differences(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """SSAE minus GSAE in each setting, seed by seed, with Student's interval over seeds where there are several."""
    from scipy.stats import t

    frame, found = pd.DataFrame([r for r in records if "width" in r]), []
    for (width, head, removed), inside in frame[frame["removed"] != "random"].groupby(
        ["width", "head", "removed"]
    ):
        by = {name: part.set_index("seed")["worst_group_accuracy"] for name, part in inside.groupby("method")}
        gain = (by["SSAE"] - by["GSAE"]).dropna()
        half = (
            float(t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)
            if len(gain) > 1
            else None
        )
        found.append({
            "width": int(width), "head": head, "removed": removed, "difference": float(gain.mean()),
            "by_seed": gain.tolist(),
            "low": None if half is None else float(gain.mean()) - half,
            "high": None if half is None else float(gain.mean()) + half,
            "headline": (width, head, removed) == (HEADLINE["width"], HEADLINE["head"], HEADLINE["removed"]),
        })  # fmt: skip
    return found


def main() -> None:
    """Run the seeds that are not there yet; write shift_causal.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="SAEs; default OUT.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, action="append")
    args = parser.parse_args()
    size, cache = (QUICK if args.quick else Size()), io.writable_directory(args.cache or args.out)
    model = load_model(args.encoder).with_limits(size.max_length)
    middle = model.n_blocks // 2 - 1
    layer = f"blocks.{middle}"
    hookpoints = ["embeddings", f"blocks.{middle // 3}", f"blocks.{2 * middle // 3}"]
    bios = pd.read_parquet(args.data / "bias_in_bios_surgeon_nurse" / "data.parquet")
    rng = np.random.default_rng(0)
    general = pd.read_parquet(args.data / "general_corpus" / "data.parquet")["text"].tolist()
    other = pd.read_parquet(args.data / "wiki_bios" / "data.parquet")["text"].tolist()
    n_other = size.n_corpus // 4
    texts = [general[i] for i in rng.permutation(len(general))[: size.n_corpus - n_other]]
    texts = list(dict.fromkeys([*texts, *(other[i] for i in rng.permutation(len(other))[:n_other])]))
    seeds = bios.loc[bios["split"] == "train", "text"].tolist()
    selected = retrieve(
        [seeds[i] for i in rng.permutation(len(seeds))[:500]], texts, n_texts=size.n_selected, random_state=0,
        held_out=bios.loc[bios["split"] != "train", "text"].tolist(), cache_dir=cache / "vectors",
    ).corpus_ids  # fmt: skip
    print("retrieved", flush=True)
    named = [seeds[i] for i in rng.permutation(len(seeds))[:200]]
    data = {
        "bios": bios, "selected": selected, "named_texts": named,
        "rows": harvest_many(model, texts, hookpoints),
        "named": harvest_many(model, named, hookpoints),
    }  # fmt: skip
    print("harvested", flush=True)
    records: list[dict[str, Any]] = []
    for seed in args.seed or size.seeds:
        file = args.out / "seeds" / f"seed{seed}.json"
        if not file.exists():
            found = run_seed(
                model, data, size, seed, hookpoints, layer, cache, lambda line: print(line, flush=True)
            )
            io.writable_directory(file.parent)
            io.write_json(file, {"records": found})
        records += io.read_json(file)["records"]
    results = {
        "encoder": Path(args.encoder).name, "layer": layer, "hookpoints": hookpoints, "size": str(size),
        "quick": args.quick,
        "headline": HEADLINE, "paper": PAPER, "records": records, "differences": differences(records),
    }  # fmt: skip
    io.write_json(args.out / "shift_causal.json", results)
    for r in records:
        what = f"{r['method']:9s} {r.get('removed', ''):8s} 1/{r.get('width', 1)} {r['head']:10s}"
        print(f"{what} {r['worst_group_accuracy']:.3f}  {r.get('n_latents', '')}")
    for d in results["differences"]:
        mark = "  <- fixed beforehand" if d["headline"] else ""
        print(f"SSAE - GSAE, 1/{d['width']}, {d['head']}, {d['removed']}: {d['difference']:+.3f}{mark}")


if __name__ == "__main__":
    main()
