"""The field's measures of SAEs: laws on planted dictionaries, where the true value of each measure is known."""

from typing import Any

import numpy as np
import pytest
import torch
from planted_sae import evaluate
from scipy.sparse import csr_array

from debias_ssae.core.config import SAEConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae import SparseAutoencoder
from debias_ssae.sae.evaluation import values_of
from debias_ssae.sae.evaluation.absorption import (
    ablation_absorption,
    absorption_task,
    n_split,
    projection_absorption,
)
from debias_ssae.sae.evaluation.geometry import decoder_cosines, hedging, pw_mcc, stitching
from debias_ssae.sae.evaluation.probing import scr, sparse_probing, tpp
from debias_ssae.sae.evaluation.tokens import (
    activation_counts,
    coverage,
    dense_latents,
    description_length,
    encode_tokens,
    error_by_rank,
    frequency_deciles,
    reconstruction,
)


def one_hot_sae(rows: np.ndarray, bias: float = 0.0) -> SparseAutoencoder:
    """A relu SAE whose latents are the given orthonormal rows."""
    sae = SparseAutoencoder(
        SAEConfig(d_in=rows.shape[1], d_sae=len(rows), architecture="relu"), random_state=0
    )
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(rows))
        sae.W_dec.copy_(torch.from_numpy(rows))
        sae.b_enc.fill_(bias)
    return sae


def value(records: list[dict[str, Any]], measure: str, **where: Any) -> Any:
    (found,) = values_of(records, measure, **where)
    return found


@pytest.fixture
def typed() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """600 tokens of 12 types, type t along axis t; type 0 is the most frequent."""
    rng = np.random.default_rng(0)
    sizes = np.array([230, 100, 70, 50, 40, 30, 25, 20, 15, 10, 6, 4])
    ids = rng.permutation(np.repeat(np.arange(12), sizes))
    x = np.eye(12)[ids] * rng.uniform(0.5, 1.5, (600, 1))
    return torch.from_numpy(x).float(), ids, sizes


def test_one_pass_agrees_with_the_plain_measure(typed: Any) -> None:
    x, ids, sizes = typed
    sae = SparseAutoencoder(SAEConfig(d_in=12, d_sae=30, k=3, architecture="topk"), random_state=1)
    found = reconstruction(encode_tokens(sae, x), frequency_deciles(ids, sizes))
    plain = evaluate(sae, x)
    whole = [r for r in found if "decile" not in r]
    assert value(whole, "fvu") == pytest.approx(plain["fvu"], rel=1e-6)
    assert value(whole, "l0") == pytest.approx(plain["l0"])
    assert value(whole, "dead_share") == pytest.approx(plain["dead_fraction"])
    weights = [r["value"] for r in found if r["measure"] == "n_tokens" and "decile" in r]
    assert sum(weights) == 600


def test_a_constant_error_costs_fvu_but_no_explained_variance(typed: Any) -> None:
    x, _, _ = typed
    sae = one_hot_sae(np.eye(12, dtype=np.float32))
    with torch.no_grad():
        sae.b_dec[:] = 0.3
        sae.b_enc[:] = 0.3  # undoes what b_dec takes off, so that only the output is shifted
    found = reconstruction(encode_tokens(sae, x))
    assert value(found, "fvu") > 0.1
    assert value(found, "explained_variance") == pytest.approx(1.0, abs=1e-6)


def test_deciles_hold_tenths_and_keep_types_together() -> None:
    ids = np.repeat(np.arange(100), 10)
    deciles = frequency_deciles(ids, np.arange(100))
    assert (np.bincount(deciles) == 100).all()
    assert (np.diff(deciles) >= 0).all()  # types are in order of frequency here
    assert len(set(zip(ids.tolist(), deciles.tolist(), strict=True))) == 100


def test_coverage_is_the_share_of_types_with_a_latent(typed: Any) -> None:
    x, ids, sizes = typed
    whole = encode_tokens(one_hot_sae(np.eye(12, dtype=np.float32)), x)
    half = encode_tokens(one_hot_sae(np.eye(12, dtype=np.float32)[:6]), x)  # the six frequent types
    assert (
        value(coverage(whole.latents, ids, sizes), "coverage", n_types=11) == 1.0
    )  # one type has too few tokens
    assert value(coverage(half.latents, ids, sizes), "coverage", n_types=11) == pytest.approx(6 / 11)
    assert value(coverage(half.latents, ids, sizes), "coverage_rarest_30") == 0.0
    rising = values_of(coverage(half.latents, ids, sizes), "cumulative_coverage")
    assert rising == sorted(rising)
    assert rising[-1] == 1.0


def test_rare_types_without_a_latent_have_the_error(typed: Any) -> None:
    x, ids, sizes = typed
    run = encode_tokens(one_hot_sae(np.eye(12, dtype=np.float32)[:10]), x)
    found = error_by_rank(run, ids, sizes)
    assert value(found, "error_mean_by_rank", ranks="1 to 9") == pytest.approx(0, abs=1e-9)
    assert value(found, "error_max_by_rank", ranks="10 to 99") > 0.5


