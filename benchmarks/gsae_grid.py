"""Where does specialising pay? The general SAE against the specialised one, over settings fixed beforehand.

python benchmarks/gsae_grid.py --data bios.parquet --corpus corpus.parquet --out results/grid --jobs 2

Writes OUT/grid.json and prints the paired differences. In each setting the same number of latents is removed from three
SAEs: gsae, trained for as many steps as the others in all; ssae_erm, specialised with the mean loss; ssae, with TERM's
tilt.
"""

import argparse
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from debias_ssae import Concept
from debias_ssae.benchmark import METHODS, run_benchmark
from debias_ssae.benchmark.summary import KEYS, Answers
from debias_ssae.benchmark.tables import HEADS, head_kind
from debias_ssae.core.config import BenchmarkConfig, default_width
from debias_ssae.core.io import write_json
from debias_ssae.core.stats import holm
from debias_ssae.text import load_corpus, load_table

MARGIN = 0.02
"""Elsewhere the ssae should not be worse than gsae by more than this."""
TARGET = {"setting": "1/8 width", "head": "frozen", "expected": 0.125}
"""Fixed before any run: the paper's compressed SAEs without retraining, where it reports its largest gain."""
AGAINST = ("gsae", "ssae_erm")


@dataclass(frozen=True)
class Setting:
    """One named condition; everything else is as in the protocol."""

    name: str
    width: int = 1
    """The SAE's width, and with it the number of latents removed, is divided by this."""
    k: int | None = None
    rarer: int = 1
    """Of the corpus's texts that hold a word of the concept, one in this many is kept."""
    names_only: bool = False
    """The concept's words are scrubbed from all texts; latents are found by swapping first names."""


SETTINGS = (
    Setting("full width"),
    Setting("1/2 width", width=2),
    Setting("1/4 width", width=4),
    Setting("1/8 width", width=8),
    Setting("full width, k=32", k=32),
    Setting("1/8 width, k=32", width=8, k=32),
    Setting("10x rarer", rarer=10),
    Setting("100x rarer", rarer=100),
    Setting("1/8 width, 100x rarer", width=8, rarer=100),
    Setting("names only", names_only=True),
    Setting("1/8 width, names only", width=8, names_only=True),
)


SAES = {
    **{name: METHODS[name] for name in ("erm", "oracle", "gsae")},
    **{name: METHODS[name] for name in ("ssae_erm", "ssae")},
}


def run_setting(
    setting: Setting, table: pd.DataFrame, corpus: list[str], given: argparse.Namespace
) -> tuple[dict, pd.DataFrame]:
    """Results and predictions of one setting."""
    base, concept = BenchmarkConfig(), Concept.load("gender")
    width = default_width(384) // setting.width  # of MiniLM
    debias = {"d_sae": width, "k": setting.k or base.debias.k, "recenter": False}
    config = base.updated(
        seeds=given.seeds,
        regimes=("none", "labelled", "concept"),
        n_latents=max(1, base.n_latents // setting.width),
        debias=base.debias.updated(**debias).model_dump(),
    )
    out = Path(given.out) / setting.name.replace("/", "-")
    if setting.rarer > 1:
        drawn = np.random.default_rng(0).random(len(corpus)) < 1 / setting.rarer
        corpus = [
            text for text, kept in zip(corpus, drawn, strict=True) if kept or not concept.swap_spans(text)
        ]
    if setting.names_only:
        table, corpus = (
            table.assign(text=table.text.map(concept.scrub)),
            [concept.scrub(text) for text in corpus],
        )
        out.mkdir(parents=True, exist_ok=True)
        names = concept.with_optional("names").subset("names")
        write_json(out / "names.json", names.to_dict())
        config = config.updated(concept=str(out / "names.json"), short_concepts={})
    results = run_benchmark(
        table,
        config,
        out,
        corpus=corpus,
        cache_dir=given.cache or Path(given.out) / "cache",
        methods=SAES,
        jobs=given.jobs,
        progress=True,
    )
    return results, pd.read_parquet(out / "predictions.parquet")


def differences(predictions: dict[str, pd.DataFrame], summaries: dict[str, list[dict]]) -> list[dict]:
    """ssae minus each other SAE in each setting and head, paired; Holm over the settings of one contrast and head."""
    answers = {name: Answers(frame) for name, frame in predictions.items()}
    records = []
    for other in AGAINST:
        for head in HEADS:
            found: list[dict] = []
            for name, summary in summaries.items():
                rows = {row["method"]: row for row in usual(summary) if head_kind(row) == head}
                a, b = (
                    answers[name].moves(tuple(rows[m][key] or "" for key in KEYS), "worst_group_accuracy")
                    for m in ("ssae", other)
                )
                moves = a.minus(b)
                value, low, high = moves.interval()
                half = moves._replace(point=moves.point + MARGIN).p_value() / 2
                worse = half if value > -MARGIN else 1 - half
                record = {
                    "setting": name,
                    "head": head,
                    "ssae": "ssae",
                    "against": other,
                    "difference": value,
                }
                record |= {"ci_low": low, "ci_high": high, "p": moves.p_value(), "p_non_inferior": worse}
                found.append(record)
            for p in ("p", "p_non_inferior"):
                for record, adjusted in zip(found, holm([one[p] for one in found]), strict=True):
                    record[f"{p}_holm"] = float(adjusted)
            records += found
    return records


def usual(summary: list[dict]) -> list[dict]:
    """The rows of logistic heads with C by cross-validation, or with one of the method's own."""
    return [row for row in summary if row["head_model"] == "logistic" and row["C_rule"] in ("cv", "own")]


def main() -> None:
    """Run the settings and write grid.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--data", "--corpus", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--cache")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--setting", action="append", choices=[setting.name for setting in SETTINGS])
    given = parser.parse_args()
    table = load_table(given.data, text="text", target="profession", sensitive="gender")
    table = table.rename(columns={"profession": "target", "gender": "sensitive"})
    corpus, settings = (
        load_corpus(given.corpus),
        [s for s in SETTINGS if s.name in (given.setting or [s.name])],
    )
    found = {setting.name: run_setting(setting, table, corpus, given) for setting in settings}
    results, summaries = (
        next(iter(found.values()))[0],
        {name: one["summary"] for name, (one, _) in found.items()},
    )
    made = {**results["made"], "command": shlex.join(["python", *sys.argv])}
    made["processor_seconds"] = sum(one["made"]["processor_seconds"] for one, _ in found.values())
    records = differences({name: frame for name, (_, frame) in found.items()}, summaries)
    write_json(
        Path(given.out) / "grid.json",
        {
            **{name: results[name] for name in ("versions", "data")},
            "made": made,
            "target": TARGET,
            "settings": [asdict(setting) for setting in settings],
            "grid": [
                {**{key: row[key] for key in ("method", "worst_group_accuracy", "n_seeds")}, "setting": name}
                | {"head": head_kind(row), "seeds": row["n_seeds"]}
                for name, summary in summaries.items()
                for row in usual(summary)
            ],
            "differences": records,
        },
    )
    for one in records:
        print(
            f"{one['setting']:<24} {one['head']:<18} ssae - {one['against']:<14} {one['difference']:+.3f} "
            f"({one['ci_low']:+.3f} to {one['ci_high']:+.3f}), p after Holm {one['p_holm']:.2f}"
        )


if __name__ == "__main__":
    main()
