"""``debias-ssae audit``: from a table of predictions to a page, a verdict and an exit code."""

import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

    from debias_ssae.audit import AuditReport, GateResult

_PATH = click.Path(path_type=Path)
_KINDS = (".html", ".json", ".md", ".xml")


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
    "--debiaser",
    type=_PATH,
    help="Saved debiaser whose removed latents are listed; with --text and --with-texts, with contexts.",
)
@click.option(
    "--out",
    "outs",
    required=True,
    multiple=True,
    type=_PATH,
    help=f"File to write, {', '.join(_KINDS)}; repeatable.",
)
@click.option(
    "--fail-under", multiple=True, help="measure=number: exit 1 when below, such as worst_group_accuracy=0.8."
)
@click.option(
    "--fail-over", multiple=True, help="measure=number: exit 1 when above, such as tpr_gap_rms=0.1."
)
@click.option("--allow-undefined", is_flag=True, help="Let gates pass on undefined or incomplete measures.")
@click.option(
    "--min-cell",
    default=1,
    show_default=True,
    help="Smaller cells do not enter the worst group; they are listed.",
)
@click.option("--tolerance", default=0.1, show_default=True, help="The difference that matters.")
@click.option("--n-bootstrap", default=1000, show_default=True, help="Bootstrap draws.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
def audit(**options: Any) -> None:
    """Audit predictions: what fails, for whom, how sure we are.

    Needs no model: any table with labels, predictions and attributes will do. Ends with code 1 when a gate
    fails, with code 2 when the input cannot be used.
    """
    from debias_ssae.audit import check_gates, parse_thresholds

    under, over = parse_thresholds(options["fail_under"]), parse_thresholds(options["fail_over"])
    _check_outs(options["outs"])
    table = _read(options)
    report = _audited(table, options)
    gates = check_gates(report, fail_under=under, fail_over=over, allow_undefined=options["allow_undefined"])
    texts = {out: _rendered(report, gates, out) for out in options["outs"]}
    from debias_ssae.audit.page import write_text

    for out, text in texts.items():
        write_text(text, out)
    _say(report, gates, options["outs"])
    if any(not gate.passed for gate in gates):
        sys.exit(1)


def _check_outs(outs: Sequence[Path]) -> None:
    from debias_ssae.core.errors import InputError

    for out in outs:
        if out.suffix not in _KINDS:
            raise InputError(f"--out {out}: unknown kind of file; use one of {', '.join(_KINDS)}")
        if not out.parent.is_dir():
            raise InputError(f"--out {out}: there is no directory {out.parent}; make it first")
        if not os.access(out.parent, os.W_OK):
            raise InputError(f"--out {out}: the directory {out.parent} is not writable; give another")


def _read(options: dict[str, Any]) -> "pd.DataFrame":
    from debias_ssae.core.errors import InputError
    from debias_ssae.text import read_table

    table = read_table(options["data"])
    if table.empty:
        raise InputError(f"{options['data']} holds no rows")
    single = [options[k] for k in ("target", "weight", "text", "counterfactual_text") if options[k]]
    for name in (
        *single,
        *(
            c
            for k in ("predictions", "sensitive", "scores", "control", "counterfactuals")
            for c in options[k]
        ),
    ):
        if name not in table.columns:
            raise InputError(
                f"{options['data']} has no column {name!r}; it has {', '.join(map(str, table.columns))}"
            )
    judged = {"--target": [options["target"]], "--prediction": options["predictions"]}
    for role, names in judged.items():
        if same := set(names) & set(options["sensitive"]):
            raise InputError(f"--sensitive {same.pop()} is also {role}; name a column of the attribute")
    for kind in ("scores", "counterfactuals"):
        if options[kind] and len(options[kind]) != len(options["predictions"]):
            given, models = len(options[kind]), len(options["predictions"])
            name = {"scores": "--score", "counterfactuals": "--counterfactual-prediction"}[kind]
            raise InputError(f"{name} is needed once for each --prediction: got {given} for {models}")
    return table


def _audited(table: "pd.DataFrame", options: dict[str, Any]) -> "AuditReport":
    from debias_ssae.audit import audit as run_audit

    models = list(options["predictions"])
    weight = options["weight"]
    report = run_audit(
        table[options["target"]],
        {name: table[name] for name in models},
        sensitive_features=table[list(options["sensitive"])],
        y_score={m: table[s] for m, s in zip(models, options["scores"], strict=True)}
        if options["scores"]
        else None,
        control_features=table[list(options["control"])] if options["control"] else None,
        sample_weight=table[weight] if weight else None,
        pos_label=_label(table[options["target"]], options["pos_label"]),
        min_cell=options["min_cell"],
        tolerance=options["tolerance"],
        n_bootstrap=options["n_bootstrap"],
        random_state=options["seed"],
    )
    extras: dict[str, Any] = {"provenance": _provenance(options)}
    if options["counterfactuals"]:
        extras["flips"] = _flips(table, options)
    if options["representations"]:
        extras["leakage"] = _leakage(table, options)
    if options["debiaser"]:
        extras["latents"] = _latents(options["debiaser"], _contexts(table, options))
    return report.with_extras(**extras)


def _label(target: "pd.Series", text: str | None) -> Any:
    """The label that reads like ``text``: a csv's 1 is a number."""
    if text is None:
        return None
    return next((v for v in target.dropna().unique().tolist() if str(v) == text), text)


def _flips(table: "pd.DataFrame", options: dict[str, Any]) -> dict[str, Any]:
    from debias_ssae.audit import flips_of_predictions
    from debias_ssae.audit.flips import masked

    texts = None
    if options["with_texts"] and options["text"] and options["counterfactual_text"]:
        shown = masked if options["mask_names"] else str
        texts = [
            (shown(str(a)), shown(str(b)))
            for a, b in zip(table[options["text"]], table[options["counterfactual_text"]], strict=True)
        ]
    found = {}
    for model, counterfactual in zip(options["predictions"], options["counterfactuals"], strict=True):
        examples = 10 if texts else 0
        found[model] = flips_of_predictions(
            table[model], table[counterfactual], texts=texts, n_examples=examples
        ).to_dict()
    return found


def _leakage(table: "pd.DataFrame", options: dict[str, Any]) -> Any:
    import numpy as np

    from debias_ssae.audit.leakage import probe_leakage
    from debias_ssae.core.errors import InputError

    path = options["representations"]
    try:
        X = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path} as a .npy matrix: {error}") from error
    y, seed = table[options["target"]], options["seed"]
    reports = {
        name: probe_leakage(X, table[name], y, random_state=seed, progress=True).to_dict()
        for name in options["sensitive"]
    }
    return reports if len(reports) > 1 else next(iter(reports.values()))


