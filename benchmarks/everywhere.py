"""Does the default hold everywhere? Data sets x encoders x attributes x supervision, each against the simpler tools.

python benchmarks/everywhere.py --data DATA --out results/everywhere [--only NAME ...] [--models DIR] [--seeds 2]
    [--jobs 2]

DATA holds the folders that docs/everywhere.md lists. Resumable: what is finished is not made again. Writes
OUT/everywhere.json and OUT/table.md. In each row the simple method is the best one *on the test* among those with the
same supervision, which is to our loss. The differences are paired; Holm's correction goes over all rows.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from debias_ssae.benchmark import run_benchmark
from debias_ssae.benchmark.protocol import Split
from debias_ssae.benchmark.summary import Answers, key_of
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.core.io import write_json, write_text
from debias_ssae.core.stats.shares import holm
from debias_ssae.core.steps import show_progress

SIMPLE = (
    "scrub",
    "mean_diff",
    "leace",
    "leace_conditional",
    "counterfactual_direction",
    "counterfactual_subspace",
)
MARGIN = 0.02
LABELS, WORDS = "labelled", "concept"
SIZES = {"n_test": 60, "n_attribute": 60, "max_head": 300, "n_corpus": 4000, "seeds": 3}


@dataclass(frozen=True)
class Case:
    """One data set with one encoder."""

    load: Callable[[Path], pd.DataFrame]
    """Returns columns text, target, sensitive, and template where texts of one template must stay together."""
    regimes: tuple[str, ...]
    concept: Any = "gender"
    encoder: str = "minilm"
    setting: str = "confounded"
    sizes: dict[str, Any] = field(default_factory=dict)


def biographies(data: Path) -> pd.DataFrame:
    """Surgeons and nurses."""
    table = pd.read_parquet(data / "bias_in_bios_surgeon_nurse" / "data.parquet")
    return table.rename(columns={"profession": "target", "gender": "sensitive"})[
        ["text", "target", "sensitive"]
    ]


def wiki(*occupations: str) -> Callable[[Path], pd.DataFrame]:
    """Biographies of Wikipedia without their first sentence."""

    def load(data: Path) -> pd.DataFrame:
        table = pd.read_parquet(data / "wiki_bios" / "data.parquet")
        table = table[table["occupation"].isin(occupations)]
        return pd.DataFrame(
            {
                "text": table["text_wo_first_sentence"],
                "target": table["occupation"],
                "sensitive": table["gender"],
            }
        ).dropna()

    return load


def reviews(data: Path) -> pd.DataFrame:
    """Sentiment, with the product's domain as the attribute."""
    table = pd.read_parquet(data / "reviews_two_domains" / "data.parquet")
    return table.rename(columns={"label": "target", "domain": "sensitive"})[["text", "target", "sensitive"]]


def hatecheck(data: Path) -> pd.DataFrame:
    """Hateful or not, with the identity that a template names as the attribute."""
    table = pd.read_parquet(data / "hatecheck" / "data.parquet").dropna(subset=["identity"])
    names = {"label": "target", "identity": "sensitive"}
    table = table.rename(columns=names)[["text", "target", "sensitive", "template"]]
    return table.drop_duplicates("text").reset_index(drop=True)


CASES = {
    "biographies, minilm": Case(biographies, (LABELS, WORDS)),
    "biographies as they are, minilm": Case(biographies, (LABELS, WORDS), setting="natural"),
    "wiki, 2 classes, minilm": Case(wiki("athlete", "writer"), (LABELS, WORDS)),
    "wiki, 6 classes, minilm": Case(
        wiki("academic", "athlete", "musician", "politician", "royalty", "writer"),
        (LABELS, WORDS),
        sizes={"n_test": 40, "n_attribute": 40},
    ),
    "reviews, minilm": Case(reviews, (LABELS,), concept=None),
    "hatecheck, minilm": Case(
        hatecheck, (LABELS,), concept=None, setting="natural", sizes={"n_test": 0, "n_attribute": 0}
    ),
    "biographies, mpnet": Case(biographies, (LABELS, WORDS), encoder="all-mpnet-base-v2"),
    "biographies, gemma": Case(
        biographies, (LABELS, WORDS), encoder="gemma-3-270m", sizes={"seeds": 1, "n_corpus": 2000}
    ),
}
LAYERS = {"gemma-3-270m": "blocks.8"}
"""The representation, where it is not the model's last; fixed before any run."""


def main() -> None:
    """Run every case, or those named, and write one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("models"), help="directory of the other encoders")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of cases")
    parser.add_argument("--seeds", type=int, help="in place of the case's own number")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    corpus = pd.read_parquet(given.data / "general_corpus" / "data.parquet")["text"].tolist()
    for name, case in CASES.items():
        if given.only and not any(part in name for part in given.only):
            continue
        run(name, case, given, corpus)
        records = [r for n in CASES for r in read(given.out / slug(n), n)]
        correct(records)
        write_json(
            given.out / "everywhere.json",
            {"margin": MARGIN, "records": records, "over_all": over_all(records)},
        )
        write_text(given.out / "table.md", markdown(records))
    print(markdown(records))


def run(name: str, case: Case, given: argparse.Namespace, corpus: list[str]) -> None:
    """Run the benchmark's protocol on one case; what is finished already is read."""
    encoder = case.encoder if case.encoder == "minilm" else str(given.models / case.encoder)
    sizes = (
        SIZES | {k: v for k, v in case.sizes.items() if v} | ({"seeds": given.seeds} if given.seeds else {})
    )
    config = BenchmarkConfig(
        encoder=encoder,
        layer=LAYERS.get(case.encoder, "final"),
        concept=case.concept,
        setting=case.setting,  # type: ignore[arg-type]
        methods=("erm", "oracle", "ssae_default", *SIMPLE),
        regimes=("none", *case.regimes),
        **sizes,
    )
    table, splits = case.load(given.data), None
    if "template" in table:
        splits = [by_template(table, seed) for seed in range(config.seeds)]
    with show_progress():
        run_benchmark(
            table,
            config,
            given.out / slug(name),
            corpus=corpus,
            splits=splits,
            cache_dir=given.out / "cache",
            jobs=given.jobs,
            command=f"python benchmarks/everywhere.py --only {name!r}",
        )


