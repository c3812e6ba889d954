"""The layout function (laws 4 and 14): the authors' examples, the paper's picture, packing, and its refusals."""

import json

import numpy as np
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from glm_model.layout import (
    Example,
    Marks,
    Ragged,
    check_spans,
    context_positions,
    expand,
    expanded_lengths,
    layout,
    layout_answers,
    piece_positions,
    prompt,
    restore,
)

ENC, MASK, EOS, SOP, EOP, GMASK, SMASK = 1, 2, 0, 990, 991, 992, 993
MARKS = Marks(sop=SOP, eop=EOP, pad=EOS)

# Worked examples of the authors that show what we do otherwise, and why.
NOT_OURS = {
    "block_position_encoding=False": "ours is a model without the second table (model.block_positions), same arrays",
    "sentinel_token, no shuffle": "met by the ablation: tests/pipelines/blanks/test_ablations.py",
    "gpt suffix (infill draw < gpt_infill_prob)": "no [eop] behind the suffix: such models never learn to stop on it",
    "gpt multi-document sample: always suffix, no infill draw": "as above; a segment of ours holds one document",
    "gpt suffix with an eos as last target": "as above",
    "gap_sentence via construct_blocks": "its second document predicts its own ENC: a bug of the authors",
    "bert, spans do not fit -> sample dropped": "samples are lost silently: ours always get a blank",
    "short sequences": "windows cut from a packed sample: our segments are cut once, at sentence ends",
}
SUFFIX_FORMS = [name for name in NOT_OURS if "suffix" in name]


@pytest.fixture(scope="module")
def golden(shared) -> dict[str, dict]:
    path = shared / "reference" / "golden" / "objective_examples.json"
    if not path.exists():
        pytest.skip("the authors' worked examples are not here (objective_examples.json is absent)")
    return {example["name"]: example for example in json.loads(path.read_text())["examples"]}


def as_lists(example: Example) -> dict[str, list[int]]:
    return {name: array.tolist() for name, array in example.arrays().items()}


def expected(context, pieces, *, places) -> dict[str, list[int]]:
    """Whole arrays of one example out of its context, its pieces and the places of the masks they fill."""
    inputs = [[SOP, *piece] for piece in pieces]
    targets = [[*piece, EOP] for piece in pieces]
    n, total = len(context), len(context) + sum(map(len, inputs))
    return {
        "tokens": [*context, *(t for piece in inputs for t in piece)],
        "targets": [0] * n + [t for piece in targets for t in piece],
        "position_ids": [*range(n), *(at for at, piece in zip(places, inputs, strict=True) for _ in piece)],
        "block_position_ids": [0] * n + [i for piece in inputs for i in range(1, len(piece) + 1)],
        "loss_mask": [0] * n + [1] * (total - n),
        "segment_ids": [0] * total,
        "context_end": [n] * total,
        "objective_ids": [0] * total,
    }


def test_the_authors_canonical_token_example():
    tokens = [ENC, *range(100, 122), EOS]  # text 100 .. 121; blanks {111, 112} and {118, 119, 120}, the later one first
    example = layout(np.array(tokens), np.array([[19, 22], [12, 14]]), mask=MASK, marks=MARKS)
    assert as_lists(example) == expected(
        [ENC, *range(100, 111), MASK, 113, 114, 115, 116, 117, MASK, 121, EOS],
        [[118, 119, 120], [111, 112]],
        places=[18, 12],
    )
    # The rows of glm_facts section 0, typed in.
    assert example.tokens[21:].tolist() == [SOP, 118, 119, 120, SOP, 111, 112]
    assert example.targets[21:].tolist() == [118, 119, 120, EOP, 111, 112, EOP]
    assert example.position_ids.tolist() == [*range(21), 18, 18, 18, 18, 12, 12, 12]
    assert example.block_position_ids.tolist() == [0] * 21 + [1, 2, 3, 4, 1, 2, 3]
    assert example.context_end.tolist() == [21] * 28


