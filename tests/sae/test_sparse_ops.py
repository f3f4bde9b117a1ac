"""The fast products and selections against dense arithmetic."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_ssae.sae import selection
from debias_ssae.sae.processes import Processes
from debias_ssae.sae.sparse_ops import Active, combine, combine_by_column, keep, order_by_column, sampled_dot

ALONE = Processes(torch.device("cpu"))


def dense(active, values, shape):
    return torch.zeros(shape, dtype=values.dtype).index_put((active.rows, active.columns), values)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_products_equal_dense_ones(n, width, share, seed):
    generator = torch.Generator().manual_seed(seed)
    active = selection.select_where(torch.rand(n, width, generator=generator) < share)
    values = torch.randn(len(active.rows), generator=generator, dtype=torch.float64)
    W = torch.randn(width, 5, generator=generator, dtype=torch.float64)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    A = dense(active, values, (n, width))
    assert torch.allclose(combine(active, values, W), A @ W)
    by_column = order_by_column(active, width)
    assert torch.allclose(combine_by_column(by_column, values, x), A.T @ x)
    assert torch.allclose(sampled_dot(active, x, W), (x @ W.T)[active.rows, active.columns])
    low, high = width // 3, 2 * width // 3 + 1
    assert torch.allclose(combine_by_column(by_column.between(low, high), values, x), (A.T @ x)[low:high])
    mask = values > 0
    assert torch.allclose(combine(keep(active, mask), values[mask], W), A.clamp_min(0) @ W)


def test_columns_beyond_sixteen_bits_are_sorted_too():
    columns = torch.tensor([70_000, 3, 66_000, 3])
    active = Active(torch.tensor([0, 0, 1, 1]), columns, torch.tensor([0, 2, 4]))
    assert order_by_column(active, 70_001).order.tolist() == [1, 3, 2, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 200), st.integers(1, 12), st.floats(-1.5, 1.5), st.integers(0, 999))
def test_topk_of_each_row_without_what_is_not_positive(n, width, k, shift, seed):
    k = min(k, width)
    pre = torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) + shift
    active = selection.topk_candidates(pre, k)
    values = pre[active.rows, active.columns]
    chosen, kept = selection.narrow(active, values, selection.keep_topk(active, values, k))
    top, where = pre.topk(k, dim=1)
    expected = torch.zeros_like(pre).scatter(1, where, top.relu())
    assert torch.equal(dense(chosen, kept, pre.shape), expected)


def test_topk_when_all_large_values_share_a_group():
    pre = torch.zeros(2, 1200)
    pre[:, ::100] = torch.arange(12.0) + 1  # all in one of the groups by which the bound is found
    active = selection.topk_candidates(pre, 4)
    values = pre[active.rows, active.columns]
    chosen, kept = selection.narrow(active, values, selection.keep_topk(active, values, 4))
    assert kept.tolist() == [9.0, 10.0, 11.0, 12.0] * 2
    assert chosen.offsets.tolist() == [0, 4, 8]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 80), st.integers(1, 12), st.floats(-3.0, 1.5), st.integers(0, 999))
def test_topk_of_a_batch(n, width, k, shift, seed):
    k = min(k, width)
    pre = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    pre[0] *= 10
    active = selection.batch_topk_candidates(pre, n * k, ALONE)
    values = pre[active.rows, active.columns]
    mask, threshold = selection.keep_batch_topk(values, n * k, ALONE)
    chosen, kept = selection.narrow(active, values, mask)
    best = pre.flatten().topk(n * k).values
    best = best[best > 0]
    assert torch.equal(kept.sort(descending=True).values, best)
    assert threshold == (best.min() if len(best) else 0.0)
    assert len(chosen.rows) == len(best)


@pytest.mark.parametrize("which", ["topk", "batch"])
def test_candidates_from_bfloat16_hold_almost_all_of_the_exact_choice(which):
    pre = torch.randn(64, 600, generator=torch.Generator().manual_seed(0))
    if which == "topk":
        active = selection.topk_candidates(pre.bfloat16(), 8)
        exact = selection.topk_candidates(pre, 8)
        exact = keep(exact, selection.keep_topk(exact, pre[exact.rows, exact.columns], 8))
    else:
        active = selection.batch_topk_candidates(pre.bfloat16(), 64 * 8, ALONE)
        exact = selection.batch_topk_candidates(pre, 64 * 8, ALONE)
        exact = keep(exact, selection.keep_batch_topk(pre[exact.rows, exact.columns], 512, ALONE)[0])
    proposed = set(zip(active.rows.tolist(), active.columns.tolist(), strict=True))
    wanted = set(zip(exact.rows.tolist(), exact.columns.tolist(), strict=True))
    assert len(wanted) == 512
    assert len(wanted - proposed) <= 5