def by_template(table: pd.DataFrame, seed: int) -> Split:
    """Half of the templates train the head, a fifth is the group-annotated set, the rest is the test."""
    templates = np.random.default_rng(seed).permutation(table["template"].unique())
    ends = (int(0.5 * len(templates)), int(0.7 * len(templates)))
    parts = [table["template"].isin(part).to_numpy().nonzero()[0] for part in np.split(templates, ends)]
    return Split(*parts)


def slug(name: str) -> str:
    """A folder's name."""
    return name.replace(",", "").replace(" ", "_")


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """A record for each regime and head of a finished case."""
    if not (folder / "results.json").exists():
        return []
    results = json.loads((folder / "results.json").read_text())
    answers = Answers(pd.read_parquet(folder / "predictions.parquet"))
    rows = [
        row
        for row in results["summary"]
        if row["head_model"] == "logistic"
        and row["C_rule"] in ("cv", "own")
        and "re-cent" not in row["representation"]
    ]
    at = {(row["method"], row["regime"], row["head"]): row for row in rows}
    erm = next(row for row in rows if row["method"] == "erm")
    oracle = next((row for row in rows if row["method"] == "oracle"), None)
    picked = [(run["regime"], run["choice"]) for run in results["runs"] if run["method"] == "ssae_default"]
    records = []
    for (method, regime, head), ours in at.items():
        if method != "ssae_default":
            continue
        simple = [at[other, regime, head] for other in SIMPLE if (other, regime, head) in at]
        best = max(simple, key=lambda row: row["worst_group_accuracy"])
        difference = answers.moves(key_of(ours), "worst_group_accuracy").minus(
            answers.moves(key_of(best), "worst_group_accuracy")
        )
        value, low, high = difference.interval()
        choices = {json.dumps(c, sort_keys=True): c for r, c in picked if r == regime and c is not None}
        records.append(
            {
                "case": name,
                "regime": regime,
                "head": head,
                "n_seeds": ours["n_seeds"],
                "erm": erm["worst_group_accuracy"],
                "oracle": None if oracle is None else oracle["worst_group_accuracy"],
                "default": ours["worst_group_accuracy"],
                "accuracy": ours["accuracy"],
                "erm_accuracy": erm["accuracy"],
                "gap_closed": ours["gap_closed"],
                "simple": {row["method"]: row["worst_group_accuracy"] for row in simple},
                "gap_closed_by_simple": {row["method"]: row["gap_closed"] for row in simple},
                "best_simple": best["method"],
                "difference": value,
                "ci_low": low,
                "ci_high": high,
                "p_value": difference.p_value(),
                "picked": [c["picked"] for c in choices.values()],
            }
        )
    return records


def correct(records: list[dict[str, Any]]) -> None:
    """Holm's p over all rows, and whether a row is worse than the margin allows."""
    for record, p in zip(records, holm([r["p_value"] for r in records]), strict=True):
        record["p_holm"] = float(p)
        record["worse"] = bool(record["difference"] < -MARGIN and p < 0.05)


def over_all(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean gap closed of the default, and of each simple method over the rows that it has."""
    known = [r for r in records if r["gap_closed"] is not None]
    found: dict[str, Any] = {"default": float(np.mean([r["gap_closed"] for r in known])), "beside": {}}
    for method in SIMPLE:
        rows = [r for r in known if r["gap_closed_by_simple"].get(method) is not None]
        if rows:
            found["beside"][method] = {
                "rows": len(rows),
                "gap_closed": float(np.mean([r["gap_closed_by_simple"][method] for r in rows])),
                "default_on_them": float(np.mean([r["gap_closed"] for r in rows])),
            }
    return found


def markdown(records: list[dict[str, Any]]) -> str:
    """One row for each case, supervision and head."""
    lines = [
        "| case | supervision | head | ERM | oracle | best simple method | default | gap closed "
        "| difference | picked |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        picks = (
            ", ".join(f"{p} ({r['picked'].count(p)})" for p in dict.fromkeys(r["picked"])) or "not compared"
        )
        closed, oracle = (f"{r[k]:.2f}" if r[k] is not None else "–" for k in ("gap_closed", "oracle"))
        interval = (
            f"{r['difference']:+.3f} ({r['ci_low']:.3f} to {r['ci_high']:.3f}){' *' if r['worse'] else ''}"
        )
        lines.append(
            f"| {r['case']} | {r['regime']} | {r['head']} | {r['erm']:.2f} | {oracle} "
            f"| {r['best_simple']} {r['simple'][r['best_simple']]:.3f} | {r['default']:.3f} "
            f"| {closed} | {interval} | {picks} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