def test_the_authors_canonical_document_example():
    tokens = np.array([ENC, *range(100, 110), EOS])
    example = layout(tokens, np.array([[2, 10]]), mask=GMASK, marks=MARKS)
    assert example.tokens.tolist() == [ENC, 100, GMASK, 109, EOS, SOP, *range(101, 109)]
    assert example.targets.tolist() == [0, 0, 0, 0, 0, *range(101, 109), EOP]
    assert example.context_end.tolist() == [5] * 14
    suffix = layout(tokens[:-1], np.array([[4, 11]]), mask=GMASK, marks=MARKS)
    assert suffix.tokens.tolist() == [ENC, 100, 101, 102, GMASK, SOP, *range(103, 110)]
    assert suffix.targets.tolist() == [0, 0, 0, 0, 0, *range(103, 110), EOP]  # the authors' has no [eop]
    assert suffix.position_ids.tolist() == [0, 1, 2, 3, 4] + [4] * 8
    assert suffix.block_position_ids.tolist() == [0] * 5 + list(range(1, 9))


def test_the_papers_picture():
    x1, x2, x3, x4, x5, x6 = 101, 102, 103, 104, 105, 106
    example = layout(np.array([x1, x2, x3, x4, x5, x6]), np.array([[4, 6], [2, 3]]), mask=MASK, marks=MARKS)
    assert example.tokens.tolist() == [x1, x2, MASK, x4, MASK, SOP, x5, x6, SOP, x3]
    assert example.targets.tolist() == [0, 0, 0, 0, 0, x5, x6, EOP, x3, EOP]
    assert example.position_ids.tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 2, 2]
    assert example.block_position_ids.tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
    assert example.loss_mask.tolist() == [0] * 5 + [1] * 5


def test_every_worked_example_of_the_authors_is_met_or_named(golden):
    assert set(NOT_OURS) < set(golden)
    ours = [example for name, example in golden.items() if name not in NOT_OURS]
    assert len(ours) == 9  # random_position with bias 0 is among them
    for example in ours:
        mask = SMASK if example["options"].get("task_mask") else MASK
        got = layout(np.array(example["tokens"]), np.array(example["spans_in_part_b_order"]), mask=mask, marks=MARKS)
        want, sep = example["out"], example["out"]["sep"]
        for name in ("tokens", "position_ids", "block_position_ids", "loss_mask"):
            assert getattr(got, name).tolist() == want[name], (example["name"], name)
        assert got.targets.tolist() == [0] * sep + want["targets"][sep:], example["name"]
        assert got.context_end.tolist() == [sep] * len(want["tokens"]), example["name"]
        assert restore(got).tolist() == example["tokens"], example["name"]


def test_the_authors_suffix_form_lacks_only_its_eop(golden):
    for name in SUFFIX_FORMS:
        example = golden[name]
        for row, sample in enumerate(example["samples"]):
            out = example["out"]
            sep = out["attention_mask"][row]
            size = len(sample) + 1  # theirs: context, mask, pieces without the last token
            got = layout(np.array(sample), np.array([[sep - 1, len(sample)]]), mask=GMASK, marks=MARKS)
            assert got.tokens.tolist() == [*out["text"][row][:size], sample[-1]], name
            assert got.targets[sep:].tolist() == [*out["target"][row][sep:size], EOP], name
            assert got.position_ids[:-1].tolist() == out["position_id"][row][0][:size], name
            assert got.block_position_ids[:-1].tolist() == out["position_id"][row][1][:size], name


def test_a_segment_without_blanks_is_all_context():
    example = layout(np.array([ENC, 100, 101]), np.empty((0, 2)), mask=MASK, marks=MARKS)
    assert as_lists(example) == expected([ENC, 100, 101], [], places=[])