def test_counts_and_their_ratio() -> None:
    before = csr_array(np.triu(np.ones((20, 20))))
    twice = csr_array(np.vstack([before.toarray(), before.toarray()]))
    assert values_of(activation_counts(before), "activation_count", rank=1) == [20]
    with pytest.raises(InputError, match="one shape"):
        activation_counts(before, twice)
    same = values_of(activation_counts(before, before), "log2_count_ratio")
    assert same == [0.0] * 10


def test_dense_latents_are_listed() -> None:
    latents = np.zeros((100, 5))
    latents[:60, 3] = latents[:12, 1] = latents[:5, 0] = 1
    assert dense_latents(csr_array(latents)).tolist() == [3, 1]


def test_description_length_counts_support_and_values(typed: Any) -> None:
    x, _, _ = typed
    sae = one_hot_sae(np.eye(12, dtype=np.float32))
    run = encode_tokens(sae, x)
    loose, tight = (description_length(sae, x, run, t)[0]["value"] for t in (0.3, 1e-6))
    assert loose < tight
    poor = one_hot_sae(np.eye(12, dtype=np.float32)[:3])
    assert np.isnan(description_length(poor, x, encode_tokens(poor, x), 1e-6)[0]["value"])


def test_matching_finds_a_shuffled_dictionary() -> None:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(40, 16))
    assert pw_mcc(W, -W[rng.permutation(40)]) == pytest.approx(1, abs=1e-6)
    assert pw_mcc(W, rng.normal(size=(40, 16))) < 0.8


def test_twins_are_near_each_other() -> None:
    W = np.vstack([np.eye(6), np.eye(6)[:1]])
    found = decoder_cosines(W, np.ones(7, bool))
    assert value(found, "nearest_cosine", quantile=0.9) == pytest.approx(1)
    alone = decoder_cosines(W, np.arange(7) < 6)
    assert value(alone, "nearest_cosine", quantile=0.9) == pytest.approx(0)


def test_new_latents_help_and_shared_ones_do_not(typed: Any) -> None:
    x, _, _ = typed
    large, small = one_hot_sae(np.eye(12, dtype=np.float32)), one_hot_sae(np.eye(12, dtype=np.float32)[:6])
    found = stitching(large, small, x)
    assert value(found, "shared_latents") == 0.5
    assert value(found, "reference_fvu_with_new_latents") == pytest.approx(0, abs=1e-6)
    assert value(found, "reference_fvu_with_shared_latents") > value(found, "reference_fvu") > 0.05


def test_a_merged_latent_hedges() -> None:
    a, b = np.eye(8)[0], np.eye(8)[1]
    apart = hedging(np.eye(8), a, b)
    merged = hedging(np.vstack([(a + b)[None], np.eye(8)[2:]]), a, b)
    assert value(apart, "hedging_other", concept="a") == 0
    assert value(merged, "hedging_other", concept="a") == pytest.approx(0.5**0.5)
    assert value(merged, "hedging_own", concept="b") == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("f1", "expected"),
    [({1: 0.5, 2: 0.52, 3: 0.9}, 1), ({1: 0.5, 2: 0.6, 3: 0.7, 4: 0.71}, 3), ({1: 0.0}, 1)],
)
def test_splitting_stops_at_the_first_small_jump(f1: dict[int, float], expected: int) -> None:
    assert n_split(f1) == expected


D = 24


def absorbing_sae(n_values: int = 3) -> SparseAutoencoder:
    """Value v is along axis v with a latent of its own; on word 10 + v the latent of the word carries value and word,
    and the value's latent is silenced by it."""
    rows = np.eye(D, dtype=np.float32)
    W_enc, W_dec = rows.copy(), rows.copy()
    for v in range(n_values):
        W_enc[v, 10 + v] = -4.0
        W_dec[10 + v, v] = 1.0
    sae = one_hot_sae(rows)
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(W_enc))
        sae.W_dec.copy_(torch.from_numpy(W_dec))
    return sae


