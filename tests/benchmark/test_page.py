"""The benchmark's page: before and after in words, what was removed, one chart, user text escaped."""

import re
from pathlib import Path
from typing import Any

import pytest

from debias_ssae.benchmark.page import write_benchmark_report
from debias_ssae.core.errors import InputError

HOSTILE = "<img src=x onerror=alert(1)>"
WORST = {"erm": 0.17, "oracle": 0.87, "scrub": 0.86, "ssae_default": 0.84}


def results() -> dict[str, Any]:
    row = {
        "setting": "confounded",
        "representation": "mean(final)",
        "head": "retrained",
        "head_model": "logistic",
    }
    row |= {"C_rule": "cv", "balanced_accuracy": 0.5, "n_seeds": 3, "rank": 1}
    summary = [
        {**row, "method": name, "regime": "concept" if name in ("scrub", "ssae_default") else "none"}
        | {
            "worst_group_accuracy": w,
            "worst_group_accuracy_ci_low": w - 0.02,
            "worst_group_accuracy_ci_high": w + 0.02,
        }
        for name, w in WORST.items()
    ]
    run = {
        "method": "ssae_default",
        "regime": "concept",
        "seed": 0,
        "n_latents": 12,
        "removed": ["she", HOSTILE],
    }
    data = {"path": HOSTILE, "sha256": "abc", "n": 1234}
    return {
        "config": {"seeds": 3},
        "versions": {"torch": "2"},
        "data": data,
        "runs": [run],
        "summary": summary,
    }


def test_the_page_says_before_after_and_what_was_removed(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="pages come with the extra report")
    text = write_benchmark_report(results(), tmp_path / "r.html").read_text(encoding="utf-8")
    for words in (
        "goes from 0.17 to 0.84 with SSAEDebiaser; a classifier trained on balanced data reaches 0.87.",
        "0.820 to 0.860",
        "concept: 12 latents: she",
        "1,234 texts",
    ):
        assert words in text
    assert text.index("goes from 0.17") < text.index("What these numbers do not show"), (
        "the result stands before its limits"
    )
    assert "†" not in text, "a note only where a row has its mark"
    assert HOSTILE not in text
    assert len(re.findall("<script", text)) == 1
    assert text.count("<svg") == 1, "one chart"


def test_results_without_a_summary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no summary"):
        write_benchmark_report({}, tmp_path / "r.html")
