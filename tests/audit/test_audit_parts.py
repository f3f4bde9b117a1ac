"""Gates and counterfactual flips."""

import numpy as np
import pytest

from debias_ssae.audit import (
    audit,
    check_gates,
    counterfactual_flips,
    flips_of_predictions,
    parse_thresholds,
)
from debias_ssae.audit.flips import masked
from debias_ssae.core.errors import InputError


class Pronouns:
    """The smallest concept."""

    def counterfactual(self, text: str) -> str | None:
        words = [{"he": "she", "she": "he"}.get(w, w) for w in text.split()]
        return " ".join(words) if words != text.split() else None


def _report(n: int = 400, **options: object):
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, n), rng.choice(["f", "m"], n)
    predicted = np.where(rng.random(n) < 0.8, y, 1 - y)
    return audit(y, predicted, sensitive_features=group, random_state=0, n_bootstrap=20, **options)


def test_gates_pass_and_fail_on_either_side() -> None:
    report = _report()
    value = report.worst_group_accuracy
    results = check_gates(
        report,
        fail_under={"worst_group_accuracy": value + 0.01, "accuracy": 0.1},
        fail_over={"tpr_gap_rms": 0.0, "tpr_gap_max": 1.0},
    )
    assert [r.passed for r in results] == [False, True, False, True]
    assert "is under" in results[0].reason
    assert "is over" in results[2].reason
    row = report.measure_row("worst_group_accuracy")
    across = f"judged by its estimate: the interval reaches {row['ci_high']:.3f}"
    assert across in results[0].reason
    assert f"95% interval {row['ci_low']:.3f} to {row['ci_high']:.3f}" in results[0].reason
    assert "judged by its estimate" not in results[1].reason
    assert check_gates(report, fail_under={"worst_group_accuracy": value})[0].passed


def test_an_undefined_measure_fails_its_gate_unless_allowed() -> None:
    report = audit([1, 1, 0], [1, 1, 0], sensitive_features=list("fmm"), n_bootstrap=20, min_group=1)
    for metric in ("equalized_odds_difference", "worst_group_accuracy"):
        under = metric == "worst_group_accuracy"
        limits = {"fail_under": {metric: 0.5}} if under else {"fail_over": {metric: 0.5}}
        assert not check_gates(report, **limits)[0].passed
        assert not check_gates(report, **limits, allow_undefined=["1 / m"])[0].passed
        for allowed in (True, ["0 / f"], {"0 / f", "1 / m"}):
            assert check_gates(report, **limits, allow_undefined=allowed)[0].passed
    with pytest.raises(InputError, match=r"no cell '0 / x'.*0 / f"):
        check_gates(report, fail_under={"accuracy": 0.5}, allow_undefined=["0 / x"])


def test_a_group_of_a_few_rows_decides_no_gate_and_no_gap() -> None:
    y = np.array([0, 1] * 1000 + [1, 1, 1])
    group = np.array(["f", "f", "m", "m"] * 500 + ["x"] * 3)
    predicted = np.where(group == "x", 0, y)
    report = audit(y, predicted, sensitive_features=group, n_bootstrap=20)
    for metric in (
        "accuracy_gap",
        "tpr_gap_max",
        "demographic_parity_difference",
        "equalized_odds_difference",
    ):
        assert report.measure_row(metric)["outcome"] == "within tolerance"
    limits = {"fail_over": {"tpr_gap_max": 0.1}, "fail_under": {"worst_group_accuracy": 0.9}}
    under, over = check_gates(report, **limits, allow_undefined=["0 / x"])
    assert under.passed
    assert "fewer than 10 rows" in under.reason
    assert over.passed
    shown = report.by_group.query("metric == 'accuracy' and group == 'x'")
    assert shown["value"].iloc[0] == 0
    assert report.contrasts.query("group == 'x'")["p"].isna().all()
    strict = audit(y, predicted, sensitive_features=group, n_bootstrap=20, min_group=3)
    assert strict.measure("accuracy_gap") == 1.0