def test_adjacent_blanks_keep_a_mask_each_and_text_may_hold_the_id_of_a_mask():
    tokens = np.array([ENC, MASK, 100, 101, MASK])
    example = layout(tokens, np.array([[3, 4], [2, 3]]), mask=MASK, marks=MARKS)
    assert as_lists(example) == expected([ENC, MASK, MASK, MASK, MASK], [[101], [100]], places=[3, 2])
    assert restore(example).tolist() == tokens.tolist()


def test_rows_are_packed_and_padded():
    batch = Ragged(
        tokens=np.array([ENC, 100, 101, ENC, 102, EOS, ENC, 103]),
        offsets=np.array([0, 3, 6, 8]),
        spans=np.array([[2, 3], [1, 3], [1, 2]]),
        span_offsets=np.array([0, 1, 2, 3]),
        mask_ids=np.array([MASK, GMASK, MASK]),
        objective_ids=np.array([0, 2, 1]),
    )
    assert expanded_lengths(batch.offsets, batch.span_offsets).tolist() == [5, 5, 4]
    rows = as_lists(expand(batch, np.array([0, 2, 2, 3]), width=12, marks=MARKS))  # the second row is empty
    assert rows == {
        "tokens": [
            [ENC, 100, MASK, SOP, 101, ENC, GMASK, SOP, 102, EOS, EOS, EOS],
            [EOS] * 12,
            [ENC, MASK, SOP, 103] + [EOS] * 8,
        ],
        "targets": [
            [0, 0, 0, 101, EOP, 0, 0, 102, EOS, EOP, 0, 0],
            [0] * 12,
            [0, 0, 103, EOP] + [0] * 8,
        ],
        "position_ids": [[0, 1, 2, 2, 2, 0, 1, 1, 1, 1, 0, 0], [0] * 12, [0, 1, 1, 1] + [0] * 8],
        "block_position_ids": [[0, 0, 0, 1, 2, 0, 0, 1, 2, 3, 0, 0], [0] * 12, [0, 0, 1, 2] + [0] * 8],
        "loss_mask": [[0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0], [0] * 12, [0, 0, 1, 1] + [0] * 8],
        "segment_ids": [[0] * 5 + [1] * 5 + [-1, -1], [-1] * 12, [0] * 4 + [-1] * 8],
        "context_end": [[3] * 5 + [7] * 5 + [0, 0], [0] * 12, [2] * 4 + [0] * 8],
        "objective_ids": [[0] * 5 + [2] * 5 + [0, 0], [0] * 12, [1] * 4 + [0] * 8],
    }


def test_rows_without_any_segment_are_padding():
    nothing = Ragged(*(np.zeros(n, np.int64) for n in (0, 1)), np.zeros((0, 2), np.int64), np.zeros(1, np.int64),
                     np.zeros(0, np.int64), np.zeros(0, np.int64))  # fmt: skip
    rows = expand(nothing, np.array([0, 0]), width=3, marks=MARKS)
    assert as_lists(rows) == {
        **{name: [[0, 0, 0]] for name in rows.arrays()},
        "tokens": [[EOS] * 3],
        "segment_ids": [[-1] * 3],
    }


