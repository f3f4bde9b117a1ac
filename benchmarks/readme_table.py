"""Write the benchmark's table into README.md, from benchmarks/results/bias_in_bios.json and ..._linear.json.

python benchmarks/readme_table.py            # rewrites the part between the two results marks
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bias_in_bios.json"
LINEAR = RESULTS.with_name("bias_in_bios_linear.json")
MARKS = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.S)
HEADS = {
    ("retrained", False): "retrained",
    ("frozen", False): "frozen",
    ("frozen", True): "frozen, re-centred",
}


def table(results: dict, linear: dict) -> str:
    """Return the table as markdown, with what it was made from.

    Raises ValueError where the two runs do not share data and protocol.
    """
    for key in ("seeds", "n_test", "n_attribute", "max_head", "encoder", "layer", "pooling", "setting"):
        if (
            results["config"][key] != linear["config"][key]
            or results["data"]["sha256"] != linear["data"]["sha256"]
        ):
            raise ValueError(f"the two runs differ in {key} or in their data")
    data, versions = results["data"], results["versions"]
    seeds = sorted({run["seed"] for run in results["runs"]})
    before = (
        f"{data['n']:,} real biographies, surgeon against nurse; the head learns from male surgeons and female nurses "
        f"only and is tested on all four groups, {results['config']['n_test']} texts each. {len(seeds)} seeds of the "
        "whole pipeline, all-MiniLM-L6-v2, logistic regression, C by 5-fold average accuracy on the head's own data. "
        "Worst-group accuracy, mean and 95% interval (bootstrap clustered by text, plus the variance between seeds):"
    )
    after = (
        "`erm`: no debiasing; `oracle`: head trained on 480 balanced texts; `scrub`: the concept's words replaced in "
        "the text; `token_mask`: their embeddings replaced by the mean, no SAE; `random_latents`: as many others, "
        "matched in firing rate and mass. A *frozen* head was trained before the edit; *re-centred*: the output "
        "shifted so that the training mean stays where it was, which `SSAEDebiaser` does by itself. The linear erasers "
        "work on the pooled vectors: from the labels of the 480 balanced texts, or (`counterfactual_subspace`) from "
        "swapped words."
    )
    source = (
        f"Data SHA-256 `{data['sha256'][:16]}`, torch {versions['torch']}, scikit-learn {versions['scikit-learn']}; "
        "made by the second command above and, for the linear erasers, by the same one with `--methods "
        f"{','.join(linear['config']['methods'])}`; both are kept in [benchmarks/results](benchmarks/results)."
    )
    head = [
        "| method | regime | head | worst-group accuracy | at C=0.1 | balanced accuracy | leakage |",
        "|---|---|---|---|---|---|---|",
    ]
    lines = [
        fill(before, 120),
        "",
        *head,
        *rows(results["summary"] + linear["summary"]),
        "",
        fill(after, 120),
        "",
        fill(source, 120),
    ]
    return "\n".join(lines) + "\n"


def rows(summary: list[dict]) -> Iterator[str]:
    """Yield a line for each method, regime and head; the row at C=0.1 is a column."""

    def key(row: dict) -> tuple:
        return row["method"], row["regime"], row["head"], row["representation"]

    fixed = {key(row): row["worst_group_accuracy"] for row in summary if row["C_rule"] == "fixed"}
    chosen = [row for row in summary if row["C_rule"] == "cv"]
    for kind in HEADS:
        for row in chosen:
            if (row["head"], "re-centred" in row["representation"]) == kind:
                low, high = row["worst_group_accuracy_ci_low"], row["worst_group_accuracy_ci_high"]
                worst = f"{row['worst_group_accuracy']:.3f} ({max(low, 0):.3f} to {min(high, 1):.3f})"
                cells = [row["method"], row["regime"], HEADS[kind], worst, f"{fixed[key(row)]:.3f}"]
                yield f"| {' | '.join(cells)} | {row['balanced_accuracy']:.3f} | {row['leakage']:.3f} |"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    made = table(*(json.loads(file.read_text(encoding="utf-8")) for file in (RESULTS, LINEAR)))
    readme.write_text(
        MARKS.sub(lambda m: m[1] + made + m[2], readme.read_text(encoding="utf-8")), encoding="utf-8"
    )
    print(made)