def test_no_gate_passes_because_the_rows_of_a_failing_cell_are_gone() -> None:
    y = np.tile([0, 1], 30)
    group = np.repeat(list("fmx"), 20)
    predicted = np.where(group == "f", 0, y)
    limits = dict.fromkeys(
        ("accuracy_gap", "tpr_gap_max", "tpr_gap_rms", "equalized_odds_difference"),
        0.1,
    )

    def gates(kept: np.ndarray, among: dict[str, float]) -> list[bool]:
        report = audit(y[kept], predicted[kept], sensitive_features=group[kept], n_bootstrap=20, min_group=1)
        return [gate.passed for gate in check_gates(report, fail_over=among)]

    assert not any(gates(np.full(60, True), limits))
    # an accuracy is defined without positives, and is 1 there
    del limits["accuracy_gap"]
    assert not any(gates((group != "f") | (y == 0), limits))
    assert all(gates(group != "f", limits))


def test_weighted_rows_count_by_their_effective_size() -> None:
    y, group = np.tile([0, 1], 40), np.repeat(["f", "m"], 40)
    for weight in (0.1, 1.0, 3.0):
        report = audit(y, y, sensitive_features=group, sample_weight=np.full(80, weight), min_group=20)
        assert not report.cells["excluded"].any()
    uneven = audit(y, y, sensitive_features=group, sample_weight=np.geomspace(1, 1e6, 80), min_group=20)
    assert uneven.undefined["reason"].str.contains("effective row").any()


def test_gates_of_unknown_measures_are_refused() -> None:
    with pytest.raises(InputError, match="worst_group_accuracy"):
        check_gates(_report(), fail_under={"goodness": 1})


def test_thresholds_are_read_or_refused() -> None:
    assert parse_thresholds(["accuracy=0.8", "tpr_gap_rms = 1e-1"]) == {"accuracy": 0.8, "tpr_gap_rms": 0.1}
    for text in ("accuracy", "accuracy=high", "accuracy=1e", "=1", "accuracy=80", "gap=-1", "gap=nan"):
        with pytest.raises(InputError, match="measure=number"):
            parse_thresholds([text])


def _predict(texts: list[str]) -> list[str]:
    return ["nurse" if "she" in t.split() and "ward" in t else "other" for t in texts]


TEXTS = ["she runs a ward", "he runs a ward", "she runs a shop", "they run a ward"]


def test_flips_count_what_changes_and_show_no_text() -> None:
    found = counterfactual_flips(TEXTS, _predict, Pronouns())
    assert (found.n_texts, found.n_with_counterfactual, found.n_flipped) == (4, 3, 2)
    assert found.rate == pytest.approx(2 / 3)
    assert found.ci_low < found.rate < found.ci_high
    assert found.examples == ()
    assert [r["flipped"] for r in found.by_prediction] == [1, 1]


def test_flips_are_shown_when_asked_for() -> None:
    found = counterfactual_flips(
        [*TEXTS, "she met Anna Smith in the ward"],
        _predict,
        Pronouns(),
        n_examples=2,
        mask_names=True,
    )
    assert [one["text"] for one in found.examples] == TEXTS[:2]


def test_masking_hides_names_numbers_and_addresses() -> None:
    text = "Dr. Jane Doe was born in 1980. She writes to jane@example.org, he said I."
    assert masked(text) == "Dr. Jane […] was born in […]. She writes to […], he said I."
    assert masked("and so «Anna» met “Bob”…", begins=False) == "and so «[…]» met “[…]”…"


def test_predictions_made_elsewhere_give_the_same_flips() -> None:
    counterfactuals = [Pronouns().counterfactual(t) for t in TEXTS]
    after = [None if t is None else _predict([t])[0] for t in counterfactuals]
    found = flips_of_predictions(_predict(TEXTS), after)
    assert (found.n_with_counterfactual, found.n_flipped) == (3, 2)
    assert flips_of_predictions([1, 0, 1], [1.0, np.nan, 0.0]).n_flipped == 1


def test_flips_refuse_what_cannot_flip() -> None:
    with pytest.raises(InputError, match="nothing to swap"):
        counterfactual_flips(["they"], _predict, Pronouns())
    with pytest.raises(InputError, match="one value a text"):
        counterfactual_flips(TEXTS, lambda texts: ["x"], Pronouns())
    with pytest.raises(InputError, match="nothing can flip"):
        flips_of_predictions([1], [None])
    with pytest.raises(InputError, match="lengths differ"):
        flips_of_predictions([1], [1, 2])
