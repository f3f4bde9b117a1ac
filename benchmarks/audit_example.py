"""Audit the predictions of a benchmark run: docs/example_audit.html.

    python benchmarks/audit_example.py results/bios/predictions.parquet --out docs/example_audit.html

Takes the retrained head with cross-validated C, one column a method. A text tested by several seeds is audited once, by
the first of them, so that rows are independent; methods are compared on the same rows. No text is in the input. The
table that is audited lies in the working directory meanwhile.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

TABLE = Path("example_predictions.csv")
METHODS = {
    ("erm", "none"): "erm",
    ("scrub", "concept"): "scrub",
    ("leace", "labelled"): "leace",
    ("ssae_default", "concept"): "ssae concept",
    ("ssae_default", "labelled"): "ssae labelled",
}


def wide_predictions(predictions: pd.DataFrame, head: str = "retrained", rule: str = "cv") -> pd.DataFrame:
    """One row a text: y, gender and one column a method (with its regime for ssae)."""
    rows = predictions[
        (predictions["head"] == head)
        & (predictions["C_rule"] == rule)
        & (predictions["head_model"] == "logistic")
        & (predictions["draw"] == 0)
    ]
    name = [METHODS.get(pair) for pair in zip(rows["method"], rows["regime"], strict=True)]
    rows = rows.assign(name=name).dropna(subset="name").sort_values("seed", kind="stable")
    first = rows.groupby("text_id")["seed"].transform("first")
    rows = rows[rows["seed"] == first]
    table = rows.pivot(index=["text_id", "y", "z"], columns="name", values="y_pred").reset_index()
    kept = [m for m in METHODS.values() if m in table.columns]
    return table.rename(columns={"y": "profession", "z": "gender"})[["profession", "gender", *kept]]


def main() -> None:
    """Call the command as a user would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/example_audit.html"))
    options = parser.parse_args()
    table = wide_predictions(pd.read_parquet(options.predictions))
    command = ["audit", "--data", str(TABLE), "--target", "profession", "--sensitive", "gender"]
    for method in table.columns[2:]:
        command += ["--prediction", method]
    program = Path(sys.executable).with_name("debias-ssae")
    try:
        table.to_csv(TABLE, index=False)
        subprocess.run([str(program), *command, "--out", str(options.out)], check=True)
    finally:
        TABLE.unlink(missing_ok=True)  # labels of a data set that is not ours to keep
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {len(table):,} texts")


if __name__ == "__main__":
    main()
