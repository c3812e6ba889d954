"""Laws 1 and 2 for every objective that stands in pipelines/objectives: a new file is tested at once.

Law 1: the layout loses nothing. Law 2: the loss covers exactly the blanks, each blanked token once, and each piece
ends in [eop]. An objective that predicts in place declares itself: there the targets stand where they were, and no
[eop] does.
"""

from dataclasses import replace

import numpy as np
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from glm_model.layout import Example, check_spans, expand, restore
from infra.errors import UserError
from pipelines import objectives, plugins
from pipelines.blanks.ablations import InPlace
from pipelines.blanks.draw import draw_blanks
from pipelines.blanks.form import blanked_batch
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.feed.examples import lay_out, mask_ids
from pipelines.ragged import Blanks, RowBatch, take_rows

CLASSES = small.golden_classes()
EXTREMES = {
    "token": [{"ratio": 0.001}, {"ratio": 0.5}, {"ratio": 1.0}, {"mean_length": 30.0}, {"max_length": 1, "ratio": 0.9}],
    "sentence": [{"ratio": 0.001}, {"ratio": 1.0}],
    "masked_lm": [{"ratio": 0.001}, {"ratio": 1.0}, {"random_share": 0.0, "kept_share": 0.0}, {"random_share": 0.9}],
    "document": [{"min_ratio": 0.01}, {"min_ratio": 1.0}, {"suffix_share": 0.0}, {"suffix_share": 1.0}],
}
CASES = [(name, extreme) for name in plugins.names(objectives) for extreme in [{}, *EXTREMES.get(name, [])]]


def draw(name: str, settings: dict, rows: RowBatch, *, seed: int) -> tuple[Blanks, Mixture]:
    mixture = resolve(BlanksConfig(mixture={name: 1.0}, settings={name: settings}))
    return draw_blanks(mixture, rows, CLASSES, seed=seed, epoch=0), mixture


def laid_out(rows: RowBatch, blanks: Blanks, mixture: Mixture) -> list[Example]:
    """One example per segment, without padding."""
    batch = blanked_batch(rows, blanks, mask_ids(mixture, CLASSES))
    check_spans(batch)
    sizes = np.diff(rows.offsets) + 2 * np.diff(blanks.span_offsets)
    each = np.arange(len(sizes) + 1)
    batch = expand(batch, each, width=int(sizes.max()), marks=small.GOLDEN_MARKS)
    return [
        Example(**{name: array[i, : sizes[i]] for name, array in batch.arrays().items()}) for i in range(len(sizes))
    ]


def assert_laws(rows: RowBatch, blanks: Blanks, mixture: Mixture) -> None:
    if isinstance(mixture.form, InPlace):
        assert_laws_in_place(rows, blanks, mixture)
        return
    mask = mask_ids(mixture, CLASSES)[0]
    for i, example in enumerate(laid_out(rows, blanks, mixture)):
        tokens = rows.tokens[rows.offsets[i] : rows.offsets[i + 1]]
        spans = blanks.spans[blanks.span_offsets[i] : blanks.span_offsets[i + 1]]
        text_end = len(tokens) - (tokens[-1] == CLASSES.eos)
        assert restore(example).tolist() == tokens.tolist()  # law 1

        assert len(spans) >= 1
        assert spans.min() >= 1, "[CLS] is never blanked"
        assert spans[:, 0].max() < text_end, "each blank holds text, not eos alone"
        # Law 2: reading the inputs and the targets of the predicted part gives the blanks, in order, [eop] behind each.
        end = int(example.context_end[0])
        blanked = [tokens[a:b].tolist() for a, b in spans]
        assert example.targets[end:].tolist() == [t for piece in blanked for t in [*piece, small.GOLDEN_MARKS.eop]]
        assert example.tokens[end:].tolist() == [t for piece in blanked for t in [small.GOLDEN_MARKS.sop, *piece]]
        assert example.loss_mask.tolist() == [0] * end + [1] * (len(example.tokens) - end)
        assert not example.targets[:end].any()
        assert end == len(tokens) - sum(map(len, blanked)) + len(spans)
        assert (example.tokens[:end] == mask).sum() == len(spans)  # the texts here hold no mask of their own


