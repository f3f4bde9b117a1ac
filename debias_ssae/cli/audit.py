"""``debias-ssae audit``: from a table of predictions to a page, a verdict and an exit code."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from debias_ssae.audit import AuditReport, GateResult, check_gates, flips_of_predictions, parse_thresholds
from debias_ssae.audit import audit as run_audit
from debias_ssae.audit.audit_page import audit_html
from debias_ssae.audit.verdict import audit_json, audit_junit, audit_markdown, audit_text
from debias_ssae.cli.checks import REPORTS, check_columns, check_outs
from debias_ssae.cli.options import shared
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import file_digest, write_text
from debias_ssae.text import read_table

_PATH = click.Path(path_type=Path)
_COLUMNS = {
    "target": "--target", "weight": "--weight", "text": "--text", "counterfactual_text": "--counterfactual-text",
    "predictions": "--prediction", "sensitive": "--sensitive", "scores": "--score", "control": "--control",
    "counterfactuals": "--counterfactual-prediction",
}  # fmt: skip
"""The options that name columns."""


@click.command()
@click.option("--data", required=True, type=_PATH, help="Table: csv, csv.gz, jsonl or parquet.")
@click.option("--target", required=True, help="Column of the true labels.")
@click.option(
    "--prediction", "predictions", required=True, multiple=True, help="Column of predictions; repeatable."
)
@click.option("--sensitive", required=True, multiple=True, help="Column of an attribute; repeatable.")
@click.option(
    "--score", "scores", multiple=True, help="Column of probabilities, one for each --prediction, in order."
)
@click.option("--control", multiple=True, help="Column whose levels are audited one by one; repeatable.")
@click.option("--weight", help="Column of row weights.")
@click.option("--pos-label", help="The label that counts as selected, of two (default: the larger).")
@click.option(
    "--counterfactual-prediction",
    "counterfactuals",
    multiple=True,
    help="Predictions on swapped texts, one for each --prediction.",
)
@click.option("--text", help="Column of texts; used with --with-texts only.")
@click.option("--counterfactual-text", help="Column of swapped texts, used with --with-texts only.")
@click.option(
    "--with-texts", is_flag=True, help="Save example texts in the outputs (off: no text leaves the table)."
)
@click.option("--mask-names", is_flag=True, help="Hide names and numbers in example texts.")
@click.option(
    "--representations", type=_PATH, help="[n, d] matrix (.npy) whose leakage is probed for each --sensitive."
)
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=_PATH,
    help=f"File to write, {', '.join(REPORTS)}; repeatable. Without it the audit is printed.",
)
@click.option("--summary", is_flag=True, help="Print only the verdict, in one sentence, and the gates.")
@click.option(
    "--fail-under", multiple=True, help="measure=number: exit 1 when below, such as worst_group_accuracy=0.8."
)
@click.option(
    "--fail-over", multiple=True, help="measure=number: exit 1 when above, such as tpr_gap_max=0.1."
)
@click.option(
    "--allow-undefined",
    multiple=True,
    metavar="CELL",
    help='A cell "label / group" that may be without rows, or all; repeatable. Gates fail on others.',
)
@click.option("--n-bootstrap", default=1000, help="Bootstrap draws.")
@shared("min_group", "tolerance", "seed", "quiet")
def audit(**options: Any) -> None:
    """Audit predictions: what fails, for whom, how sure we are.

    It needs no model: any table with labels, predictions and attributes will do. It ends with code 1 when a gate
    fails, and with code 2 when the input cannot be used.
    """
    check_outs(options["outs"], options["data"], options["representations"])
    table = _read(options)
    under, over = parse_thresholds(options["fail_under"]), parse_thresholds(options["fail_over"])
    report = _audited(table, options)
    allowed = set(options["allow_undefined"])
    gates = check_gates(report, fail_under=under, fail_over=over, allow_undefined="all" in allowed or allowed)
    write_audit(report, gates, options["outs"], summary=options["summary"])
    if any(not gate.passed for gate in gates):
        sys.exit(1)


def _read(options: dict[str, Any]) -> pd.DataFrame:
    table = read_table(options["data"])
    for key, option in _COLUMNS.items():
        given = options[key] or ()
        check_columns(table, options["data"], option, (given,) if isinstance(given, str) else given)
    judged = {"--target": [options["target"]], "--prediction": options["predictions"]}
    for role, names in judged.items():
        if same := set(names) & set(options["sensitive"]):
            raise InputError(f"--sensitive {same.pop()} is also {role}; name a column of the attribute")
    for kind in ("scores", "counterfactuals"):
        if options[kind] and len(options[kind]) != len(options["predictions"]):
            given, models = len(options[kind]), len(options["predictions"])
            raise InputError(
                f"{_COLUMNS[kind]} is needed once for each --prediction: got {given} for {models}"
            )
    return table


def _audited(table: pd.DataFrame, options: dict[str, Any]) -> AuditReport:
    models = list(options["predictions"])
    weight = options["weight"]
    report = run_audit(
        table[options["target"]],
        {name: table[name] for name in models},
        sensitive_features=table[list(options["sensitive"])],
        y_score={m: table[s] for m, s in zip(models, options["scores"], strict=False)} or None,
        control_features=table[list(options["control"])] if options["control"] else None,
        sample_weight=table[weight] if weight else None,
        pos_label=_label(table[options["target"]], options["pos_label"]),
        **{name: options[name] for name in ("min_group", "tolerance", "n_bootstrap")},
        random_state=options["seed"],
    )
    extras: dict[str, Any] = {"provenance": provenance(options)}
    if options["counterfactuals"]:
        extras["flips"] = _flips(table, options)
    if options["representations"]:
        extras["leakage"] = _leakage(table, options)
    return report.with_extras(**extras)


def _label(target: pd.Series, text: str | None) -> Any:
    """The label that reads like ``text``: a csv's 1 is a number."""
    if text is None:
        return None
    return next((v for v in target.dropna().unique().tolist() if str(v) == text), text)