@given(small.blanked_segments(), st.integers(0, 5))
def test_packed_rows_hold_the_examples_alone(parts, slack):
    alone = [layout(tokens, spans, mask=mask, marks=MARKS) for tokens, spans, mask in parts]
    cut = len(parts) // 2
    bounds = np.array([0, cut, len(parts)])
    sizes = [len(example.tokens) for example in alone]
    width = max(sum(sizes[:cut]), sum(sizes[cut:])) + slack
    batch = Ragged(
        np.concatenate([tokens for tokens, _, _ in parts]),
        np.cumsum([0, *(len(tokens) for tokens, _, _ in parts)]),
        np.concatenate([spans for _, spans, _ in parts]),
        np.cumsum([0, *(len(spans) for _, spans, _ in parts)]),
        np.array([mask for _, _, mask in parts]),
        np.arange(len(parts)),
    )
    rows = expand(batch, bounds, width=width, marks=MARKS)
    for row in (0, 1):
        at = 0
        for place, index in enumerate(range(bounds[row], bounds[row + 1])):
            one, here = alone[index], slice(at, at + sizes[index])
            for name in ("tokens", "targets", "position_ids", "block_position_ids", "loss_mask"):
                assert getattr(rows, name)[row, here].tolist() == getattr(one, name).tolist(), name
            assert (rows.segment_ids[row, here] == place).all()
            assert (rows.objective_ids[row, here] == index).all()
            assert (rows.context_end[row, here] == at + one.context_end).all()
            at += sizes[index]
        assert (rows.segment_ids[row, at:] == -1).all()
        assert not rows.loss_mask[row, at:].any()
    for example, (tokens, _, _) in zip(alone, parts, strict=True):
        assert restore(example).tolist() == tokens.tolist()


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[1, 1]], r"span \(1, 1\) of segment 0 is empty: the segment has 4 tokens"),
        ([[3, 2]], r"span \(3, 2\) of segment 0 is empty"),
        ([[1, 2], [-1, 1]], r"span \(-1, 1\) of segment 0 is out of range"),
        ([[1, 5]], r"span \(1, 5\) of segment 0 is out of range"),
        ([[2, 4], [1, 3]], r"spans \(1, 3\) and \(2, 4\) of segment 0 overlap: each token may be blanked once"),
        ([[1, 2], [1, 2]], r"spans \(1, 2\) and \(1, 2\) of segment 0 overlap"),
    ],
)
def test_impossible_spans_are_refused(spans, message):
    with pytest.raises(ValueError, match=message):
        layout(np.array([ENC, 100, 101, 102]), np.array(spans), mask=MASK, marks=MARKS)


@pytest.mark.parametrize("tokens", [[1.0, 2.0, 3.0], [[1, 2], [3, 4]], ["a", "b"], 7, [True, False]])
def test_tokens_that_are_no_ids_of_one_segment_are_refused(tokens):
    with pytest.raises(ValueError, match=r"expected whole numbers: tokens \[n\], the ids of one segment, .* got "):
        layout(tokens, [(0, 1)], mask=MASK, marks=MARKS)


@pytest.mark.parametrize("spans", [[(0.5, 2.0)], [("a", "b")]])
def test_spans_that_are_no_whole_numbers_are_refused(spans):
    with pytest.raises(ValueError, match=r"expected whole numbers: .* and spans \[k, 2\], got "):
        layout([ENC, 100, 101], spans, mask=MASK, marks=MARKS)


def test_spans_are_checked_segment_by_segment():
    def batch(spans, span_offsets):
        return Ragged(
            np.zeros(5), np.array([0, 2, 5]), np.array(spans), np.array(span_offsets), np.zeros(2), np.zeros(2)
        )

    check_spans(batch([[0, 2], [0, 3]], [0, 1, 2]))  # equal places of two segments do not clash
    with pytest.raises(ValueError, match=r"span \(1, 3\) of segment 0 is out of range: the segment has 2 tokens"):
        check_spans(batch([[1, 3], [0, 1]], [0, 1, 2]))
    with pytest.raises(ValueError, match=r"spans \(0, 2\) and \(1, 3\) of segment 1 overlap"):
        check_spans(batch([[1, 3], [0, 2]], [0, 0, 2]))


def test_a_row_that_is_too_narrow_is_refused():
    batch = Ragged(
        np.arange(6), np.array([0, 3, 6]), np.array([[1, 2]]), np.array([0, 0, 1]), np.full(2, 2), np.zeros(2)
    )
    with pytest.raises(ValueError, match="row 0 needs 8 positions and has 7: use a wider row, or fewer segments in it"):
        expand(batch, np.array([0, 2]), width=7, marks=MARKS)
    assert expand(batch, np.array([0, 2]), width=8, marks=MARKS).tokens.shape == (1, 8)


