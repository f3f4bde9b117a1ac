"""The audit: equal to fairlearn where both are defined, laws, several attributes, weights, scores, bad input."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equalized_odds_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    make_scorer,
    precision_score,
    recall_score,
    roc_auc_score,
)

from debias_ssae.audit import AuditReport, audit, check_gates, group_accuracies, worst_group_accuracy
from debias_ssae.core.errors import InputError

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def _binary(n: int = 600, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    y, group = rng.integers(0, 2, n), rng.choice(["f", "m", "x"], n, p=[0.5, 0.4, 0.1])
    return y, np.where(rng.random(n) < 0.8, y, 1 - y), group


def _multi(n: int = 3000, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    y, group = rng.choice(list("abcd"), n), rng.choice(["f", "m"], n)
    return y, np.where(rng.random(n) < 0.7, y, rng.choice(list("abcd"), n)), group


def _audit(y: Any, predicted: Any, group: Any, **options: Any) -> AuditReport:
    given = {"n_bootstrap": 50, "min_group": 1, **options}
    return audit(y, predicted, sensitive_features=group, random_state=0, **given)


def _rate(report: AuditReport, metric: str, label: str, group: str) -> float:
    t = report.by_group
    return float(t[(t["metric"] == metric) & (t["label"] == label) & (t["group"] == group)]["value"].iloc[0])


@pytest.mark.parametrize("weighted", [False, True])
def test_group_rates_are_metric_frames(weighted: bool) -> None:
    y, predicted, group = _binary()
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    report = _audit(y, predicted, group, sample_weight=weight)
    metrics: dict[str, Callable] = {
        "accuracy": accuracy_score,
        "true_positive_rate": true_positive_rate,
        "false_positive_rate": false_positive_rate,
        "selection_rate": selection_rate,
        "precision": precision_score,
    }
    frame = MetricFrame(
        metrics=metrics,
        y_true=y,
        y_pred=predicted,
        sensitive_features=group,
        sample_params=None if weight is None else {name: {"sample_weight": weight} for name in metrics},
    )
    for name in metrics:
        label = "" if name == "accuracy" else "1"
        for g in ("f", "m", "x"):
            assert _rate(report, name, label, g) == pytest.approx(frame.by_group[name][g], abs=1e-12)
        assert _rate(report, name, label, "all rows") == pytest.approx(frame.overall[name], abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_measures_are_fairlearns(weighted: bool) -> None:
    y, predicted, group = _binary()
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    report = _audit(y, predicted, group, sample_weight=weight)
    given_weight = {"sensitive_features": group, "sample_weight": weight}
    expected = {
        "demographic_parity_difference": demographic_parity_difference(y, predicted, **given_weight),
        "demographic_parity_ratio": demographic_parity_ratio(y, predicted, **given_weight),
        "equalized_odds_difference": equalized_odds_difference(y, predicted, **given_weight),
        "balanced_accuracy": balanced_accuracy_score(y, predicted, sample_weight=weight),
    }
    for name, value in expected.items():
        assert report.measure(name) == pytest.approx(value, abs=1e-12)


def test_worst_group_accuracy_is_fairlearns_minimum() -> None:
    y, predicted, group = _binary()
    cells = {"y": y, "g": group}
    frame = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=predicted, sensitive_features=cells)
    assert worst_group_accuracy(y, predicted, sensitive_features=group) == pytest.approx(
        frame.group_min(), abs=1e-12
    )
    report = _audit(y, predicted, group)
    assert report.worst_group_accuracy == pytest.approx(frame.group_min(), abs=1e-12)
    assert report.accuracy == pytest.approx(accuracy_score(y, predicted), abs=1e-12)
    found = group_accuracies(y, predicted, sensitive_features=group)
    assert report.worst_group == "{} / {}".format(*min(found, key=lambda cell: found[cell]))


def test_many_classes_are_one_against_the_rest() -> None:
    y, predicted, group = _multi()
    report = _audit(y, predicted, group)
    gaps, selected = [], []
    for c in "abcd":
        recalls = [recall_score(y[group == g] == c, predicted[group == g] == c) for g in ("f", "m")]
        gaps.append(recalls[0] - recalls[1])
        selected.append(abs(np.diff([(predicted[group == g] == c).mean() for g in ("f", "m")])[0]))
        assert _rate(report, "true_positive_rate", c, "f") == pytest.approx(recalls[0], abs=1e-12)
    assert report.measure("tpr_gap_rms") == pytest.approx(np.sqrt(np.mean(np.square(gaps))), abs=1e-12)
    assert report.measure("tpr_gap_max") == pytest.approx(np.abs(gaps).max(), abs=1e-12)
    assert report.measure("demographic_parity_difference") == pytest.approx(max(selected), abs=1e-12)
    assert "4 of 4 classes" in report.measure_row("tpr_gap_rms")["where"]
    one = report.contrasts[
        (report.contrasts["metric"] == "true_positive_rate") & (report.contrasts["label"] == "a")
    ]
    assert one["difference"].iloc[0] == pytest.approx(gaps[0], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_row_order_and_group_names_do_not_matter(seed: int) -> None:
    y, predicted, group = _binary(200, seed)
    order = np.random.default_rng(seed).permutation(len(y))
    renamed = np.array([{"f": "zz", "m": "k", "x": "a"}[g] for g in group])
    values = [
        _audit(y, predicted, group).measures["value"],
        _audit(y[order], predicted[order], group[order]).measures["value"],
        _audit(y, predicted, renamed).measures["value"],
    ]
    assert np.allclose(values[0], values[1], equal_nan=True)
    assert np.allclose(values[0], values[2], equal_nan=True)


def test_intervals_hold_their_values_and_stay_inside_their_range() -> None:
    for seed in range(8):
        for data in (_multi(400, seed), _binary(150, seed)):
            models = {"a": data[1], "b": np.roll(data[1], 1)}
            report = _audit(data[0], models, data[2])
            rows = report.measures.dropna(subset=["ci_low"])
            assert (rows["ci_low"] <= rows["value"] + 1e-12).all()
            assert (rows["value"] <= rows["ci_high"] + 1e-12).all()
            assert ((rows["ci_low"] >= 0) & (rows["ci_high"] <= 1)).all()
            pairs = report.comparisons.dropna(subset=["ci_low"])
            assert (pairs["ci_low"] <= pairs["difference"] + 1e-12).all()
            assert (pairs["difference"] <= pairs["ci_high"] + 1e-12).all()
            assert ((pairs["ci_low"] >= -1) & (pairs["ci_high"] <= 1)).all()


def test_same_seed_same_report() -> None:
    y, predicted, group = _binary()
    models = {"p": predicted, "q": y}
    first, second = (_audit(y, models, group).to_dict() for _ in range(2))
    assert repr(first) == repr(second)


def test_several_attributes_are_audited_alone_and_crossed() -> None:
    y, predicted, group = _binary(2000)
    age = np.where(np.arange(2000) % 3 == 0, "old", "young")
    report = _audit(y, predicted, {"gender": group, "age": age})
    assert report.sections == ("gender", "age", "gender x age")
    cells = {"y": y, "g": group, "a": age}
    frame = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=predicted, sensitive_features=cells)
    assert report.worst_group_accuracy == pytest.approx(frame.group_min(), abs=1e-12)
    assert report.measure("worst_group_accuracy", section="age") >= report.worst_group_accuracy


def test_missing_attribute_values_are_a_group() -> None:
    y, predicted, group = _binary(600)
    missing = np.where(np.arange(600) < 100, None, group)
    report = _audit(y, np.where(np.arange(600) < 100, 1 - y, predicted), missing)
    shown = report.cells.query("group == 'unknown'")
    assert (shown["accuracy"] < report.worst_group_accuracy).all()
    assert shown["excluded"].all()
    assert (
        "2 cell(s) of rows whose attribute is missing" in report.measure_row("worst_group_accuracy")["note"]
    )
    assert "whose attribute is missing: shown, decides nothing" in report.undefined["reason"].str.cat()
    (gate,) = check_gates(report, fail_under={"worst_group_accuracy": report.worst_group_accuracy})
    assert gate.passed
    assert "attribute is missing are left out" in gate.reason
    known = _audit(y[100:], predicted[100:], group[100:])
    gaps = [
        "accuracy_gap",
        "tpr_gap_max",
        "tpr_gap_rms",
        "demographic_parity_difference",
        "demographic_parity_ratio",
    ]
    for metric in (*gaps, "equalized_odds_difference", "worst_group_accuracy"):
        assert report.measure(metric) == known.measure(metric)
    assert (report.contrasts["difference"].to_numpy() == known.contrasts["difference"].to_numpy()).all()
    both = _audit([1, 0, 1, 0], [1, 0, 0, 0], ["f", "unknown", None, np.nan])
    assert {"unknown", "unknown (missing)"} <= set(both.cells["group"])
    mixed = _audit([1, 0, 1, 0], [1, 0, 0, 0], [1, 1, "1", "1"])
    assert set(mixed.cells["group"]) == {"1 (int)", "1 (str)"}


def test_a_cell_without_rows_is_listed_not_dropped() -> None:
    report = _audit([1, 1, 0], [1, 1, 0], ["f", "m", "m"])
    assert report.undefined["what"].tolist()[:1] == ["0 / f"]
    assert "1 cell(s) without rows" in report.measure_row("worst_group_accuracy")["note"]
    assert set(report.missing.query("metric == 'worst_group_accuracy'")["cell"]) == {"0 / f"}
    assert set(group_accuracies([1, 0], [1, 0], sensitive_features=["f", "m"])) == {(1, "f"), (0, "m")}
    assert report.to_dict()["cells"][0]["accuracy"] is None


def test_small_cells_are_excluded_and_listed() -> None:
    y = np.array([1] * 50 + [0] * 50 + [1] * 2 + [0] * 50)
    group = np.array(["f"] * 100 + ["m"] * 52)
    predicted = np.where(np.arange(152) >= 100, 1 - y, y)
    predicted[102:] = 0
    strict = _audit(y, predicted, group, min_group=10)
    assert strict.worst_group_accuracy == 1.0
    assert "1 cell(s) with fewer than 10 rows" in strict.measure_row("worst_group_accuracy")["note"]
    assert strict.undefined["reason"].str.contains("fewer than the minimum of 10").any()
    assert strict.cells["excluded"].sum() == 1
    assert _audit(y, predicted, group).worst_group_accuracy == 0.0


def test_too_few_rows_is_an_outcome_and_says_how_many_more() -> None:
    y, predicted, group = _binary(40)
    few = _audit(y, predicted, group)
    assert few.measure_row("worst_group_accuracy")["outcome"] == "too few to say"
    assert (few.cells["more_rows_needed"] > 0).all()
    many = _audit(*_binary(60_000))
    assert many.measure_row("worst_group_accuracy")["outcome"] == "within tolerance"
    assert many.measure_row("tpr_gap_max")["outcome"] == "within tolerance"
    assert (many.cells["more_rows_needed"] == 0).all()


def test_a_real_gap_is_found_and_fails_four_fifths() -> None:
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 4000), np.repeat(["f", "m"], 2000)
    keep = np.where(group == "f", 0.5, 0.95)
    predicted = np.where(rng.random(4000) < keep, y, 0)
    report = _audit(y, predicted, group)
    gap, ratio = report.measure_row("tpr_gap_max"), report.measure_row("demographic_parity_ratio")
    assert gap["outcome"] == "beyond tolerance"
    assert report.measure_row("worst_group_accuracy")["outcome"] == "beyond tolerance"
    assert gap["excess"] == pytest.approx(gap["value"] - 0.1)
    assert gap["where"] == "1: m over f"
    assert ratio["outcome"] == "below four fifths"
    tpr = report.contrasts[
        (report.contrasts["metric"] == "true_positive_rate") & (report.contrasts["label"] == "1")
    ]
    assert tpr["p_holm"].iloc[0] < 1e-6
    assert tpr["difference"].iloc[0] < -0.3


def test_models_are_compared_in_pairs_and_signed() -> None:
    y, worse, group = _binary(3000)
    better = np.where(np.random.default_rng(3).random(3000) < 0.6, y, worse)
    report = _audit(y, {"worse": worse, "better": better}, group, n_bootstrap=200)
    rows = report.comparisons.set_index("metric")
    assert set(report.comparisons["section"]) == {"group"}
    expected = accuracy_score(y, better) - accuracy_score(y, worse)
    assert rows.loc["accuracy", "difference"] == pytest.approx(expected)
    assert rows.loc["accuracy", "outcome"] == "a better"
    assert rows.loc["accuracy", "p"] < 1e-6
    assert rows.loc["worst_group_accuracy", "ci_low"] > 0
    assert (rows["ci_low"] <= rows["difference"]).all()
    assert (rows["difference"] <= rows["ci_high"]).all()
    same = _audit(y, {"a": worse, "b": worse}, group).comparisons
    assert (same["difference"] == 0).all()
    assert (same["outcome"] == "no difference found").all()


def test_compared_gaps_are_the_measures_differences() -> None:
    for y, predicted, group in (_binary(1000), _multi(1500)):
        models = {"a": predicted, "b": np.where(np.random.default_rng(1).random(len(y)) < 0.5, y, predicted)}
        report = _audit(y, models, group)
        for row in report.comparisons.to_dict("records"):
            one, two = (report.measure(row["metric"], model=m) for m in "ba")
            assert row["difference"] == pytest.approx(one - two, abs=1e-12)
            assert row["ci_low"] <= row["ci_high"]


def test_many_groups_are_compared_without_listing_pairs() -> None:
    y, predicted, _ = _binary(4000)
    report = _audit(y, {"a": predicted, "b": y}, np.arange(4000) % 70)
    gaps = report.comparisons[report.comparisons["metric"] == "tpr_gap_max"]
    assert gaps["method"].str.startswith("MOVER").all()
    assert (gaps["ci_low"] < gaps["ci_high"]).all()


def test_weighted_rows_are_bootstrapped_one_by_one_and_it_says_so() -> None:
    y, predicted, group = _binary(400)
    weight = np.random.default_rng(0).random(400)
    report = _audit(y, {"p": predicted, "q": y}, group, sample_weight=weight, n_bootstrap=20)
    assert report.comparisons["method"].str.contains("row bootstrap").all()
    assert any("row bootstrap" in note for note in report.notes)
    plain, doubled = _audit(y, predicted, group), _audit(y, predicted, group, sample_weight=np.full(400, 2.0))
    same = ["value", "ci_low", "ci_high"]
    assert np.allclose(plain.measures[same], doubled.measures[same], equal_nan=True)


def test_scores_add_calibration() -> None:
    y, predicted, group = _binary(1000)
    score = np.clip(0.2 + 0.6 * predicted, 0, 1)
    report = _audit(y, predicted, group, y_score=score)
    mask = group == "f"
    assert _rate(report, "brier_score", "", "f") == pytest.approx(brier_score_loss(y[mask], score[mask]))
    bias = score[mask].mean() - y[mask].mean()
    assert _rate(report, "score_minus_outcome", "", "f") == pytest.approx(bias)
    error = (
        sum(abs((y[mask & (predicted == p)] - score[mask & (predicted == p)]).sum()) for p in (0, 1))
        / mask.sum()
    )
    assert _rate(report, "calibration_error", "", "f") == pytest.approx(error)
    two_columns = _audit(y, predicted, group, y_score=np.stack([1 - score, score], axis=1))
    assert _rate(two_columns, "brier_score", "", "f") == _rate(report, "brier_score", "", "f")
    for of_no in (1 - score, np.stack([1 - score, score], axis=1)):
        other = _audit(y, predicted, group, y_score=of_no, pos_label=0)
        assert _rate(other, "brier_score", "", "f") == pytest.approx(_rate(report, "brier_score", "", "f"))
        assert _rate(other, "score_minus_outcome", "", "f") == pytest.approx(-bias)
    y4, p4, g4 = _multi(400)
    scores = np.full((400, 4), 0.1)
    scores[np.arange(400), pd.Categorical(p4, categories=list("abcd")).codes] = 0.7
    many = _audit(y4, {"m": p4}, g4, y_score={"m": scores})
    assert _rate(many, "score_minus_outcome", "", "all rows") == pytest.approx(0.7 - accuracy_score(y4, p4))


def test_control_levels_are_sections() -> None:
    y, predicted, group = _binary(1000)
    region = np.where(np.arange(1000) < 500, "north", "south")
    only_m = (region == "south") & (group != "m")
    region[only_m] = "north"
    report = _audit(y, predicted, group, control_features=pd.Series(region, name="region"))
    assert report.sections == ("group", "group | region = north")
    assert "group | region = south" in set(report.undefined["section"])
    north = region == "north"
    expected = worst_group_accuracy(y[north], predicted[north], sensitive_features=group[north])
    assert report.measure("worst_group_accuracy", section="group | region = north") == pytest.approx(expected)


def test_pos_label_chooses_who_is_selected() -> None:
    y, predicted, group = _binary()
    words = np.array(["no", "yes"])
    chosen = _audit(words[y], words[predicted], group, pos_label="no")
    expected = demographic_parity_ratio(1 - y, 1 - predicted, sensitive_features=group)
    assert chosen.measure("demographic_parity_ratio") == pytest.approx(expected)


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, pd.Series, lambda v: pd.DataFrame({"c": v})])
def test_any_column_will_do(kind: Callable) -> None:
    y, predicted, group = _binary(100)
    report = _audit(kind(y), kind(predicted), kind(group))
    assert report.worst_group_accuracy == worst_group_accuracy(y, predicted, sensitive_features=group)


def test_true_is_one_and_false_is_zero() -> None:
    y, predicted, group = _binary(200)
    plain = _audit(y, predicted, group)
    for truth, answers in ((y.astype(bool), predicted), (y, predicted.astype(bool))):
        assert _audit(truth, answers, group).measure("accuracy") == plain.measure("accuracy")


def test_a_frames_index_does_not_matter() -> None:
    y, predicted, group = _binary(100)
    shuffled = pd.Series(group, index=np.random.default_rng(0).permutation(100))
    assert _audit(y, predicted, shuffled).worst_group == _audit(y, predicted, group).worst_group


def test_a_difference_that_is_the_labels_own_is_no_failure() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(["f", "m"], 1000)
    y = (rng.random(2000) < np.where(group == "f", 0.2, 0.7)).astype(int)
    report = _audit(y, y, group)
    assert report.measure("demographic_parity_difference") > 0.4
    for metric in ("demographic_parity_difference", "demographic_parity_ratio"):
        assert report.measure_row(metric)["outcome"] == "as the labels differ"


def test_own_metrics_are_measured_in_each_group() -> None:
    y, predicted, group = _binary(900)
    metrics = {"error": lambda a, b: np.mean(a != b), "precision of 1": lambda a, b: precision_score(a, b)}
    report = _audit(y, predicted, group, metrics=metrics, min_group=10)
    accuracy, error = report.measure_row("accuracy_gap"), report.measure_row("error_gap")
    assert error["value"] == pytest.approx(accuracy["value"])
    assert (error["ci_low"], error["ci_high"]) == pytest.approx(
        (accuracy["ci_low"], accuracy["ci_high"]), abs=0.06
    )
    assert _rate(report, "error", "", "f") == pytest.approx(1 - _rate(report, "accuracy", "", "f"))
    assert _rate(report, "precision of 1", "", "m") == pytest.approx(_rate(report, "precision", "1", "m"))
    assert report.measure("error") == pytest.approx(1 - report.accuracy)
    undefined = _audit(
        [1, 0] * 20, [1, 0] * 20, ["f", "m"] * 20, metrics={"auc": lambda a, b: roc_auc_score(a, b)}
    )
    assert np.isnan(undefined.measure("auc_gap")), "one class only in each group"
    for name, metric in (("accuracy", max), ("mine", 3)):
        with pytest.raises(InputError, match=f"'{name}'"):
            _audit(y, predicted, group, metrics={name: metric})
    with pytest.raises(InputError, match="sample_weight"):
        _audit(y, predicted, group, metrics=metrics, sample_weight=np.ones(900))


Y, P, G = [1, 0, 1, 0], [1, 0, 0, 0], ["f", "f", "m", "m"]


def test_an_unknown_measure_names_those_there_are() -> None:
    with pytest.raises(InputError, match="worst_group_accuracy"):
        _audit(Y, P, G).measure("fairness")


def test_the_scorer_works_in_cross_validation() -> None:
    import sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    y, _, group = _binary(200)
    x = np.stack([y + np.random.default_rng(0).normal(size=200), group == "m"], axis=1).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(worst_group_accuracy).set_score_request(sensitive_features=True)
        scores = cross_val_score(
            LogisticRegression(), x, y, scoring=scorer, cv=3, params={"sensitive_features": group}
        )
    assert ((scores >= 0) & (scores <= 1)).all()


def test_an_audit_needs_no_torch() -> None:
    code = (
        "import sys, debias_ssae; debias_ssae.audit([1,0,1,0],[1,0,0,0],sensitive_features=list('ffmm'));"
        "import debias_ssae.audit.audit_page, debias_ssae.audit.leakage; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_warning_escapes_on_degenerate_tables() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _audit(["a", "a"], ["a", "b"], ["f", "m"])
        _audit(["a", "b", "c"], ["b", "c", "a"], ["f", "m", "m"])
        many = _audit(np.arange(900) % 2, np.arange(900) % 2, np.arange(900) % 300)
        assert many.measure_row("demographic_parity_ratio")["outcome"] == "no interval"
        few = _audit([1, 0, 1], {"p": [1, 1, 0], "q": [1, 0, 1]}, ["f", "m", "m"], min_group=10)
        assert set(few.comparisons["outcome"]) == {"no difference found", "undefined"}