def _flips(table: pd.DataFrame, options: dict[str, Any]) -> dict[str, Any]:
    texts = None
    if options["with_texts"] and options["text"] and options["counterfactual_text"]:
        texts = list(zip(table[options["text"]], table[options["counterfactual_text"]], strict=True))
    kept: dict[str, Any] = {"texts": texts, "n_examples": 10, "mask_names": options["mask_names"]}
    pairs = zip(options["predictions"], options["counterfactuals"], strict=True)
    return {a: flips_of_predictions(table[a], table[b], **kept).to_dict() for a, b in pairs}


def _leakage(table: pd.DataFrame, options: dict[str, Any]) -> Any:
    from debias_ssae.audit.leakage import probe_leakage

    path = options["representations"]
    try:
        X = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path} as a .npy matrix: {error}") from error
    y, seed = table[options["target"]], options["seed"]
    reports = {
        name: probe_leakage(X, table[name], y, random_state=seed).to_dict() for name in options["sensitive"]
    }
    return reports if len(reports) > 1 else next(iter(reports.values()))


def provenance(options: dict[str, Any]) -> dict[str, str]:
    """What the numbers come from: files and their sums, seed, command, versions."""
    facts = {"data": str(options["data"]), "sha256_of_the_data": file_digest(options["data"])}
    if options.get("representations"):
        facts["sha256_of_the_representations"] = file_digest(options["representations"])
    facts |= {"seed": str(options["seed"]), "command": shlex.join(["debias-ssae", *sys.argv[1:]])}
    packages = ("debias-ssae", "numpy", "pandas", "scipy", "scikit-learn")
    facts["versions"] = ", ".join(f"{name} {version(name)}" for name in packages)
    facts["python"] = sys.version.split()[0]
    return facts


def write_audit(
    report: AuditReport, gates: list[GateResult], outs: Sequence[Path], *, summary: bool = False
) -> None:
    """Write the audit to ``outs`` and say its verdict; without ``outs`` and ``summary`` print all of it."""
    kinds = {".html": audit_html, ".json": audit_json, ".md": audit_markdown, ".xml": audit_junit}
    texts = {out: kinds[out.suffix](report, gates) for out in outs}  # all of them before the first is written
    for out, text in texts.items():
        write_text(out, text)
    width = min(100, shutil.get_terminal_size().columns)
    click.echo(audit_text(report, summary=summary or bool(outs), width=width))
    for gate in gates:
        said = "PASSED" if gate.passed else "FAILED"
        line = f"{said} {gate.metric} [{gate.section}, {gate.model}]: {gate.reason}"
        click.echo(line, err=not gate.passed)
    if outs:
        click.echo(f"Report: {', '.join(map(str, outs))}")
