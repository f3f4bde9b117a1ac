"""The audit as text: flat JSON, markdown for a pull request, JUnit for a pipeline."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from debias_ssae.audit import AuditReport, GateResult
from debias_ssae.audit.verdict import verdict_lines

_MARKS = {"bad": "**Fails**", "warn": "**Unclear**", "good": "Holds", "": "Note"}


def audit_json(report: AuditReport, gates: Sequence[GateResult] = ()) -> str:
    """Flat tables as JSON; undefined numbers are null, infinite ones too (JSON has neither)."""
    content = {**report.to_dict(), "gates": [vars(g) for g in gates]}
    return json.dumps(_defined(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _defined(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _defined(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def audit_markdown(report: AuditReport, gates: Sequence[GateResult] = ()) -> str:
    """Verdict, gates and measures as GitHub-flavoured markdown."""
    lines = [
        "# Fairness audit",
        "",
        f"{report.n_rows:,} rows; models: {', '.join(map(_plain, report.models))}.",
        "",
    ]
    if gates:
        lines += ["## Gates", "", "| | measure | section | model | result |", "|---|---|---|---|---|"]
        for gate in gates:
            cells = (
                "pass" if gate.passed else "**fail**",
                gate.metric,
                gate.section,
                gate.model,
                gate.reason,
            )
            lines.append(_table_row(cells, raw_first=True))
        lines.append("")
    lines += ["## Verdict", ""]
    lines += [f"- {_MARKS[line.kind]}: {_plain(line.text)}" for line in verdict_lines(report)]
    lines += ["", "## Measures", "", "| section | model | measure | value | 95% interval | outcome | where |"]
    lines.append("|---|---|---|---:|---|---|---|")
    for row in report.measures.to_dict("records"):
        interval = "" if math.isnan(row["ci_low"]) else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
        value = "undefined" if math.isnan(row["value"]) else f"{row['value']:.3f}"
        shown = (row["section"], row["model"], row["metric"], value, interval, row["outcome"], row["where"])
        lines.append(_table_row(shown))
    provenance = report.extras.get("provenance", {})
    if provenance:
        lines += ["", "## Where these numbers come from", ""]
        lines += [f"- {_plain(str(k).replace('_', ' '))}: {_plain(str(v))}" for k, v in provenance.items()]
    return "\n".join(lines) + "\n"


def _table_row(cells: Sequence[Any], *, raw_first: bool = False) -> str:
    shown = [str(c) if raw_first and i == 0 else _plain(str(c)) for i, c in enumerate(cells)]
    return f"| {' | '.join(shown)} |"


def _plain(text: str) -> str:
    """Text that markdown shows as it is: nothing in a group's name makes a link, a tag, an image or a new
    cell.
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_{}[]|#!~@":
        text = text.replace(sign, f"\\{sign}")
    return text


def audit_junit(report: AuditReport, gates: Sequence[GateResult]) -> str:
    """One test case a gate, section and model; without gates, one a finding of the verdict that fails
    nothing.
    """
    cases = []
    for gate in gates:
        name = (
            f"{gate.metric} {'>=' if gate.kind == 'fail_under' else '<='} {gate.threshold:g} [{gate.model}]"
        )
        head = f"  <testcase classname={_attribute(f'audit.{gate.section}')} name={_attribute(name)}"
        if gate.passed:
            cases.append(f"{head}/>")
        else:
            failure = f'    <failure message={_attribute(gate.reason)} type="fairness"/>'
            cases.append(f"{head}>\n{failure}\n  </testcase>")
    failures = sum(not g.passed for g in gates)
    findings = escape(_legal("\n".join(f"{line.tag}: {line.text}" for line in verdict_lines(report))))
    counts = f'tests="{len(gates)}" failures="{failures}" errors="0" skipped="0"'
    head = f'<testsuite name="debias-ssae audit" {counts}>'
    body = "\n".join([*cases, f"  <system-out>{findings}</system-out>"])
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}\n{body}\n</testsuite>\n'


def _attribute(text: str) -> str:
    return quoteattr(_legal(text))


def _legal(text: str) -> str:
    """Without the control characters that XML 1.0 forbids."""
    return "".join(c for c in text if c in "\t\n\r" or (ord(c) >= 0x20 and ord(c) not in (0xFFFE, 0xFFFF)))
