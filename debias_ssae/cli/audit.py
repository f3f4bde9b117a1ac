"""``debias-ssae audit``: from a table of predictions to a page and a verdict."""

from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="csv, csv.gz, jsonl or parquet table."
)
@click.option("--target", required=True, help="Column of the true labels.")
@click.option(
    "--prediction", "predictions", required=True, multiple=True, help="Column of predictions; repeatable."
)
@click.option("--sensitive", required=True, multiple=True, help="Column of an attribute; repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to write: .html or .json.")
def audit(
    data: Path, target: str, predictions: tuple[str, ...], sensitive: tuple[str, ...], out: Path
) -> None:
    """Audit predictions: what fails, for whom, how sure we are."""
    from debias_ssae.auditing import audit as run_audit
    from debias_ssae.report import write_audit_report

    table = _columns(data, target, predictions, sensitive)
    report = run_audit(
        table[target], {p: table[p] for p in predictions}, sensitive_features=table[list(sensitive)]
    )
    write_audit_report(report, out)
    for model in report.models:
        row = report.measure_row("worst_group_accuracy", model=model)
        click.echo(f"{model}: worst-group accuracy {row['value']:.3f} ({row['where']})")
    click.echo(f"Report: {out}")


def _columns(path: Path, target: str, predictions: tuple[str, ...], sensitive: tuple[str, ...]) -> Any:
    from debias_ssae.datasets.loading import _read as read_table
    from debias_ssae.exceptions import InputError

    table = read_table(path)
    missing = [c for c in (target, *predictions, *sensitive) if c not in table.columns]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}; its columns are {list(map(str, table.columns))}"
        )
    return table
