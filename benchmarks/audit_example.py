"""Make docs/example_audit.html: one classifier on plain and on debiased biographies, audited side by side.

    debias-ssae fit --data train.csv ... --out model          # any debiaser of biographies
    python benchmarks/audit_example.py model --data bias_in_bios_surgeon_nurse/data.parquet

The training texts hold male surgeons and female nurses alone (at most 600 of each), the audited texts every
combination (at most 250 of each), all of them unseen by ``evaluate``'s classifier. Labels and texts of the data
set stay in a temporary folder; no text is in the page.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

N_TRAIN, N_TEST = 600, 250
"""Texts of a combination of profession and gender, at most."""


def split(table: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Texts to learn from, where profession and gender agree, and texts to audit on."""
    table = table.drop_duplicates("text").sample(frac=1, random_state=seed)
    table = table.assign(gender=table["gender"].map({"F": "female", "M": "male"}))
    number = table.groupby(["profession", "gender"]).cumcount()
    test = table[number < N_TEST]
    agree = (table["profession"] == "surgeon") == (table["gender"] == "male")
    train = table[agree & (number >= N_TEST) & (number < N_TEST + N_TRAIN)]
    return train, test


def main() -> None:
    """Call the command as a user would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="text, profession, gender")
    parser.add_argument("--out", type=Path, default=Path("docs/example_audit.html"))
    options = parser.parse_args()
    train, test = split(pd.read_parquet(options.data))
    program = str(Path(sys.executable).with_name("debias-ssae"))
    with TemporaryDirectory() as folder:
        # relative names, so that the page holds no path of this machine
        (Path(folder) / "debiased").symlink_to(options.model.absolute())
        for name, rows in (("train.csv", train), ("test.csv", test)):
            rows[["text", "profession", "gender"]].to_csv(Path(folder) / name, index=False)
        given = [
            "--train",
            "train.csv",
            "--data",
            "test.csv",
            "--target",
            "profession",
            "--sensitive",
            "gender",
        ]
        command = [program, "evaluate", "plain", "debiased", *given, "--out", "audit.html", "--quiet"]
        subprocess.run(command, check=True, cwd=folder)
        shutil.copy(Path(folder) / "audit.html", options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {len(test):,} texts")


if __name__ == "__main__":
    main()
