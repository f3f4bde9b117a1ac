"""The protocol's three sets: disjoint, balanced, and without repeated texts."""

import numpy as np
import pandas as pd
import pytest

from debias_ssae.benchmark.protocol import drop_duplicates, majority_values, make_split
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.core.errors import InputError

SIZES = {("nurse", "F"): 90, ("nurse", "M"): 40, ("surgeon", "F"): 50, ("surgeon", "M"): 100}
Y = np.repeat([c for c, _ in SIZES], list(SIZES.values()))
Z = np.repeat([g for _, g in SIZES], list(SIZES.values()))


def cells(rows: np.ndarray) -> dict[tuple[str, str], int]:
    return pd.Series(list(zip(Y[rows], Z[rows], strict=True))).value_counts().to_dict()


def test_confounded_split() -> None:
    split = make_split(Y, Z, BenchmarkConfig(n_test=15, n_attribute=20, max_head=60), 0)
    assert cells(split.test) == dict.fromkeys(SIZES, 15)
    assert cells(split.attribute) == dict.fromkeys(SIZES, 20)
    assert cells(split.head) == {("nurse", "F"): 55, ("surgeon", "M"): 60}
    rows = np.concatenate([split.head, split.attribute, split.test])
    assert len(set(rows)) == len(rows)


def test_natural_split_keeps_the_correlation() -> None:
    split = make_split(Y, Z, BenchmarkConfig(setting="natural", n_test=15, n_attribute=15), 0)
    held = cells(split.head)
    assert set(held) == set(SIZES)
    assert held["surgeon", "M"] > 2 * held["surgeon", "F"]


def test_seeds_differ_and_repeat() -> None:
    first, again, other = (
        make_split(Y, Z, BenchmarkConfig(n_test=15, n_attribute=15), s).test for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_majority_is_relative_to_the_whole() -> None:
    y = np.repeat(["a", "b"], 100)
    z = np.array(["M"] * 90 + ["F"] * 10 + ["M"] * 60 + ["F"] * 40)
    assert majority_values(y, z) == {"a": "M", "b": "F"}
    with pytest.raises(InputError, match="same majority"):
        make_split(np.array(["a", "a"]), np.array(["M", "M"]), BenchmarkConfig(n_test=3, n_attribute=3), 0)


def test_balanced_data_is_refused_only_where_it_must_be_confounded() -> None:
    y, z = np.repeat(["a", "b"], 60), np.tile(["F", "M"], 60)
    assert len(make_split(y, z, BenchmarkConfig(setting="natural", n_test=5, n_attribute=5), 0).head)
    with pytest.raises(InputError, match="same majority"):
        make_split(y, z, BenchmarkConfig(n_test=5, n_attribute=5), 0)


def test_a_class_with_too_few_texts_for_its_head_is_named() -> None:
    sizes = {("a", "F"): 44, ("a", "M"): 40, ("b", "F"): 40, ("b", "M"): 90}
    y, z = (np.repeat([cell[i] for cell in sizes], list(sizes.values())) for i in (0, 1))
    with pytest.raises(InputError, match="4 texts of class a are left to train the head, fewer than 5"):
        make_split(y, z, BenchmarkConfig(n_test=20, n_attribute=20), 0)
    assert len(make_split(y, z, BenchmarkConfig(n_test=20, n_attribute=19), 0).head)


def test_too_small_cell_is_named() -> None:
    with pytest.raises(InputError, match=r"nurse x M holds 40 texts.*--n-test"):
        make_split(Y, Z, BenchmarkConfig(n_test=30, n_attribute=30), 0)


def test_duplicates_are_dropped_whatever_their_case_spacing_and_punctuation() -> None:
    table = pd.DataFrame({"text": ["A b", "a  B ", "c", "“A b.”", "ﬁn", "fin"], "target": [1, 2, 3, 4, 5, 6]})
    assert drop_duplicates(table).target.tolist() == [1, 3, 5]


def test_what_is_left_over_serves_the_large_oracle_only() -> None:
    for setting in ("confounded", "natural"):
        split = make_split(Y, Z, BenchmarkConfig(setting=setting, n_test=15, n_attribute=15, max_head=30), 0)  # type: ignore[arg-type]
        rows = np.concatenate(split)
        assert len(set(rows)) == len(rows)
        assert max(cells(split.rest).values()) <= 30
        assert sum(cells(split.rest).values()) > 0
    whole = make_split(Y, Z, BenchmarkConfig(n_test=15, n_attribute=15, max_head=2000), 0)
    assert len(np.concatenate(whole)) == len(Y), "nothing is lost where the head may take all"