def absorbing_tokens(n: int, share: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Tokens of three values; ``share`` of each value's tokens are the word that absorbs it. Last: which are."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4  # the fourth has no value
    x = np.zeros((n, D))
    x[np.arange(n)[y < 3], y[y < 3]] = 1.0
    absorbed = np.zeros(n, bool)
    for v in range(3):
        rows = np.flatnonzero(y == v)
        absorbed[rows[: round(share * len(rows))]] = True
        x[rows[absorbed[rows]], 10 + v] = 1.0
    rest = np.flatnonzero(~absorbed)
    x[rest, 14 + rng.integers(0, 8, len(rest))] = 1.0
    return torch.from_numpy(x).float(), (y[:, None] == np.arange(3)), absorbed


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_planted_absorption_is_scored_at_its_true_rate(share: float) -> None:
    sae = absorbing_sae()
    x, Y, _ = absorbing_tokens(800, share, seed=0)
    x_test, Y_test, _ = absorbing_tokens(400, share, seed=1)

    def answers(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return x_test[rows], 5.0 * torch.from_numpy(np.pad(Y_test[rows], ((0, 0), (0, D - 3)))).float()

    found = absorption_task(sae, (x, Y), (x_test, Y_test), ("p", "q", "r"), answers=answers, max_k=1)
    for measure in ("full_absorption", "absorption_fraction", "absorption_rate"):
        assert value(found, measure, concept="mean") == pytest.approx(share)
    main = np.arange(1)
    mine = Y_test[:, 0]
    f = sae.encode(x_test[mine]).detach().numpy()
    probe = np.eye(D)[0]
    fraction, full, top = projection_absorption(
        x_test[mine].numpy(), f, sae.W_dec.detach().numpy(), probe, main
    )
    rule = ablation_absorption(f, np.tile(5.0 * probe, (len(f), 1)), sae.W_dec.detach().numpy(), probe, main)
    assert full.mean() == fraction.mean() == rule.mean() == pytest.approx(share)
    assert set(top[full]) == ({10} if share else set())


def test_what_carries_the_rest_is_a_fraction() -> None:
    probe, W = np.eye(4)[0], np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1.0, 0]])
    x = np.array([[2.0, 0, 0, 0], [2.0, 0, 0, 0], [2.0, 0, 0, 0]])
    latents = np.array([[2.0, 0.0, 1.0], [1.0, 1.25, 0.0], [1.5, 0.5, 0.0]])
    fraction, full, _ = projection_absorption(x, latents, W, probe, np.array([0]))
    assert fraction.tolist() == pytest.approx(
        [0.0, 0.5, 0.0]
    )  # 0.5 carries 0.2 of the projection: too little
    assert not full.any()


def test_a_weak_or_shared_effect_is_no_absorption() -> None:
    W, probe, main = np.eye(3)[:, :3], np.array([0.0, 1.0, 1.0]), np.array([0])
    latents, gradients = (
        np.array([[0.0, 2.0, 2.0], [0.0, 0.5, 0.0], [0.0, 2.0, 0.0]]),
        np.tile([0.0, 1.0, 1.0], (3, 1)),
    )
    assert ablation_absorption(latents, gradients, W, probe, main).tolist() == [False, False, True]
    assert not ablation_absorption(latents, -gradients, W, probe, main).any()  # its removal would help


def confounded(n: int = 800, seed: int = 0) -> dict[str, Any]:
    """Pooled rows with the target on axis 0 and the attribute, stronger, on axis 1; a latent for each."""
    rng = np.random.default_rng(seed)
    y, z = rng.random(n) < 0.5, rng.random(n) < 0.5
    X = rng.normal(size=(n, 10))
    X[:, 0] += 2.5 * (2 * y - 1)
    X[:, 1] += 4 * (2 * z - 1)
    return {"X": X, "latents": X.copy(), "W_dec": np.eye(10), "y": y, "z": z, "train": np.arange(n) < n // 2}


def test_removing_the_attribute_closes_the_gap() -> None:
    found = scr(**confounded(), ns=(1, 10))
    one, every = (value(found, "scr", n=n, direction=1) for n in (1, 10))
    assert one > 0.7
    assert every < 0.3  # nothing is left to decide on
    assert value(found, "scr", n=1, direction="lower base") == one
    data = confounded()
    data["y"] = data["z"].copy()
    with pytest.raises(InputError, match="four cells"):
        scr(**data)


def test_tpp_is_high_where_latents_are_apart_and_low_where_one_serves_all() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(900) % 3
    X = rng.normal(size=(900, 12)) * 0.5
    X[np.arange(900), classes] += 3
    train = np.arange(900) < 600
    apart = tpp(X, X.copy(), np.eye(12), classes, train, ns=(1,))
    assert value(apart, "tpp", n=1) > 0.1
    basis = np.linalg.qr(np.vstack([np.ones(12), rng.normal(size=(11, 12))]).T)[
        0
    ].T  # latents that mix the classes
    mixed = tpp(X, X @ basis.T, basis, classes, train, ns=(8,))
    assert value(mixed, "tpp", n=8) < value(apart, "tpp", n=1)
    with pytest.raises(InputError, match="three classes"):
        tpp(X, X, np.eye(12), classes % 2, train)


def test_sparse_probes_find_the_latent() -> None:
    data = confounded()
    found = sparse_probing(data["latents"], data["y"], data["train"], X=data["X"], ks=(1, 2))
    assert {r["best_latent"] for r in found} == {0}
    assert value(found, "sparse_probe_accuracy", k=1) > 0.97
    assert value(found, "sparse_probe_f1", k="dense") > 0.97
