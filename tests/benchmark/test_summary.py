"""Intervals, ranks, shares of the gap and comparisons, on predictions whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from debias_ssae.benchmark.summary import (
    HEADS,
    KEYS,
    OTHERS,
    Answers,
    compare_with_family,
    headline_rows,
    markdown_table,
    summarise,
    terminal_rows,
)
from debias_ssae.core.stats.seeds import JointBootstrap, gap_closed

N_CELL = 60
ACCURACY = {
    "erm": 0.3,
    "oracle": 0.9,
    "scrub": 0.75,
    "leace": 0.4,
    "inlp": 0.6,
    "ssae_default": 0.93,
    "cheat": 0.99,
}


def made(accuracy: dict[str, float], n_seeds: int = 3) -> tuple[list[dict], pd.DataFrame]:
    """Rows and predictions: three cells at 0.95, the last one at the accuracy given."""
    y = np.repeat(["a", "a", "b", "b"], N_CELL)
    z = np.repeat(["m", "f", "m", "f"], N_CELL)
    last = (y == "b") & (z == "f")
    rows, frames = [], []
    for method, right in accuracy.items():
        for head in ("retrained",) if method in ("erm", "oracle") else HEADS:
            for seed in range(n_seeds):
                rng = np.random.default_rng([seed, sorted(ACCURACY).index(method)])
                hit = rng.random(len(y)) < np.where(last, right, 0.95)
                keys = dict.fromkeys(KEYS) | {
                    "method": method,
                    "setting": "confounded",
                    "regime": "labelled" if method in ("oracle", "leace", "inlp") else "concept",
                    "representation": "mean(final), re-centred"
                    if head.endswith("centred")
                    else "mean(final)",
                    "head": head.split(",")[0],
                    "head_model": "logistic",
                    "C_rule": "cv",
                }
                y_pred = np.where(hit, y, np.where(y == "a", "b", "a"))
                ids = np.arange(len(y)) + 7 * seed
                worst = min(hit[(y == c) & (z == g)].mean() for c in "ab" for g in "mf")
                facts = {
                    "worst_group_accuracy": worst,
                    "accuracy": hit.mean(),
                    "balanced_accuracy": hit.mean(),
                }
                facts |= {"leakage": 0.5 + seed / 10, "worst_group": "b, f", "C": 0.1, "d_sae": None}
                rows.append({**keys, **facts, "seed": seed, "needs_attribute": method == "cheat"})
                frames.append(
                    pd.DataFrame({**keys, "seed": seed, "text_id": ids, "y": y, "z": z, "y_pred": y_pred})
                )
    return rows, pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def found() -> tuple[list[dict], Answers, list[dict]]:
    rows, predictions = made(ACCURACY)
    answers = Answers(predictions)
    return rows, answers, summarise(rows, answers)


def row_of(summary: list[dict], method: str, head: str = "retrained") -> dict:
    return next(r for r in summary if r["method"] == method and r["head"] == head)


def test_summary_has_the_means_of_the_seeds(found) -> None:  # type: ignore[no-untyped-def]
    rows, _, summary = found
    assert len(summary) == 2 + 3 * (len(ACCURACY) - 2)
    for method in ACCURACY:
        row = row_of(summary, method)
        worst = [
            r["worst_group_accuracy"] for r in rows if r["method"] == method and r["head"] == "retrained"
        ]
        # the debiaser's two frozen rows share head and differ in representation, so three seeds a row
        assert row["worst_group_accuracy"] == pytest.approx(np.mean(worst[:3]))
        assert row["worst_group_accuracy_ci_low"] < row["worst_group_accuracy"]
        assert row["cells"]["b, f"]["n"] == N_CELL
        assert row["leakage"] == pytest.approx(0.6)
        assert row["d_sae"] is None


def test_what_needs_the_attribute_is_marked(found) -> None:  # type: ignore[no-untyped-def]
    assert any("cheat †" in line[0] for line in headline_rows(found[2]))


def test_the_terminal_shows_before_and_after_in_eighty_columns(found) -> None:  # type: ignore[no-untyped-def]
    rows = {name: cells for name, *cells in terminal_rows(found[2])}
    assert set(rows) == {*ACCURACY, "cheat †"} - {"erm", "cheat"}
    erm, ours = (row_of(found[2], name)["worst_group_accuracy"] for name in ("erm", "ssae_default"))
    assert rows["ssae_default"][:2] == ["concept", f"{erm:.3f} -> {ours:.3f}"]
    assert max(len(cell) for cells in rows.values() for cell in cells) <= 16


def test_gap_closed_is_zero_for_erm_and_one_for_the_oracle(found) -> None:  # type: ignore[no-untyped-def]
    summary = found[2]
    for method, value in (("erm", 0.0), ("oracle", 1.0)):
        row = row_of(summary, method)
        assert [row["gap_closed"], row["gap_closed_ci_low"], row["gap_closed_ci_high"]] == pytest.approx(
            [value] * 3
        )
    erm, oracle, ours = (
        row_of(summary, m)["worst_group_accuracy"] for m in ("erm", "oracle", "ssae_default")
    )
    row = row_of(summary, "ssae_default", "frozen")
    expected = (row["worst_group_accuracy"] - erm) / (oracle - erm)
    assert row["gap_closed"] == pytest.approx(expected)
    assert row["gap_closed_ci_low"] < expected < row["gap_closed_ci_high"]
    assert ours > erm


def test_without_an_oracle_there_is_no_gap() -> None:
    rows, predictions = made({"erm": 0.3, "ssae_default": 0.8}, n_seeds=2)
    summary = summarise(rows, Answers(predictions))
    assert all(row["gap_closed"] is None for row in summary)


def test_the_family_names_the_best_linear_eraser_and_corrects(found) -> None:  # type: ignore[no-untyped-def]
    _, answers, summary = found
    records = compare_with_family(summary, answers)
    assert {r["head"] for r in records} == set(HEADS)
    assert {r["against"] for r in records} == {"scrub", "best linear eraser"} <= set(OTHERS)
    for record in records:
        assert record["p_value"] <= record["p_holm"] <= 1
        assert record["ci_low"] < record["difference"] < record["ci_high"]
        assert record["smallest_detectable"] > 0
    linear = next(r for r in records if r["against"] == "best linear eraser" and r["head"] == "retrained")
    assert (linear["method"], linear["method_regime"]) == ("inlp", "labelled")
    assert linear["ci_low"] > 0
    assert linear["p_holm"] < 0.05
    text = markdown_table({"summary": summary, "comparisons_of_default": records, "quick": True})
    assert text.startswith("**Quick look")
    assert "best linear eraser: inlp (labelled)" in text


def test_a_better_method_is_shown_to_be() -> None:
    rows, predictions = made({"erm": 0.3, "oracle": 0.9, "ssae_default": 0.4, "scrub": 0.8})
    answers = Answers(predictions)
    record = next(
        r for r in compare_with_family(summarise(rows, answers), answers) if r["against"] == "scrub"
    )
    assert record["ci_high"] < 0
    assert record["p_value"] < 0.05


def test_paired_moves_cancel_what_is_shared() -> None:
    rng = np.random.default_rng(0)
    cells, ids = [np.arange(200) % 4] * 3, [np.arange(200)] * 3
    values = [(rng.random(200) < 0.8).astype(float) for _ in range(3)]
    bootstrap = JointBootstrap(ids, cells, n_draws=100)
    moves = bootstrap.moves(values)
    assert moves.minus(moves).interval() == (0, 0, 0)
    assert moves.minus(moves).p_value() == 1.0
    assert gap_closed(moves, moves, moves) is None
    better = bootstrap.moves([np.ones(200)] * 3)
    assert better.minus(moves).p_value() < 0.1
    low_draws = bootstrap.moves([np.where(np.arange(200) % 7 == s, 0.0, 1.0) for s in range(3)])
    assert low_draws.minus(bootstrap.moves([np.ones(200)] * 3)).p_value() == pytest.approx(2 / 101)
