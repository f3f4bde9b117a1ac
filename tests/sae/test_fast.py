"""The fast products and selections against dense arithmetic."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_ssae.core.config import SAEConfig
from debias_ssae.sae import fast
from debias_ssae.sae.fast import Active, combine, combine_by_column, order_by_column, sampled_dot
from debias_ssae.sae.model import SparseAutoencoder


def pick(active, values, mask):
    rows = active.rows[mask]
    offsets = torch.cat(
        [torch.zeros(1, dtype=torch.long), rows.bincount(minlength=len(active.offsets) - 1).cumsum(0)]
    )
    return Active(rows, active.columns[mask], offsets), values[mask]


def dense(active, values, shape):
    return torch.zeros(shape, dtype=values.dtype).index_put((active.rows, active.columns), values)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_products_equal_dense_ones(n, width, share, seed):
    generator = torch.Generator().manual_seed(seed)
    active = fast.active_at(fast.where(torch.rand(n, width, generator=generator) < share), n, width)
    values = torch.randn(len(active.rows), generator=generator, dtype=torch.float64)
    W = torch.randn(width, 5, generator=generator, dtype=torch.float64)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    A = dense(active, values, (n, width))
    assert torch.allclose(combine(active, values, W), A @ W)
    by_column = order_by_column(active, width)
    fired = active.columns.unique()
    assert torch.equal(by_column.columns, fired)
    assert torch.allclose(combine_by_column(by_column, values, x), (A.T @ x)[fired])
    assert torch.allclose(sampled_dot(active, x, W), (x @ W.T)[active.rows, active.columns])


def test_columns_beyond_sixteen_bits_are_sorted_too():
    columns = torch.tensor([70_000, 3, 66_000, 3])
    active = Active(torch.tensor([0, 0, 1, 1]), columns, torch.tensor([0, 2, 4]))
    assert order_by_column(active, 70_001).order.tolist() == [1, 3, 2, 0]


def rows_of(pre):
    return lambda low, high: pre[low:high]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 200), st.integers(1, 12), st.floats(-1.5, 1.5), st.integers(0, 999))
def test_topk_of_each_row_without_what_is_not_positive(n, width, k, shift, seed):
    k = min(k, width)
    pre = torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) + shift
    active, values, _ = fast.topk_candidates(rows_of(pre), n, k)
    chosen, kept = pick(active, values, fast.keep_topk(active, values, k))
    top, where = pre.topk(k, dim=1)
    expected = torch.zeros_like(pre).scatter(1, where, top.relu())
    assert torch.equal(dense(chosen, kept, pre.shape), expected)


def test_topk_when_all_large_values_share_a_group():
    pre = torch.zeros(2, 1200)
    pre[:, ::100] = torch.arange(12.0) + 1  # all in one of the groups by which the bound is found
    active, values, _ = fast.topk_candidates(rows_of(pre), 2, 4)
    chosen, kept = pick(active, values, fast.keep_topk(active, values, 4))
    assert kept.tolist() == [9.0, 10.0, 11.0, 12.0] * 2
    assert chosen.offsets.tolist() == [0, 4, 8]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 80), st.integers(1, 12), st.floats(-3.0, 1.5), st.integers(0, 999))
def test_topk_of_a_batch(n, width, k, shift, seed):
    k = min(k, width)
    pre = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    pre[0] *= 10
    active, values, _ = fast.batch_topk_candidates(rows_of(pre), n, n * k)
    mask, threshold = fast.keep_batch_topk(values, n * k)
    chosen, kept = pick(active, values, mask)
    best = pre.flatten().topk(n * k).values
    best = best[best > 0]
    assert torch.equal(kept.sort(descending=True).values, best)
    assert threshold == (best.min() if len(best) else 0.0)
    assert len(chosen.rows) == len(best)


def test_chunks_are_joined_in_order(monkeypatch):
    pre = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    dead = torch.tensor([3, 17])
    whole = fast.topk_candidates(rows_of(pre), 50, 4, dead)
    assert torch.equal(whole.dead_pre_acts, pre[::2][:, dead])
    monkeypatch.setattr(fast, "CHUNK_ROWS", 8)
    parts = fast.topk_candidates(rows_of(pre), 50, 4, dead)
    for left, right in zip(whole.active, parts.active, strict=True):
        assert torch.equal(left, right)
    assert torch.equal(whole.values, parts.values)
    assert torch.equal(whole.dead_pre_acts, parts.dead_pre_acts)


def test_a_bad_guess_of_the_batchs_bound_is_mended():
    pre = torch.full((4000, 20), 0.1)
    pre[torch.arange(0, 4000, 250)] = 9.0  # the sampled rows are not like the others
    values = fast.batch_topk_candidates(rows_of(pre), 4000, 4000).values
    assert len(values) >= 4000
    assert int((values == 9.0).sum()) == 16 * 20


@pytest.mark.parametrize("which", ["topk", "batch"])
def test_bfloat16_proposes_almost_all_of_the_exact_choice(which):
    pre = torch.randn(64, 600, generator=torch.Generator().manual_seed(0))
    if which == "topk":
        proposed = fast.topk_candidates(rows_of(pre.bfloat16()), 64, 8).active
        bound = pre.topk(8, dim=1).values[:, -1:]
    else:
        proposed = fast.batch_topk_candidates(rows_of(pre.bfloat16()), 64, 512).active
        bound = pre.flatten().topk(512).values[-1]
    seen = torch.zeros(64, 600, dtype=torch.bool)
    seen[proposed.rows, proposed.columns] = True
    assert int((pre >= bound).sum()) == 512
    assert int(((pre >= bound) & ~seen).sum()) <= 5


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu", "relu", "topk"])
@pytest.mark.parametrize("low", [True, False])
def test_active_latents_are_those_of_encode(architecture, low, monkeypatch):
    monkeypatch.setattr(fast, "has_fast_bf16", lambda device: low)
    sae = SparseAutoencoder(SAEConfig(d_in=16, d_sae=64, k=4, architecture=architecture), random_state=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        sae.b_dec.normal_(generator=generator)
        sae.threshold.copy_(torch.rand(sae.threshold.shape, generator=generator) + 0.5)
    x = torch.randn(600, 16, generator=generator) * torch.logspace(-1, 2, 600)[:, None]
    active, values = fast.active_latents(sae, x)
    with torch.no_grad():
        torch.testing.assert_close(dense(active, values, (600, 64)), sae.encode(x), rtol=1e-4, atol=1e-5)
    assert float(values.min()) > 0
