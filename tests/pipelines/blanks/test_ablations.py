"""The paper's ablations: what they change, and that they change nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from glm_model.layout import Marks, Ragged, expand
from infra.errors import UserError
from pipelines.blanks import ablations
from pipelines.blanks.draw import draw_blanks
from pipelines.blanks.form import RowLayout
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.feed.examples import lay_out
from pipelines.ragged import Blanks, RowBatch

CLASSES = small.golden_classes()
MARKS = small.GOLDEN_MARKS


@pytest.fixture(scope="module")
def rows() -> RowBatch:
    return small.numbers([60, 200, 7, 400, 1], [True, False, True, False, True])


def draw_with(rows: RowBatch, **config) -> tuple[Blanks, Mixture]:
    mixture = resolve(BlanksConfig(**{"mixture": "glm", **config}))
    return draw_blanks(mixture, rows, CLASSES, seed=3, epoch=0), mixture


def laid_out(rows: RowBatch, blanks: Blanks, mixture: Mixture):
    each = replace(rows, row_offsets=np.arange(len(rows.ids) + 1))
    return lay_out(each, blanks, small.golden_settings(mixture, width=600))


def test_left_to_right_sorts_the_blanks_and_keeps_them(rows):
    mixture = resolve(BlanksConfig(mixture="glm", order="left_to_right"))
    free, _ = draw_with(rows)
    ordered = draw_blanks(mixture, rows, CLASSES, seed=3, epoch=0)
    assert ordered.span_offsets.tolist() == free.span_offsets.tolist()
    for first, last in zip(free.span_offsets[:-1], free.span_offsets[1:], strict=True):
        assert ordered.spans[first:last].tolist() == sorted(free.spans[first:last].tolist())
    assert ordered.spans.tolist() != free.spans.tolist()


def test_sentinels_are_the_authors():
    """Their worked example `sentinel_token, no shuffle`: the first blank plain, the others numbered."""
    tokens = np.array([1, 100, 101, 102, 103, 104, 10, 106, 107, 108, 109, 110, 111, 112, 10, 114])
    spans = np.array([[2, 4], [6, 7], [10, 13]])
    layout = RowLayout(np.array([2]), MARKS, vocab_size=995, width=22, sequence_length=32)
    numbered = ablations.number_blanks(np.array([0, 3]), layout)
    assert numbered.mask_ids.tolist() == [2, 995, 997]
    assert numbered.sop_ids.tolist() == [990, 996, 998]
    one = Ragged(tokens, np.array([0, 16]), spans, np.array([0, 3]), np.array([2]), np.array([0]), numbered)
    example = expand(one, np.array([0, 1]), width=22, marks=MARKS)
    assert example.tokens[0].tolist() == [1, 100, 2, 103, 104, 995, 106, 107, 108, 997, 112, 10, 114,
                                          990, 101, 102, 996, 10, 998, 109, 110, 111]  # fmt: skip
    assert example.position_ids[0].tolist() == [*range(13), *[32] * 9]
    assert example.block_position_ids[0].tolist() == [0] * 13 + [1, 2, 3, 1, 2, 1, 2, 3, 4]


def test_more_blanks_than_sentinels_share_the_last():
    layout = RowLayout(np.array([2]), Marks(3, 4, 0), vocab_size=1000, width=600, sequence_length=9)
    numbered = ablations.number_blanks(np.array([0, 130, 131]), layout)
    last = 1000 + 2 * (ablations.NUM_SENTINELS - 1)
    assert numbered.mask_ids[[0, 1, 127, 128, 129, 130]].tolist() == [2, 1000, last, last, last, 2]
    assert numbered.sop_ids.max() == last + 1 == 1000 + ablations.extra_tokens(sentinels=True, noise=False) - 1


def test_sentinels_change_masks_sops_and_places_alone(rows):
    plain, numbered = (laid_out(rows, *draw_with(rows, mask_tokens=kind)) for kind in ("one", "sentinel"))
    for name in ("targets", "block_position_ids", "loss_mask", "segment_ids", "context_end", "objective_ids"):
        assert np.array_equal(getattr(plain, name), getattr(numbered, name)), name
    differs = plain.tokens != numbered.tokens
    assert set(plain.tokens[differs]) == {2, MARKS.sop}
    assert numbered.tokens[differs].min() >= len(CLASSES.classes)
    moved = plain.position_ids != numbered.position_ids
    assert (plain.loss_mask[moved] == 1).all()
    assert set(numbered.position_ids[plain.loss_mask == 1]) == {512}


def test_noise_hides_its_share_of_what_is_read_and_nothing_that_is_predicted():
    many = small.numbers([400] * 200, [False] * 200)
    plain, noisy = (laid_out(many, *draw_with(many, noise=noise)) for noise in (0.0, 0.1))
    assert np.array_equal(plain.targets, noisy.targets)
    hidden = plain.tokens != noisy.tokens
    assert set(noisy.tokens[hidden]) == {len(CLASSES.classes)}
    read = (plain.loss_mask == 1) & (plain.tokens != MARKS.sop)
    assert not hidden[~read].any()
    share, count = hidden.sum() / read.sum(), read.sum()
    assert abs(share - 0.1) < 4 * np.sqrt(0.09 / count)


def test_noise_is_other_noise_in_another_epoch_and_the_same_in_any_company(rows):
    mixture = resolve(BlanksConfig(mixture={"document": 1.0}, settings={"document": {"min_ratio": 1.0}}, noise=0.5))
    same = draw_blanks(mixture, rows, CLASSES, seed=3, epoch=0)
    alone = RowBatch(rows.tokens[: rows.offsets[1]], rows.offsets[:2], rows.ids[:1], rows.num_bytes[:1], np.arange(2))
    own = draw_blanks(mixture, alone, CLASSES, seed=3, epoch=0)
    assert np.array_equal(laid_out(rows, same, mixture).tokens[0], laid_out(alone, own, mixture).tokens[0])
    token = resolve(BlanksConfig(mixture="glm", noise=0.5))
    first, second = (laid_out(rows, draw_blanks(token, rows, CLASSES, seed=3, epoch=e), token) for e in (0, 1))
    assert not np.array_equal(first.tokens, second.tokens)


def test_bert_s_shares_of_masks_random_and_kept_tokens():
    many = small.numbers([400] * 300, [False] * 300)
    blanks, mixture = draw_with(many, mixture={"masked_lm": 1.0})
    example = laid_out(many, blanks, mixture)
    at = example.loss_mask == 1
    assert at.sum() == 300 * 60
    masked = (example.tokens[at] == 2).mean()
    kept = (example.tokens[at] == example.targets[at]).mean()
    assert abs(masked - 0.8) < 0.015
    assert abs(kept - 0.1) < 0.01
    assert example.block_position_ids.max() == 0


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**32))
def test_masked_rows_hold_their_segments_in_place(lengths, seed):
    few = small.numbers(lengths, [bool(n % 2) for n in lengths], seed=seed % 1000)
    packed = replace(few, row_offsets=np.array([0, len(lengths)]))
    mixture = resolve(BlanksConfig(mixture={"masked_lm": 1.0}))
    blanks = draw_blanks(mixture, few, CLASSES, seed=seed, epoch=0)
    total = int(few.offsets[-1])
    row = lay_out(packed, blanks, small.golden_settings(mixture, width=total + 2))
    restored = np.where(row.loss_mask[0] == 1, row.targets[0], row.tokens[0])[:total]
    assert restored.tolist() == few.tokens.tolist()
    assert row.context_end[0, :total].tolist() == np.repeat(few.offsets[1:], np.diff(few.offsets)).tolist()
    assert row.tokens[0, total:].tolist() == [MARKS.pad] * 2
    with pytest.raises(ValueError, match="use a wider row"):
        lay_out(packed, blanks, small.golden_settings(mixture, width=total - 1))


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(UserError, match="masked_lm cannot be mixed"):
        resolve(BlanksConfig(mixture={"masked_lm": 0.5, "token": 0.5}))
    with pytest.raises(UserError, match=r"blanks\.noise=1 is outside"):
        resolve(BlanksConfig(noise=1.0))


def test_the_vocabulary_grows_by_what_the_form_needs():
    assert resolve(BlanksConfig()).form.extra_tokens == 0
    assert resolve(BlanksConfig(noise=0.1)).form.extra_tokens == 1
    assert resolve(BlanksConfig(mask_tokens="sentinel")).form.extra_tokens == 254
    assert resolve(BlanksConfig(mask_tokens="sentinel", noise=0.1)).form.extra_tokens == 255
