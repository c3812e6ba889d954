"""Attention: law 5 (backends agree, forward and backward), the visibility rule, the choice, padding, dropout."""

import logging
import re

import pytest
import torch

from glm_model.attention import Use, attention, choice, make_mask, row_width
from glm_model.attention.packed_rows import find_runs
from glm_model.dropout import drop_by_sign, dropout, keep_scale


def segments_of(rows: list[list[tuple[int, int]]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(segment_ids, context_end) of rows of (context, blanks) sizes."""
    segment_ids = torch.full((len(rows), width), -1)
    context_end = torch.zeros(len(rows), width, dtype=torch.int64)
    for r, row in enumerate(rows):
        at = 0
        for index, (context, blanks) in enumerate(row):
            segment_ids[r, at : at + context + blanks] = index
            context_end[r, at : at + context + blanks] = at + context
            at += context + blanks
    return segment_ids, context_end


def run(backend, segment_ids, context_end, dtype=torch.float32, heads=3):
    """Output and gradients of q, k, v under one backend; the same numbers for every backend."""
    rows, width = segment_ids.shape
    generator = torch.Generator().manual_seed(0)
    qkv = [torch.randn(rows, width, heads, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)]
    real = (segment_ids >= 0)[:, :, None, None]
    mask = make_mask(segment_ids, context_end, (rows, width), "cpu", backend=backend)
    assert mask.backend == backend
    out = attention(*qkv, mask) * real
    out.backward(torch.randn(out.shape, generator=generator).to(dtype) * real)
    return out, *(x.grad for x in qkv)


CASES = {
    "packed": ([[(5, 3), (4, 4), (1, 2)], [(9, 6)]], 20),
    "row edges": ([[(20, 0)], [(10, 10)], [(0, 20)]], 20),
    "no blanks and no context": ([[(7, 0), (0, 7)], []], 16),
    "long, which is split": ([[(250, 60), (0, 280), (300, 0)]], 900),
}


@pytest.mark.parametrize("case", CASES)
def test_law_5_backends_agree_forward_and_backward(case):
    segment_ids, context_end = segments_of(*CASES[case])
    for mine, reference in zip(
        run("segments", segment_ids, context_end), run("dense", segment_ids, context_end), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_law_5_in_bf16_within_its_rounding(case):
    """With rows left for lengths to be rounded up, into the next segment and into padding."""
    rows, width = CASES[case]
    segment_ids, context_end = segments_of([*rows, []], width + 40)
    exact = run("dense", segment_ids, context_end)
    for mine, reference in zip(run("segments", segment_ids, context_end, torch.bfloat16), exact, strict=True):
        torch.testing.assert_close(mine.float(), reference, rtol=0.05, atol=0.06)


def test_the_dense_mask_is_the_rule_same_segment_and_context_or_not_later():
    segment_ids, context_end = segments_of([[(2, 2), (1, 1)]], 7)
    allowed = make_mask(segment_ids, context_end, (1, 7), "cpu", backend="dense").allowed
    assert allowed is not None
    expected = ["xx.....", "xx.....", "xxx....", "xxxx...", "....x..", "....xx.", "......x"]
    assert ["".join(".x"[int(v)] for v in row) for row in allowed[0, 0]] == expected


def test_padding_gives_no_nan_in_either_backend():
    segment_ids, context_end = segments_of([[(3, 2)], []], 8)
    for backend in ("dense", "segments"):
        mask = make_mask(segment_ids, context_end, (2, 8), "cpu", backend=backend)
        qkv = [torch.randn(2, 8, 1, 4, requires_grad=True) for _ in range(3)]
        out = attention(*qkv, mask)
        out.sum().backward()
        assert all(torch.isfinite(x).all() for x in (out, *(x.grad for x in qkv)))


def test_a_cpu_takes_segments_and_falls_back_where_rows_are_short_or_a_segment_is_not_contiguous():
    zeros = torch.zeros(1, 128, dtype=torch.int64)
    assert make_mask(zeros, zeros + 4, (1, 128), "cpu").backend == "segments"
    assert make_mask(zeros[:, :127], zeros[:, :127] + 4, (1, 127), "cpu").backend == "dense"
    assert make_mask(zeros[:, :127], None, (1, 127), "cpu", use=Use(dropout_p=0.1)).backend == "segments"
    zeros[0, 5:9] = 1
    assert make_mask(zeros, None, (1, 128), "cpu").backend == "dense"
    apart = torch.tensor([[0, 1, 0, -1]])
    with pytest.raises(ValueError, match="each segment in one piece"):
        make_mask(apart, None, (1, 4), "cpu", backend="segments")


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("varlen", "the varlen attention backend runs on a GPU, not on cpu. Use backend='dense'"),
        ("flex", "the flex attention backend runs on a GPU, not on cpu"),
        ("fast", "unknown attention backend 'fast' \\(have: dense, segments, varlen, flex\\)"),
    ],
)
def test_a_backend_that_does_not_fit_is_refused(backend, message):
    with pytest.raises(ValueError, match=message):
        make_mask(torch.zeros(1, 4, dtype=torch.int64), None, (1, 4), "cpu", backend=backend)


BF16 = Use(dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("use", "works", "chosen", "line"),
    [
        (BF16, ("varlen", "flex"), "varlen", None),
        (BF16, ("flex",), "flex", "attention runs by flex: varlen broke"),
        (Use(), ("varlen", "flex"), "flex", "attention runs by flex: varlen needs bf16 or fp16, not torch.float32"),
        (Use(BF16.dtype, 12), ("varlen", "flex"), "flex", "varlen needs a head width of a multiple of 8 up to 256"),
        (Use(dropout_p=0.1), ("varlen", "flex"), "dense", "varlen needs bf16 .*; flex has no dropout of attention"),
        (BF16, (), "dense", "attention runs by dense: varlen broke; flex broke"),
        (Use(), ("varlen", "flex"), "dense 512", "flex takes long to compile, and rows are shorter than 1,024"),
    ],
)
def test_a_gpu_takes_the_first_that_fits_and_says_once_why_not_the_first(use, works, chosen, line, monkeypatch, caplog):
    choice.log_once.cache_clear()
    monkeypatch.setattr(choice, "failure_on", lambda backend, *_: None if backend in works else "broke")
    runs = find_runs(torch.zeros(1, 4, dtype=torch.int64), None)
    with caplog.at_level(logging.WARNING, "glm_model"):
        for _ in range(2):
            backend, length = (*chosen.split(), 2048)[:2]
            assert choice.choose(torch.device("cuda"), use, runs, int(length)) == backend
    assert len(caplog.messages) == (line is not None)
    if line:
        assert re.search(line, caplog.messages[0])


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize(("device", "chosen", "width"), [("cpu", "segments", 4096), ("cuda", "dense", 512)])
def test_rows_are_wide_only_where_attention_does_not_pay_for_it(device, chosen, width, dropout_p):
    """The GPU in fp32, where neither of its faster backends fits: dense pays for the square of a row's length."""
    device, runs = torch.device(device), find_runs(torch.zeros(1, 4, dtype=torch.int64), None)
    assert row_width(device) == width
    assert choice.choose(device, Use(dropout_p=dropout_p), runs, width) == chosen


def test_a_context_that_leaves_its_segment_or_changes_inside_is_refused():
    segment_ids, context_end = segments_of([[(3, 2), (2, 2)]], 10)
    with pytest.raises(ValueError, match="context_end=4 lies outside its segment, which spans 5 to 9 of row 0"):
        make_mask(segment_ids, torch.where(segment_ids == 1, 4, context_end), (1, 10), "cpu")
    context_end[0, 2] = 2
    with pytest.raises(ValueError, match="changes inside a segment of row 0 after column 1"):
        make_mask(segment_ids, context_end, (1, 10), "cpu")


@pytest.mark.parametrize(
    ("context_end", "message"),
    [
        ([3, 1, 3, 0], None),
        ([99, 1, 99, 0], "context_end=99 lies outside its segment, which spans 0 to 3 of row 0"),
        ([3, 0, 3, 0], "context_end=0 lies outside its segment, which spans 1 to 2 of row 0"),
        ([1, 1, 3, 0], "context_end differs between the parts of segment 0 of row 0"),
    ],
)
def test_a_context_of_a_segment_in_pieces_is_checked_too(context_end, message):
    apart, ends = torch.tensor([[0, 1, 0, -1]]), torch.tensor([context_end])
    if message is None:
        assert make_mask(apart, ends, (1, 4), "cpu").allowed[0, 0, 0].tolist() == [True, False, True, False]
        return
    with pytest.raises(ValueError, match=message):
        make_mask(apart, ends, (1, 4), "cpu")


def test_attention_dropout_is_unbiased_and_its_gradient_is_that_of_its_own_mask():
    segment_ids, context_end = segments_of([[(4, 3)]], 7)
    mask = make_mask(segment_ids, context_end, (1, 7), "cpu", backend="segments")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 7, 1, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    torch.manual_seed(0)
    many = [x.expand(-1, -1, 4000, -1) for x in (q, k, v)]  # as many heads as draws
    mean = attention(*many, mask, dropout_p=0.4).mean(2, keepdim=True)
    torch.testing.assert_close(mean, attention(q, k, v, mask), rtol=0, atol=0.06)

    def seeded(*qkv: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return attention(*qkv, mask, dropout_p=0.4)

    assert torch.autograd.gradcheck(seeded, [x.requires_grad_() for x in (q, k, v)])


def test_the_split_form_has_the_right_gradient_under_dropout():
    segment_ids, context_end = segments_of([[(200, 60)]], 260)
    mask = make_mask(segment_ids, context_end, (1, 260), "cpu", backend="segments")
    qkv = [torch.randn(1, 260, 1, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    way = [torch.randn_like(x) for x in qkv]
    probe = torch.randn(1, 260, 1, 2, dtype=torch.float64)

    def value(step: float) -> torch.Tensor:
        torch.manual_seed(3)
        return (attention(*(x + step * w for x, w in zip(qkv, way, strict=True)), mask, dropout_p=0.2) * probe).sum()

    value(0.0).backward()
    slope = sum((x.grad * w).sum() for x, w in zip(qkv, way, strict=True))
    torch.testing.assert_close(slope, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_stated_share_and_scales_it(p, dtype):
    assert keep_scale(p) == pytest.approx(1 / (1 - p), rel=1e-3)
    x = torch.linspace(-2, 2, 1000 * 1003).to(dtype).view(1000, 1003).requires_grad_()
    torch.manual_seed(0)
    y = dropout(x, p)
    y.sum().backward()
    scale = torch.tensor(keep_scale(p), dtype=dtype)
    assert sorted(set(x.grad.flatten().tolist())) == [0.0, scale.item()]
    assert torch.equal(y, torch.where(x.grad > 0, (x * keep_scale(p)).detach(), 0))
    assert (x.grad > 0).double().mean().item() == pytest.approx(1 - p, abs=2e-3)
    assert dropout(x, 0.0) is x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_signs_drop_what_dropout_drops_and_keep_all_values(p, dtype):
    x = torch.linspace(1e-3, 2, 1000 * 1003).to(dtype).view(1000, 1003)
    torch.manual_seed(0)
    signed = drop_by_sign(x, p)
    torch.manual_seed(0)
    assert torch.equal(signed.relu() > 0, dropout(x, p) > 0)
    assert torch.equal(signed.abs(), x)


def test_each_of_65536_draws_is_dropped_or_kept_by_its_value_alone(monkeypatch):
    """The limit is met to the last draw at any rate, at both ends of 16 bits too."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    for p in (0.0, 1e-5, 0.1, 0.5, 0.50001, 0.9, 1 - 1e-5):
        monkeypatch.setattr(torch.Tensor, "random_", lambda x, *_: x.copy_(every.view(torch.int64)))
        dropped = drop_by_sign(torch.ones(2**16), p) < 0
        assert torch.equal(dropped, every < round(p * 2**16) - 2**15), p