def test_prompts_and_their_positions_are_those_of_training():
    asked = prompt(np.array([ENC, MASK, 100, GMASK]), masks=(MASK, GMASK, SMASK))
    assert asked.tokens.tolist() == [ENC, MASK, 100, GMASK]
    assert asked.mask_positions.tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"no mask, so there is nothing to fill. Put \[MASK\] where"):
        prompt(np.array([ENC, 100]), masks=(MASK,))

    trained = layout(np.array([ENC, 100, 101, 102]), np.array([[2, 4]]), mask=MASK, marks=MARKS)
    end = int(trained.context_end[0])
    positions, block = context_positions(end)
    assert (positions.tolist(), block.tolist()) == (
        trained.position_ids[:end].tolist(),
        trained.block_position_ids[:end].tolist(),
    )
    whole = piece_positions(2, 1, 3)
    assert [a.tolist() for a in whole] == [
        trained.position_ids[end:].tolist(),
        trained.block_position_ids[end:].tolist(),
    ]
    step = piece_positions(2, 3, 1)  # one input at a time, with a cache
    assert [a.tolist() for a in step] == [[2], [3]]


@pytest.mark.parametrize(
    ("tokens", "form"),
    [
        ([1.5, 2.0], r"float64 \[2\]"),
        ([1.0, 2.0], r"float64 \[2\]"),
        ([True, False], r"bool \[2\]"),
        (["1"], r"<U1 \[1\]"),
        ([[1, 2]], r"int64 \[1, 2\]"),
        (1, r"int64 \[\]"),
    ],
)
def test_prompts_and_answers_that_are_no_ids_of_one_text_are_refused(tokens, form):
    """[1.5, 2.0] would become [1, 2], a text with the mask 1."""
    with pytest.raises(ValueError, match=rf"^tokens: expected whole numbers, the ids of one text, got {form}$"):
        prompt(tokens, masks=(1,))
    asked = prompt([ENC, MASK, MASK], masks=(MASK,))
    with pytest.raises(ValueError, match=rf"^the answer of mask 1: expected whole numbers, .* got {form}$"):
        layout_answers(asked, [np.array([200]), tokens], marks=MARKS)


@pytest.mark.parametrize(
    ("tokens", "answers"),
    [
        ([ENC, MASK, 100, 101], [[200]]),  # first
        ([ENC, 100, MASK, 101], [[200, 201, 202]]),  # in the middle, an answer of several tokens
        ([ENC, 100, 101, GMASK], [[200, 201]]),  # last: a summary, a continuation
        ([MASK], [[200]]),
        ([ENC, SMASK, 100, MASK, GMASK], [[200, 201], [202], [203, 204, 205]]),
    ],
)
def test_answers_are_laid_out_as_blanks_are(tokens, answers):
    """The context stays as it was asked; each piece carries its mask's place; restored, it is the text."""
    asked = prompt(np.array(tokens), masks=(MASK, GMASK, SMASK))
    example = layout_answers(asked, [np.array(a) for a in answers], marks=MARKS)
    assert as_lists(example) == expected(tokens, answers, places=asked.mask_positions.tolist())
    answer = iter(answers)
    assert restore(example).tolist() == [
        t for token in tokens for t in (next(answer) if token in (MASK, GMASK, SMASK) else [token])
    ]


def test_answers_in_another_order_and_their_refusals():
    asked = prompt(np.array([ENC, MASK, 100, SMASK]), masks=(MASK, SMASK))
    example = layout_answers(asked, [np.array([200]), np.array([201, 202])], marks=MARKS, order=np.array([1, 0]))
    assert as_lists(example) == expected([ENC, MASK, 100, SMASK], [[201, 202], [200]], places=[3, 1])
    with pytest.raises(ValueError, match=r"one answer per mask.*\(answers: 1, masks: 2\)"):
        layout_answers(asked, [np.array([200])], marks=MARKS)
    with pytest.raises(ValueError, match="answer of mask 1 is empty"):
        layout_answers(asked, [np.array([200]), np.array([], np.int64)], marks=MARKS)
