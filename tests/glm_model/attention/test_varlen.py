"""The two calls of variable length: index arithmetic, checked on a CPU with plain torch in the kernel's place."""

import functools

import pytest
import torch

from glm_model.attention import compare_with_dense, make_mask
from glm_model.attention.packed_rows import find_runs
from glm_model.attention.varlen import Sequences, attend_varlen, plan_varlen


def stand_in(q, k, v, of: Sequences, causal: bool, dropout_p: float, *, at_last_key: bool = True) -> torch.Tensor:
    """Flash attention by its documentation: zero for queries without keys; places beyond max_q are never written."""
    assert dropout_p == 0
    assert (int(of.cu_q[-1]), int(of.cu_k[-1])) == (len(q), len(k)), "a place in no sequence has no gradient"
    assert max(of.cu_k.diff().tolist()) <= of.max_k
    assert of.cu_q.dtype == of.cu_k.dtype == torch.int32
    out = torch.full_like(q, torch.nan)
    edges = [cu.tolist() for cu in (of.cu_q, of.cu_k)]
    for q0, q1, k0, k1 in zip(edges[0], edges[0][1:], edges[1], edges[1][1:], strict=False):
        queries = slice(q0, min(q1, q0 + of.max_q))
        if k1 == k0:
            out[queries] = 0
            continue
        scores = torch.einsum("qhd,khd->hqk", q[queries], k[k0:k1]) / q.shape[-1] ** 0.5
        if causal:
            visible = torch.ones(scores.shape[1:], dtype=torch.bool).tril((k1 - k0 - (q1 - q0)) * at_last_key)
            scores = scores.masked_fill(~visible, -torch.inf)
        out[queries] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[k0:k1])
    return out


def test_the_sequences_of_a_small_batch_in_full():
    segment_ids = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 0, -1, -1, -1, -1]])
    context_end = torch.tensor([[2, 2, 2, 5, 5, 0], [0, 0, 0, 0, 0, 0]])
    plan = plan_varlen(find_runs(segment_ids, context_end), segment_ids, context_end)
    # Runs: context 2 + blank 1 | context 2 | padding 1 || blanks 2 | padding 4.
    q = [2, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 4]
    k = [2, 1, 0, 2, 0, 0, 0, 1, 0, 0, 2, 0, 0, 4, 0]
    assert (plan.context.cu_q.diff().tolist(), plan.context.cu_k.diff().tolist()) == (q, k)
    assert (plan.context.max_q, plan.context.max_k) == (4, 4)
    q = [2, 1, 2, 0, 1, 0, 0, 2, 4, 0]
    k = [0, 3, 0, 2, 0, 1, 0, 2, 0, 4]
    assert (plan.blanks.cu_q.diff().tolist(), plan.blanks.cu_k.diff().tolist()) == (q, k)
    assert plan.is_blank_N.nonzero()[:, 0].tolist() == [2, 6, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_law_5_values_and_gradients_are_those_of_dense(dtype, monkeypatch):
    use_kernel(monkeypatch, stand_in)
    worst = compare_with_dense("varlen", "cpu", dtype, 16)
    assert worst < (1e-5 if dtype == torch.float32 else 3e-2)


def test_the_trial_finds_a_kernel_that_aligns_its_diagonal_at_the_first_key(monkeypatch):
    use_kernel(monkeypatch, functools.partial(stand_in, at_last_key=False))
    assert compare_with_dense("varlen", "cpu", torch.float32, 16) > 0.1


def test_the_trial_finds_places_that_are_never_written(monkeypatch):
    def short(q, k, v, of, causal, dropout_p):
        return stand_in(q, k, v, of._replace(max_q=100), causal, dropout_p)

    use_kernel(monkeypatch, short)
    assert compare_with_dense("varlen", "cpu", torch.float32, 16) == float("inf")


@pytest.mark.parametrize(
    ("segment_ids", "context_end", "calls"),
    [
        ([[0, 0, 1, 1]], [[2, 2, 4, 4]], (True, False)),
        ([[0, 0, 1, 1]], [[0, 0, 2, 2]], (False, True)),
        ([[-1, -1, -1, -1]], [[0, 0, 0, 0]], (False, False)),
    ],
)
def test_a_call_without_queries_is_not_made_and_every_input_gets_a_gradient(segment_ids, context_end, calls):
    segment_ids, context_end = torch.tensor(segment_ids), torch.tensor(context_end)
    plan = plan_varlen(find_runs(segment_ids, context_end), segment_ids, context_end)
    assert (plan.context is not None, plan.blanks is not None) == calls
    packed = torch.randn(4, 3, 2, 8, requires_grad=True)
    out = attend_varlen(*packed.unbind(1), plan, kernel=stand_in)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(packed.grad).all()
    if not any(calls):
        assert out.abs().max() == packed.grad.abs().max() == 0


def test_without_context_end_all_is_context():
    segment_ids = torch.tensor([[0, 0, 1, -1]])
    plan = plan_varlen(find_runs(segment_ids, None), segment_ids, None)
    assert plan.blanks is None
    assert not plan.is_blank_N.any()
    q, k, v = torch.randn(3, 4, 1, 8)
    dense = make_mask(segment_ids, None, (1, 4), "cpu", backend="dense").allowed[0, 0]
    expected = torch.nn.functional.scaled_dot_product_attention(q[:, 0], k[:, 0], v[:, 0], attn_mask=dense)
    torch.testing.assert_close(attend_varlen(q, k, v, plan, kernel=stand_in)[:3, 0], expected[:3])


def use_kernel(monkeypatch, kernel) -> None:
    monkeypatch.setattr("glm_model.attention.backends.attend_varlen", functools.partial(attend_varlen, kernel=kernel))