def assert_laws_in_place(rows: RowBatch, blanks: Blanks, mixture: Mixture) -> None:
    sizes, each = np.diff(rows.offsets), np.arange(len(rows.offsets))
    settings = small.golden_settings(mixture, width=int(sizes.max()))
    batch = lay_out(replace(rows, row_offsets=each), blanks, settings)
    for i, size in enumerate(sizes):
        tokens = rows.tokens[rows.offsets[i] : rows.offsets[i + 1]]
        spans = blanks.spans[blanks.span_offsets[i] : blanks.span_offsets[i + 1]]
        masked = np.zeros(size, bool)
        for start, end in spans:
            masked[start:end] = True
        assert masked.any()
        assert masked.sum() == (spans[:, 1] - spans[:, 0]).sum(), "each token is predicted once"
        assert not masked[0], "[CLS] is never predicted"
        assert not masked[len(tokens) - (tokens[-1] == CLASSES.eos) :].any()
        assert np.where(masked, batch.targets[i, :size], batch.tokens[i, :size]).tolist() == tokens.tolist()  # law 1
        assert batch.loss_mask[i, :size].tolist() == masked.tolist()  # law 2
        assert not batch.targets[i][batch.loss_mask[i] == 0].any()
        assert (batch.context_end[i, :size] == size).all()


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_laws_1_and_2_for_every_length(name, changes):
    lengths = [n for n in [*range(1, 41), 512] for _ in range(8)]
    rows = small.numbers(lengths, [i % 2 == 0 for i in range(len(lengths))], ends=0.1)
    for seed in (0, 1):
        assert_laws(rows, *draw(name, changes, rows, seed=seed))


@pytest.mark.parametrize("name", plugins.names(objectives))
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    eos=st.integers(0, 31),
    ends=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)
def test_laws_1_and_2_for_any_seed(name, lengths, eos, ends, seed):
    rows = small.numbers(lengths, [bool(eos >> i & 1) for i in range(len(lengths))], seed=seed % 1000, ends=ends)
    assert_laws(rows, *draw(name, {}, rows, seed=seed))


@pytest.mark.parametrize("name", plugins.names(objectives))
def test_an_objective_keeps_its_contract(name):
    module = objectives.find(name)
    assert module.MASK in CLASSES.masks
    rows = small.numbers([1, 5, 40, 200] * 10, [True, False] * 20)
    batch = objectives.SegmentBatch(rows.tokens, rows.offsets, rows.ids, CLASSES)
    before = rows.tokens.copy()
    spans, offsets = module.spans(batch, module.Config())
    assert (spans.dtype, spans.shape[1:], offsets.dtype, offsets.shape) == (np.int64, (2,), np.int64, (41,))
    assert (offsets[0], offsets[-1]) == (0, len(spans))
    mean, variance = module.blank_moments(batch, module.Config())
    assert mean.shape == variance.shape == (40,)
    assert (mean >= 1).all()
    assert (variance >= 0).all()
    assert (rows.tokens == before).all(), "an objective changes no token"


@pytest.mark.parametrize("name", plugins.names(objectives))
def test_what_a_segment_gets_depends_on_itself_alone(name):
    """Neither on its neighbours nor on its place among them: the reason why Ray Data may draw what training would."""
    rows = small.numbers([n for n in [1, 2, 7, 30, 100, 512] for _ in range(5)], [i % 3 == 0 for i in range(30)])
    whole, _ = draw(name, {}, rows, seed=5)
    for members in ([7], [29, 0, 13], list(range(29, -1, -1))):
        part = take_rows(rows, [np.array([member]) for member in members])
        blanks, _ = draw(name, {}, part, seed=5)
        for place, member in enumerate(members):
            here = blanks.spans[blanks.span_offsets[place] : blanks.span_offsets[place + 1]]
            there = whole.spans[whole.span_offsets[member] : whole.span_offsets[member + 1]]
            assert here.tolist() == there.tolist()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("token", {"ratio": 0.0}, r"objective token: ratio=0.0 is outside \(0, 1\]"),
        ("token", {"ratio": 1.01}, r"ratio=1.01 is outside"),
        ("token", {"ratio": -0.1}, r"ratio=-0.1 is outside"),
        ("token", {"mean_length": 0.0}, "leave no blank"),
        ("token", {"max_length": 0}, "leave no blank"),
        ("sentence", {"ratio": 0.0}, r"objective sentence: ratio=0.0 is outside \(0, 1\]"),
        ("sentence", {"ratio": 2.0}, "ratio=2.0 is outside"),
        ("document", {"min_ratio": 0.0}, r"objective document: min_ratio=0.0 is outside \(0, 1\]"),
        ("document", {"min_ratio": 1.5}, "min_ratio=1.5 is outside"),
        ("document", {"suffix_share": -0.5}, r"suffix_share=-0.5 is outside \[0, 1\]"),
        ("document", {"suffix_share": 1.5}, "suffix_share=1.5 is outside"),
        ("document", {"min_ration": 0.5}, "min_ration"),
        ("masked_lm", {"ratio": 0.0}, r"objective masked_lm: ratio=0.0 is outside \(0, 1\]"),
        ("masked_lm", {"random_share": 0.8, "kept_share": 0.3}, "random_share=0.8 and kept_share=0.3 do not fit"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name, settings, message):
    with pytest.raises(UserError, match=message):
        resolve(BlanksConfig(mixture={name: 1.0}, settings={name: settings}))
