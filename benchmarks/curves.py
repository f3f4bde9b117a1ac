"""Accuracy against how many latents are removed, and how strongly; random latents beside.

python benchmarks/curves.py --data bios.parquet --corpus corpus.parquet --out results/curves --jobs 2

Writes OUT/curves.json and prints worst-group accuracies. Told the whole list of words; heads with C by
cross-validation. An SAE is trained once for each seed and kept in the cache, so a point costs a selection and a pass.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from debias_ssae.benchmark import METHODS, Context, Method, run_benchmark
from debias_ssae.benchmark.methods import RandomLatents, debiaser
from debias_ssae.benchmark.tables import head_kind
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.core.io import write_json
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.text import load_corpus, load_table

COUNTS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 500)
"""Latents removed; 0 is erm."""
ALPHAS = (0.25, 0.5, 0.75)
"""Share of what the default number of latents writes that is removed; 0 is erm, 1 is in the other curve."""


def point(c: Context, *, n: int, alpha: float = 1.0, random: bool = False) -> SSAEDebiaser:
    """One point of a curve: the edit alone."""
    attribute = c.supervision.attribute
    return debiaser(
        c,
        attribute=RandomLatents(attribute) if random else attribute,
        n_latents=n,
        alpha=alpha,
        output_eraser=None,
        config=c.config.debias.updated(recenter=False),
    )


def points(default: int) -> dict[str, tuple[str, float, Method]]:
    """Sweep, value and method by the name of the row."""
    found = {name: (name, 0.0, METHODS[name]) for name in ("erm", "oracle")}
    for n in COUNTS:
        for sweep, random in (("ssae", False), ("random_latents", True)):
            make = partial(point, n=n, random=random)
            found[f"{sweep} {n}"] = sweep, float(n), Method(make, ("concept",))
    for alpha in ALPHAS:
        found[f"alpha {alpha}"] = "alpha", alpha, Method(partial(point, n=default, alpha=alpha), ("concept",))
    return found


def main() -> None:
    """Run the sweep and write curves.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--data", "--corpus", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--cache")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int)
    given = parser.parse_args()
    config = BenchmarkConfig(seeds=given.seeds, regimes=("none", "labelled", "concept"))
    table = load_table(given.data, text="text", target="profession", sensitive="gender")
    chosen = points(config.n_latents)
    results = run_benchmark(
        table.rename(columns={"profession": "target", "gender": "sensitive"}),
        config,
        given.out,
        corpus=load_corpus(given.corpus),
        cache_dir=given.cache,
        methods={name: method for name, (_, _, method) in chosen.items()},
        jobs=given.jobs,
        command=shlex.join(["python", *sys.argv]),
        progress=True,
    )
    rows = []
    for row in results["summary"]:
        if row["head_model"] == "logistic" and row["C_rule"] in ("cv", "own"):
            sweep, value, _ = chosen[row["method"]]
            kept = {name: row[name] for name in row if name.startswith(("worst_group_accuracy", "balanced"))}
            facts = {"n_latents": row["n_latents"], "n_seeds": row["n_seeds"]}
            default = sweep == "ssae" and value == config.n_latents
            rows.append(
                {"method": sweep, "value": value, "head": head_kind(row), "default": default, **kept, **facts}
            )
    head = {name: results[name] for name in ("config", "versions", "data", "concept", "made")}
    write_json(Path(given.out) / "curves.json", {**head, "curves": rows})
    for row in rows:
        print(f"{row['method']:>15} {row['value']:6g}  {row['head']:<18} {row['worst_group_accuracy']:.3f}")


if __name__ == "__main__":
    main()
