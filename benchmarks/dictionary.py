"""Which dictionary makes the latents of an attribute few and recurrent: no label of a task is looked at.

    python benchmarks/dictionary.py harvest --general corpus.parquet --texts biographies.parquet --out acts
    python benchmarks/dictionary.py run --acts acts --hookpoint embeddings --only default k2 k8
    python benchmarks/dictionary.py specialise --acts acts --hookpoint embeddings
    python benchmarks/dictionary.py leaders --acts acts
    python benchmarks/dictionary.py table

Each variant is trained twice or more, each time with another start, another draw of rows (``--share`` of them) and
another order; no two trainings share anything but the configuration. Measured on rows that no training saw:

* fvu, l0; ``own_fvu`` and ``tail``: mean error of the subdomain's rows, and of the worst hundredth of them, in the
  same units; ``alive``: share of latents that are not dead at the end of training;
* ``recurrence``: of the latents that carry the change between counterfactual pairs, weighted by what each carries, the
  share that has a latent with cosine >= 0.8 in the other training (``recurrence_top20``: among the 20 that carry most);
* ``n90``: how few latents carry 90% of that change; ``top10``: what the 10 best carry;
* ``pw_mcc``: mean cosine of live latents matched one to one (Song et al. 2025, arXiv 2505.20254); ``fired_mcc``: mean
  best cosine, weighted by how often a latent fires;
* rows a CPU-second of the whole training, on one thread.

Results are appended to ``benchmarks/results/dictionary.json``.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debias_ssae.core.config import DebiasConfig, SAEConfig, TrainConfig
from debias_ssae.sae import SparseAutoencoder, shuffled_batches, train_sae
from debias_ssae.sae.evaluation.geometry import pw_mcc
from debias_ssae.sae.training import distinct_directions

RESULTS = Path(__file__).parent / "results" / "dictionary.json"
RECURS = 0.8
"""Cosine from which a latent counts as found again."""
HELD_OUT = 10_000
"""Rows of each of the two sources that no training sees."""

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "random start": {"start": "random"},
    "first house": {
        "d_sae": 2048, "k": 32, "start": "random", "n_steps": 1000, "lr": 6e-3, "dead_steps": 5, "init_batches": 4,
    },
    "width / 2": {"width": 0.5},
    "width x 2": {"width": 2},
    "k 2": {"k": 2},
    "k 4": {"k": 4},
    "k 8": {"k": 8},
    "k 16": {"k": 16},
    "topk": {"architecture": "topk"},
    "jumprelu": {"architecture": "jumprelu"},
    "matryoshka": {"architecture": "matryoshka"},
    "half the steps": {"steps": 0.5},
    "twice the steps": {"steps": 2},
    "lr / 2": {"rate": 0.5},
    "lr x 2": {"rate": 2},
    "no AuxK": {"aux_coefficient": 0.0},
    "AuxK after 5 batches": {"dead_steps": 5},
}  # fmt: skip
"""What each changes of the default: settings of SAEConfig and TrainConfig, or factors of them."""


def harvest(arguments: argparse.Namespace) -> None:
    """Keep rows of general texts and of the subdomain, and the rows of counterfactual pairs."""
    from debias_ssae.model import load_model, stream_rows
    from debias_ssae.selection.pairs import harvest_pairs
    from debias_ssae.text import load_corpus
    from debias_ssae.text.concept import Concept

    model, folder = load_model(arguments.model), Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, path in (("general", arguments.general), ("texts", arguments.texts)):
        texts = list(dict.fromkeys(load_corpus(path)))
        texts = [texts[i] for i in rng.permutation(len(texts))]
        for hookpoint in arguments.hookpoints:
            parts, found = [], 0
            for part in stream_rows(model, texts, hookpoint):
                parts.append(part.half())
                found += len(part)
                if found >= arguments.rows:
                    break
            np.save(folder / f"{hookpoint}_{name}.npy", torch.cat(parts)[: arguments.rows].numpy())
    concept = Concept.load(arguments.concept)
    for hookpoint in arguments.hookpoints:
        pairs = harvest_pairs(model, texts, concept, hookpoint, max_texts=200, random_state=0)
        kept = {"n_texts": pairs.a.n_texts}
        for side, rows in (("a", pairs.a), ("b", pairs.b)):
            kept |= {side: rows.x, f"{side}_texts": rows.text_ids, f"{side}_tokens": rows.token_ids}
        torch.save(kept, folder / f"{hookpoint}_pairs.pt")


class Rows:
    """The kept rows of a hookpoint; ``draw`` gives a training its own share of them, half from each source."""

    def __init__(self, folder: Path, hookpoint: str) -> None:
        both = [
            torch.from_numpy(np.load(folder / f"{hookpoint}_{name}.npy", mmap_mode="c"))
            for name in ("general", "texts")
        ]
        self.held_out = torch.cat([part[:HELD_OUT] for part in both]).float()
        self.general, self.texts = (part[HELD_OUT:] for part in both)
        self.pairs: dict[str, Any] = torch.load(folder / f"{hookpoint}_pairs.pt", weights_only=True)

    def draw(self, seed: int, share: float, sources: Sequence[str] = ("general", "texts")) -> Tensor:
        """Return ``share`` of the rows of the sources, equally many from each, drawn with ``seed``."""
        rng = np.random.default_rng(10_000 + seed)
        parts = [getattr(self, name) for name in sources]
        n = int(share * min(map(len, parts)))
        return torch.cat([part[torch.from_numpy(np.sort(rng.permutation(len(part))[:n]))] for part in parts])


def settings(variant: dict[str, Any], d_in: int, hookpoint: str) -> tuple[SAEConfig, TrainConfig]:
    """Return the default of DebiasConfig with what ``variant`` changes."""
    defaults = DebiasConfig()
    changes = dict(variant)
    cfg = defaults.sae_config(d_in, hookpoint)
    cfg = cfg.updated(d_sae=round(cfg.d_sae * changes.pop("width", 1)))
    train = defaults.general
    train = train.updated(
        n_steps=round(train.n_steps * changes.pop("steps", 1)),
        lr=train.lr * changes.pop("rate", 1),
        device="cpu",
    )
    cfg = cfg.updated(
        **{name: changes.pop(name) for name in ("d_sae", "k", "architecture") if name in changes}
    )
    return cfg, train.updated(**changes)


class Trained:
    """An SAE of one training and what it does on rows that it did not see."""

    def __init__(self, sae: SparseAutoencoder, rows: Rows, seconds: float, n_rows: int) -> None:
        self.sae, self.seconds, self.n_rows = sae, seconds, n_rows
        fired = torch.zeros(sae.cfg.d_sae)
        error, active, each = 0.0, 0, list[Tensor]()
        with torch.no_grad():
            for x in rows.held_out.split(4096):
                latents = sae.encode(x)
                fired += (latents > 0).sum(0)
                active += int((latents > 0).sum())
                each.append((sae.decode(latents) - x).square().sum(1))
                error += float(each[-1].sum())
        variance = float((rows.held_out - rows.held_out.mean(0)).square().sum())
        own, mean = torch.cat(each)[HELD_OUT:], variance / len(rows.held_out)
        self.own_fvu = float(own.mean()) / mean
        self.tail = float(own.topk(len(own) // 100).values.mean()) / mean
        self.fvu, self.l0, self.fired = error / variance, active / len(rows.held_out), fired
        self.W_dec = sae.W_dec.detach() / sae.W_dec.detach().norm(dim=1, keepdim=True)
        self.carried = self._carried(rows.pairs)

    def _carried(self, pairs: dict[str, Any]) -> Tensor:
        """Return the share of the mean change of the pooled row between pairs that each latent carries [d_sae]."""
        n, pooled, means = pairs["n_texts"], [], []
        for side in ("a", "b"):
            x, texts = pairs[side].float(), pairs[f"{side}_texts"]
            weight = 1.0 / torch.bincount(texts, minlength=n)[texts] / n
            total = torch.zeros(self.sae.cfg.d_sae)
            with torch.no_grad():
                for part, w in zip(x.split(4096), weight.split(4096), strict=True):
                    total += w @ self.sae.encode(part)
            pooled.append(total)
            means.append(weight @ x)
        direction = means[1] - means[0]
        return (pooled[1] - pooled[0]) * (self.sae.W_dec.detach() @ direction) / direction.square().sum()

    def measures(self, alive: float) -> dict[str, float]:
        """Return what is known of it alone."""
        carried = self.carried.sort(descending=True).values
        return {
            "fvu": self.fvu,
            "l0": self.l0,
            "own_fvu": self.own_fvu,
            "tail": self.tail,
            "alive": alive,
            "n90": int((carried.cumsum(0) < 0.9 * carried.sum()).sum()) + 1,
            "top10": float(carried[:10].sum()),
            "carried": float(carried.sum()),
            "cpu_seconds": self.seconds,
            "rows_per_cpu_second": self.n_rows / self.seconds,
        }


def recurrence(one: Trained, other: Trained) -> dict[str, float]:
    """Return how much of ``one`` is found again in ``other``, and the same the other way, as means."""
    found = [_found_again(one, other), _found_again(other, one)]
    return {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}


def _found_again(one: Trained, other: Trained) -> dict[str, float]:
    live = other.W_dec[other.fired > 0]
    best = torch.cat([(part @ live.T).amax(1) for part in one.W_dec.split(1024)])
    weight = one.carried.clamp_min(0)
    top = weight.argsort(descending=True)[:20]
    return {
        "recurrence": float(weight[best >= RECURS].sum() / weight.sum()),
        "recurrence_top20": float(weight[top][best[top] >= RECURS].sum() / weight[top].sum()),
        "of_the_10_best": float((best[top[:10]] >= RECURS).float().mean()),
        "fired_mcc": float((best * one.fired).sum() / one.fired.sum()),
    }


def train(
    x: Tensor,
    cfg: SAEConfig,
    knobs: TrainConfig,
    seed: int,
    rows: Rows,
    init: SparseAutoencoder | None = None,
) -> tuple[Trained, float]:
    """Return a training and the share of its latents that are alive."""
    started = time.process_time()
    stream = shuffled_batches(x, knobs.batch_size, seed)
    result = train_sae(stream, cfg, knobs, random_state=seed, init=init)
    trained = Trained(result.sae, rows, time.process_time() - started, knobs.n_steps * knobs.batch_size)
    return trained, 1 - result.history[-1]["dead_fraction"]


def run(arguments: argparse.Namespace) -> None:
    """Train the wanted variants and keep what is measured."""
    rows = Rows(Path(arguments.acts), arguments.hookpoint)
    for name in arguments.only or VARIANTS:
        cfg, knobs = settings(
            VARIANTS[name] | json.loads(arguments.set), rows.held_out.shape[1], arguments.hookpoint
        )
        made = []
        for seed in range(arguments.seeds):
            made.append(train(rows.draw(seed, arguments.share), cfg, knobs, seed, rows))
            print(
                name, seed, {k: round(v, 4) for k, v in made[-1][0].measures(made[-1][1]).items()}, flush=True
            )
        keep(name, arguments, cfg, knobs, made)


TILTS: dict[str, dict[str, Any]] = {
    "mean loss": {"tilt": 0.0},
    "TERM, effective sample 0.5": {"tilt": "auto", "tilt_ess": 0.5},
    "TERM, effective sample 0.9": {"tilt": "auto", "tilt_ess": 0.9},
    "TERM, effective sample 0.5, annealed": {"tilt": "auto", "tilt_ess": 0.5, "tilt_warmup_fraction": 0.95},
}


def specialise(arguments: argparse.Namespace) -> None:
    """Fine-tune SSAEs from one general SAE and from different ones: how much more do the former agree? And what does
    TERM do, in each form, for the worst rows and for the mean?
    """
    rows = Rows(Path(arguments.acts), arguments.hookpoint)
    cfg, knobs = settings(json.loads(arguments.set), rows.held_out.shape[1], arguments.hookpoint)
    special = (DebiasConfig().special or TrainConfig()).updated(
        device="cpu", tilt=0.0, **json.loads(arguments.special)
    )
    general = [
        train(rows.draw(seed, arguments.share, ["general"]), cfg, knobs, seed, rows) for seed in (0, 1)
    ]
    keep("general", arguments, cfg, knobs, general)

    def tune(seed: int, start: int, **changes: Any) -> tuple[Trained, float]:
        x = rows.draw(seed, arguments.share, ["texts"])
        return train(x, cfg, special.updated(**changes), seed, rows, general[start][0].sae)

    tuned = [tune(10 + i, start) for i, start in enumerate((0, 0, 1))]
    keep("SSAEs of one general SAE", arguments, cfg, special, tuned[:2])
    keep("SSAEs of two general SAEs", arguments, cfg, special, tuned[1:])
    keep("SSAE, mean loss", arguments, cfg, special, tuned[:1])
    for name, changes in list(TILTS.items())[1:]:
        keep(f"SSAE, {name}", arguments, cfg, special.updated(**changes), [tune(10, 0, **changes)])


def leaders(arguments: argparse.Namespace) -> None:
    """Print how many first decoder rows each of some tokens has, by the cosine from which rows count as the same."""
    rows = Rows(Path(arguments.acts), arguments.hookpoint)
    x = rows.draw(0, 1.0)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:32_768]].float()
    pairs = rows.pairs
    tokens = torch.cat([pairs["a_tokens"], pairs["b_tokens"]])
    swapped = torch.cat([pairs["a"], pairs["b"]]).float() - x.mean(0)
    for cosine in arguments.cosines:
        found = distinct_directions(x - x.mean(0), 8192, cosine)
        nearest = torch.cat([(part @ found.T).argmax(1) for part in swapped.split(4096)])
        counts = {token: len(nearest[tokens == token].unique()) for token in arguments.tokens}
        print(f"cosine {cosine}: leaders of tokens {counts}", flush=True)


def keep(
    name: str,
    arguments: argparse.Namespace,
    cfg: SAEConfig,
    knobs: TrainConfig,
    made: list[tuple[Trained, float]],
) -> None:
    """Append what was measured of a variant to the results."""
    alone = [trained.measures(alive) for trained, alive in made]
    pairs = [recurrence(a, b) for (a, _), (b, _) in combinations(made, 2)]
    if arguments.matched:
        for (a, _), (b, _), record in zip(*zip(*combinations(made, 2), strict=True), pairs, strict=True):
            record["pw_mcc"] = pw_mcc(*(t.W_dec[t.fired > 0].numpy() for t in (a, b)))
    record = {
        "name": name,
        "hookpoint": arguments.hookpoint,
        "share": arguments.share,
        "cfg": cfg.model_dump(mode="json"),
        "train": knobs.model_dump(mode="json"),
        "alone": alone,
        "pairs": pairs,
    }
    print(name, "pairs:", [{k: round(v, 3) for k, v in pair.items()} for pair in pairs], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    same = (name, arguments.hookpoint, record["cfg"], record["train"])
    kept = [r for r in kept if (r["name"], r["hookpoint"], r["cfg"], r["train"]) != same]
    RESULTS.write_text(json.dumps([*kept, record], indent=1) + "\n")


def table() -> None:
    """Print the kept results as Markdown: means over trainings and over pairs of trainings."""
    columns = ["fvu", "l0", "alive", "n90", "top10", "recurrence", "of_the_10_best", "fired_mcc", "pw_mcc"]
    columns += ["own_fvu", "tail", "rows_per_cpu_second"]
    print("| hookpoint | variant | d_sae | k | steps | lr | start |", " | ".join(columns), "|")
    print("|---" * (7 + len(columns)) + "|")
    for record in json.loads(RESULTS.read_text()):
        every: dict[str, list[float]] = {}
        for part in (*record["alone"], *record["pairs"]):
            for name, value in part.items():
                every.setdefault(name, []).append(value)
        cells = [
            "" if name not in every else f"{np.mean(every[name]):.{0 if name.startswith('rows') else 3}f}"
            for name in columns
        ]
        knobs = record["train"]
        start = knobs["start_cosine"] if knobs["start"] == "rows" else "random"
        shape = (record["cfg"]["d_sae"], record["cfg"]["k"], knobs["n_steps"], knobs["lr"], start)
        print(f"| {record['hookpoint']} | {record['name']} |", " | ".join(map(str, (*shape, *cells))), "|")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("harvest")
    first.add_argument("--general", required=True, help="general texts: a file that load_corpus reads")
    first.add_argument("--texts", required=True, help="texts of the subdomain")
    first.add_argument("--out", required=True)
    first.add_argument("--model", default="minilm")
    first.add_argument("--concept", default="gender")
    first.add_argument("--hookpoints", nargs="+", default=["embeddings", "blocks.2"])
    first.add_argument("--rows", type=int, default=500_000, help="of each source and hookpoint")
    for name in ("run", "specialise"):
        command = commands.add_parser(name)
        command.add_argument("--acts", required=True, help="what harvest wrote")
        command.add_argument("--hookpoint", default="embeddings")
        command.add_argument("--share", type=float, default=0.6, help="of the rows that one training sees")
        command.add_argument("--set", default="{}", help="settings for all, as JSON")
        command.add_argument("--special", default="{}", help="settings of the fine-tuning, as JSON")
        command.add_argument("--matched", action="store_true", help="also PW-MCC, minutes at 16,384 latents")
        if name == "run":
            command.add_argument("--only", nargs="+", choices=list(VARIANTS))
            command.add_argument("--seeds", type=int, default=2)
    count = commands.add_parser("leaders")
    count.add_argument("--acts", required=True)
    count.add_argument("--hookpoint", default="embeddings")
    count.add_argument("--cosines", type=float, nargs="+", default=[0.9, 0.7])
    count.add_argument(
        "--tokens", type=int, nargs="+", default=[2002, 2016, 2010, 2014], help="he, she, his, her"
    )
    commands.add_parser("table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "table":
        table()
    else:
        {"harvest": harvest, "run": run, "specialise": specialise, "leaders": leaders}[arguments.command](
            arguments
        )


if __name__ == "__main__":
    main()
