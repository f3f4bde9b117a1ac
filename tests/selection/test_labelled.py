"""The labelled contrast finds planted latents, and only those."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from debias_ssae.benchmark.methods import matched_random_latents
from debias_ssae.core.config import SAEConfig, SelectionConfig
from debias_ssae.core.errors import InputError
from debias_ssae.model import Activations
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.scores import class_conditional_contrast, encode_attribute, encode_labels
from debias_ssae.selection.select import select_from_labels

D = 40


def planted(n: int = 600, groups: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents 0..2 follow the attribute, 3..5 the class; class and attribute are correlated."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    z = np.where(rng.random(n) < 0.8, y, rng.integers(0, groups, n))
    latents = rng.exponential(0.1, size=(n, D))
    latents[:, :3] += 0.3 * (z[:, None] == np.arange(3) % groups)
    latents[:, 3:6] += 0.5 * y[:, None]
    return latents, y, z


@pytest.mark.parametrize("groups", [2, 3])
def test_finds_the_attribute_not_the_class(groups: int) -> None:
    latents, y, z = planted(1500, groups)
    scores = class_conditional_contrast(latents, np.ones(D), z, tuple("abc"[:groups]), y)
    assert set(scores.top(3)) == {0, 1, 2}
    assert (scores.p_value[:3] < 1e-3).all()
    assert (scores.p_value[3:] > 0.01).all()
    without_y = class_conditional_contrast(latents, np.ones(D), z, tuple("abc"[:groups]))
    assert without_y.score[3:6].min() > scores.score[3:6].max()


def test_sign_follows_the_second_value() -> None:
    latents, y, z = planted()
    scores = class_conditional_contrast(latents, np.ones(D), z, ("a", "b"), y)
    assert scores.sign[0] == -1
    assert scores.sign[1] == 1
    assert scores.effect.shape == (2, D)
    swapped = class_conditional_contrast(latents, np.ones(D), 1 - z, ("b", "a"), y)
    assert np.allclose(swapped.score, scores.score)
    assert np.allclose(swapped.sign, -scores.sign)


def test_row_order_and_unlabelled_rows_change_nothing() -> None:
    latents, y, z = planted()
    order = np.random.default_rng(1).permutation(len(y))
    scores = class_conditional_contrast(latents, np.ones(D), z, ("a", "b"), y)
    shuffled = class_conditional_contrast(latents[order], np.ones(D), z[order], ("a", "b"), y[order])
    assert np.allclose(scores.score, shuffled.score)
    more = np.concatenate([latents, 100 * latents[:50]])
    unknown = np.concatenate([z, np.full(50, -1)])
    extended = class_conditional_contrast(more, np.ones(D), unknown, ("a", "b"), np.concatenate([y, y[:50]]))
    assert np.allclose(scores.score, extended.score)


def test_small_cells_are_ignored_and_listed() -> None:
    latents, y, z = planted()
    keep = ~((y == 0) & (z == 1)) | (np.arange(len(y)) < 60)
    scores = class_conditional_contrast(latents[keep], np.ones(D), z[keep], ("a", "b"), y[keep], min_cell=20)
    assert [(cell["class"], cell["value"]) for cell in scores.ignored] == [("0", "b")]
    assert np.isnan(scores.effect[0]).all()


def test_attribute_equal_to_class_is_refused() -> None:
    latents, y, _ = planted()
    with pytest.raises(InputError, match="concept="):
        class_conditional_contrast(latents, np.ones(D), y, ("a", "b"), y)


def test_encode_attribute() -> None:
    codes, values = encode_attribute(["f", None, "m", float("nan"), "f"], 5)
    assert codes.tolist() == [0, -1, 1, -1, 0]
    assert values == ("f", "m")
    crossed, names = encode_attribute(np.array([["f", "x"], ["m", "y"], ["f", "y"]], dtype=object), 3)
    assert names == ("f,x", "f,y", "m,y")
    assert crossed.tolist() == [0, 2, 1]
    with pytest.raises(InputError, match="X has 4"):
        encode_attribute(["f", "m"], 4)
    with pytest.raises(InputError, match="only the value 'f'"):
        encode_attribute(["f", "f"], 2)
    with pytest.raises(InputError, match="no known value"):
        encode_attribute([None, None], 2)


def test_any_table_of_columns_and_no_collisions() -> None:
    table = pd.DataFrame({"a": ["x,y", "x", "x,y"], "b": ["z", "y,z", "z"]})
    for columns in (table, pa.table(table), table.to_numpy()):
        codes, values = encode_attribute(columns, 3)
        assert codes[0] == codes[2] != codes[1]
        assert len(set(values)) == 2
    for column in (pa.table({"a": ["f", "m"]}), pa.array(["f", "m"]), pd.Series(["f", "m"], index=[7, 7])):
        assert encode_attribute(column, 2)[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "filled"),
    [
        (np.array(["p", None, "q", "p"], dtype=object), ["p", "p", "q", "p"]),
        (np.array([0, np.nan, 1, 0]), [0, 0, 1, 0]),
        (np.array(["p", "p", "q", "p"]), ["p", "p", "q", "p"]),
    ],
)
def test_rows_without_a_target_have_no_known_attribute(y: np.ndarray, filled: list[object]) -> None:
    codes, values, classes = encode_labels(["f", "m", "m", "f"], y, 4)
    assert values == ("f", "m")
    assert classes is not None
    assert classes.tolist() == filled
    assert codes.tolist() == [0, -1 if pd.isna(y).any() else 1, 1, 0]
    with pytest.raises(InputError, match="only the value 'f' where y is known"):
        encode_labels(["f", "m", "f", "f"], np.array([1, np.nan, 0, 1]), 4)


def test_random_latents_are_matched_and_disjoint() -> None:
    rng = np.random.default_rng(0)
    firing, mass = rng.uniform(0.001, 0.5, 500), rng.uniform(0.001, 0.2, 500)
    chosen = np.argsort(-firing)[10:60]
    picked = matched_random_latents(chosen, firing, mass, random_state=0)
    assert len(set(picked)) == 50
    assert not set(picked) & set(chosen)
    assert abs(np.log(firing[picked]).mean() - np.log(firing[chosen]).mean()) < 0.3
    anyone = rng.choice(np.setdiff1d(np.arange(500), chosen), 50, replace=False)
    assert abs(np.log(firing[anyone]).mean() - np.log(firing[chosen]).mean()) > 0.5
    assert picked.tolist() == matched_random_latents(chosen, firing, mass, random_state=0).tolist()
    with pytest.raises(InputError, match="too few are left"):
        matched_random_latents(np.arange(300), firing, mass)


def test_a_latent_whose_difference_may_be_chance_stays() -> None:
    """The first latent writes the attribute, and so does a direction that no latent has: a probe still reads it."""
    rng = np.random.default_rng(0)
    z = np.arange(400) % 2
    x = rng.exponential(0.5, size=(400, 4)).astype(np.float32)
    x[:, [0, 3]] += z[:, None]
    sae = SparseAutoencoder(SAEConfig(d_in=4, d_sae=3, k=3, architecture="relu"), random_state=0)
    with torch.no_grad():
        for weights in (sae.W_enc, sae.W_dec):
            weights.copy_(torch.eye(4)[:3])
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    ids = torch.arange(400)
    rows = Activations(torch.from_numpy(x), ids, ids, torch.zeros(400, 2, dtype=torch.long), 400)

    def chosen(chance: float) -> list[int]:
        config = SelectionConfig(chance=chance)
        return select_from_labels(sae, rows, None, z, config, random_state=0).ids.tolist()

    assert chosen(0.05) == [0]
    assert sorted(chosen(1.0)) == [0, 1, 2]
