"""Which way of removing the attribute ``output_eraser="auto"`` picks, and that it can be overruled."""

import json

import numpy as np
import pytest

from debias_ssae import SSAEDebiaser
from debias_ssae.debiaser.choice import candidates, choose, each_in_one_class
from debias_ssae.debiaser.output import Samples
from debias_ssae.debiaser.summary import sentences


class NoModel:
    def encode(self, X, edits=None):  # type: ignore[no-untyped-def]
        raise AssertionError("the representations are at hand")


def samples(edited: str, *, n: int = 400, y=None, z=None) -> Samples:  # type: ignore[no-untyped-def]
    """Rows whose attribute lies along columns 0 and 1, the target along column 1; ``edited`` says what was done."""
    rng = np.random.default_rng(0)
    z = np.tile([0, 1], n // 2) if z is None else z
    y = np.repeat([0, 1], n // 2) if y is None else y
    plain = rng.normal(size=(n, 12))
    classes = np.unique(y, return_inverse=True)[1]
    plain[:, 0] += z
    # what a linear eraser takes out along column 1 holds the target as well
    plain[:, 1] += 3 * classes + 4 * z
    made = Samples(NoModel(), {"embeddings": None}, [str(i) for i in range(n)], z, y)  # type: ignore[dict-item, arg-type]
    after = plain.copy()
    if edited == "good":
        after[:, 0] -= z
        after[:, 1] -= 4 * z
    else:
        after[:, 1] = rng.normal(size=n)
    made.__dict__.update(plain=plain, edited=after)
    return made


def picked(made: Samples, kind: str = "mean_difference"):  # type: ignore[no-untyped-def]
    own = made.weights is not None
    tried = candidates(kind, edits=True, as_they_are=own)
    return choose(made, tried, recenter=True, random_state=0, as_they_are=own)


def test_an_edit_that_costs_the_target_is_left_out() -> None:
    choice = picked(samples("bad"))
    assert not choice.picked.edit
    assert choice.report["better_by"] > choice.report["standard_error"]
    assert "latents do not help" in " ".join(sentences({"choice": choice.report}))


def test_an_edit_that_helps_stays_and_is_the_default() -> None:
    choice = picked(samples("good"))
    assert choice.picked.edit
    assert choice.report["picked"] in choice.report["candidates"]
    assert "no other is clearly better" in " ".join(sentences({"choice": choice.report})) or (
        choice.report["better_by"] > choice.report["standard_error"]
    )


def test_copies_change_nothing() -> None:
    once, thrice = samples("good"), samples("good").at(np.tile(np.arange(400), 3))
    assert len(np.unique(thrice.together)) == 400
    assert [t.tolist() for t in (once.together, thrice.together[400:800])] == [list(range(400))] * 2
    rows = np.r_[0:200, 0:200]
    pairs = Samples(NoModel(), {}, list(rows), groups=np.tile(np.arange(200), 2))  # type: ignore[arg-type]
    pairs.__dict__["plain"] = np.r_[once.plain[:100], once.plain[:100], once.plain[200:]]
    assert pairs.together.tolist() == [*range(100), *range(100)] * 2, (
        "pairs whose first versions are equal go together"
    )
    assert choose(
        thrice, candidates("mean_difference", edits=True), recenter=True, random_state=0
    ).picked.edit  # type: ignore[union-attr]


def test_of_pairs_an_eraser_alone_must_help_a_new_head_too() -> None:
    """Under the eraser fitted on pairs both versions become one, so that a frozen head is no evidence for it."""
    made = samples("good")
    order = np.argsort(made.z, kind="stable")  # the first half holds one version, the second half the other
    made = made.at(order)
    n = len(order) // 2
    pairs = Samples(made.encoder, made.edits, made.X, made.z, made.y, np.tile(np.arange(n), 2))
    plain = made.plain.copy()
    plain[n:] = plain[:n] + (made.plain[n:] - made.plain[:n]).mean(axis=0)
    edited = plain.copy()
    edited[n:] = edited[:n]
    edited[:, 1] += 3  # which a new head does not mind
    pairs.__dict__.update(plain=plain, edited=edited)
    choice = choose(pairs, candidates("counterfactual", edits=True), recenter=False, random_state=0)
    assert choice is not None
    tried = choice.report["candidates"]
    alone, default = tried["counterfactual alone"], tried["latents, then counterfactual"]
    assert alone["worst_group_frozen"] > default["worst_group_frozen"] + 0.1
    assert alone["worst_group_retrained"] == default["worst_group_retrained"]
    assert choice.picked.edit


def test_labels_of_the_training_texts_are_judged_as_a_classifier_will_learn_from_them() -> None:
    """With rare values in each class, nothing of a shortcut is seen inside the cells that are large."""
    made = samples("good")
    row = np.arange(400)
    other = np.where(row % 8 == 0, 1 - made.y, made.y)  # one in eight has a value of the other class
    z = row // 8 % 3 + 3 * other  # six values, three of them usual in a class
    rare = Samples(made.encoder, made.edits, made.X, z, made.y, weights=np.ones(400))
    rare.__dict__.update(plain=made.plain, edited=made.edited)
    choice = picked(rare)
    assert choice is not None
    assert each_in_one_class(rare)
    assert not each_in_one_class(made)
    assert choice.report["as_they_are"]
    assert "leace overall alone" in choice.report["candidates"]
    assert "the training texts as they are" in " ".join(sentences({"choice": choice.report}))
    alone = Samples(made.encoder, made.edits, made.X, made.y, made.y, weights=np.ones(400))
    alone.__dict__.update(plain=made.plain, edited=made.edited)
    assert picked(alone) is None, "no class holds two cells"


def test_what_the_latents_do_not_carry_gives_the_edit_no_lead() -> None:
    made = samples("good", n=60)
    tried = candidates("mean_difference", edits=True)
    free, bound = (
        choose(made, tried, recenter=True, random_state=0, first_is_better=first) for first in (False, True)
    )
    assert free is not None
    assert bound is not None
    scores = {
        name: one["worst_group_retrained"] + one["worst_group_frozen"]
        for name, one in free.report["candidates"].items()
    }
    assert scores[free.report["picked"]] == max(scores.values())
    assert bound.report["candidates"] == free.report["candidates"]


def test_the_names_of_classes_do_not_matter() -> None:
    assert picked(samples("bad")).report == picked(samples("bad", y=np.repeat(["b", "q"], 200))).report


def test_a_matrix_keeps_what_is_asked_for_and_says_what_was_tried(small_config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    made = samples("good")
    options = {"config": small_config, "random_state": 0}
    asked = SSAEDebiaser(output_eraser="mean_difference", **options)
    asked.fit(made.plain, made.y, sensitive_features=made.z)
    assert asked.report_["choice"] is None
    assert asked.output_kind_ == "mean_difference"
    free = SSAEDebiaser(**options).fit(made.plain, made.y, sensitive_features=made.z)
    choice = free.report_["choice"]
    assert len(free.intervention_.selection.ids) == 0 or "alone" not in choice["picked"].replace(
        "latents alone", ""
    )
    free.save(tmp_path / "saved")
    again = SSAEDebiaser.load(tmp_path / "saved")
    assert again.report_["choice"] == json.loads(json.dumps(choice))
    assert np.array_equal(again.transform(made.plain), free.transform(made.plain))


@pytest.mark.parametrize("missing", ["target", "one class", "confounded"])
def test_nothing_is_compared_where_nothing_can_tell(missing: str) -> None:
    n = 200
    y = np.repeat([0, 1], n // 2)
    made = {
        "target": lambda: Samples(NoModel(), {}, ["t"] * n, y),  # type: ignore[arg-type]
        "one class": lambda: samples("good", n=n, y=np.zeros(n, dtype=int)),
        "confounded": lambda: samples("good", n=n, y=y, z=y),
    }[missing]()
    assert picked(made) is None