def _contexts(table: "pd.DataFrame", options: dict[str, Any]) -> dict[int, list[str]] | None:
    """Snippets around the strongest tokens of each latent; this loads the model, and only with --with-texts."""
    if not (options["with_texts"] and options["text"]):
        return None
    from debias_ssae.audit.contexts import top_contexts
    from debias_ssae.debiaser import SSAEDebiaser

    texts = table[options["text"]].dropna().astype(str).tolist()
    debiaser = SSAEDebiaser.load(options["debiaser"])
    if debiaser.encoder is None:
        return None  # of a matrix: no text to show
    return top_contexts(debiaser, texts, mask_names=options["mask_names"])


def _latents(directory: Path, contexts: dict[int, list[str]] | None) -> list[dict[str, Any]]:
    """Cards from the files of a saved debiaser."""
    import json
    from types import SimpleNamespace

    from safetensors.numpy import load_file

    from debias_ssae.audit import latent_cards
    from debias_ssae.core.errors import InputError

    try:
        saved = json.loads((directory / "debiaser.json").read_text(encoding="utf-8"))
        keeps = saved["parts"][0].get("mode") == "keep"
        arrays = load_file(directory / "arrays.safetensors")
        scores = None
        first = saved["parts"][0]["scores"]
        if first is not None:
            fields = {k.removeprefix("parts.0."): v for k, v in arrays.items() if k.startswith("parts.0.")}
            scores = SimpleNamespace(**fields, values=tuple(first["values"]))
        latents = arrays["parts.0.latents"]
        cards = latent_cards(SimpleNamespace(latents_=latents, scores_=scores), contexts=contexts)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{directory} is no saved debiaser: {error}") from error
    if keeps:
        raise InputError(f"--debiaser shows removed latents, but {directory} was fitted with edit=keep")
    return cards


def _provenance(options: dict[str, Any]) -> dict[str, str]:
    from debias_ssae.core.io import file_digest

    facts = {"data": str(options["data"]), "sha256_of_the_data": file_digest(options["data"])}
    if options["representations"]:
        facts["sha256_of_the_representations"] = file_digest(options["representations"])
    facts |= {"seed": str(options["seed"]), "command": shlex.join(["debias-ssae", *sys.argv[1:]])}
    packages = ("debias-ssae", "numpy", "pandas", "scipy", "scikit-learn")
    facts["versions"] = ", ".join(f"{name} {version(name)}" for name in packages)
    facts["python"] = sys.version.split()[0]
    return facts


def _rendered(report: "AuditReport", gates: "list[GateResult]", out: Path) -> str:
    from debias_ssae.audit.audit_page import audit_html
    from debias_ssae.audit.text_outputs import audit_json, audit_junit, audit_markdown

    kinds = {".html": audit_html, ".json": audit_json, ".md": audit_markdown}
    return kinds.get(out.suffix, audit_junit)(report, gates)


def _say(report: "AuditReport", gates: "list[GateResult]", outs: Sequence[Path]) -> None:
    from debias_ssae.audit.verdict import MOST_LINES, verdict_lines

    lines = verdict_lines(report)
    for line in lines[:MOST_LINES]:
        click.echo(f"{line.tag}: {line.text}")
    if len(lines) > MOST_LINES:
        click.echo(f"({len(lines) - MOST_LINES} more in the report)")
    for gate in gates:
        verdict = "PASSED" if gate.passed else "FAILED"
        click.echo(
            f"{verdict} {gate.metric} [{gate.section}, {gate.model}]: {gate.reason}", err=not gate.passed
        )
    click.echo(f"Report: {', '.join(map(str, outs))}")
