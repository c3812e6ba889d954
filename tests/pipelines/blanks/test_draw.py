"""Mixtures and drawing: shares, names, keys, redraws of full rows, and the room that packing reserves."""

import math

import numpy as np
import pytest
from helpers import small

from infra.errors import UserError
from pipelines.blanks.draw import draw_blanks, draw_rows, moments
from pipelines.blanks.form import blanked_batch
from pipelines.blanks.mixture import MIXTURES, BlanksConfig, resolve
from pipelines.feed.examples import mask_ids
from pipelines.ragged import Blanks, RowBatch, take_rows
from pipelines.token_classes import TokenClasses

CLASSES = small.golden_classes()


def segment(blanks: Blanks, index: int) -> tuple[int, list[list[int]]]:
    spans = blanks.spans[blanks.span_offsets[index] : blanks.span_offsets[index + 1]]
    return int(blanks.objective[index]), spans.tolist()


def take(rows: RowBatch, members: list[int]) -> RowBatch:
    return take_rows(rows, [np.array([member]) for member in members])


@pytest.fixture(scope="module")
def rows() -> RowBatch:
    return small.numbers([3 + i % 90 for i in range(400)], [i % 3 == 0 for i in range(400)])


def test_a_draw_depends_on_seed_epoch_and_segment_alone(rows):
    mixture = resolve(BlanksConfig())
    whole = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=2)
    assert set(whole.objective.tolist()) == {0, 1, 2}
    for members in ([17], [399, 3, 200, 4], list(range(399, -1, -1))):
        part = draw_blanks(mixture, take(rows, members), CLASSES, seed=1, epoch=2)
        assert [segment(part, i) for i in range(len(members))] == [segment(whole, m) for m in members]


def test_seeds_epochs_and_attempts_give_other_blanks(rows):
    mixture = resolve(BlanksConfig())
    draws = [
        draw_blanks(mixture, rows, CLASSES, seed=seed, epoch=epoch, attempt=attempt)
        for seed, epoch, attempt in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 0)]
    ]
    long = [i for i, n in enumerate(np.diff(rows.offsets)) if n > 40]
    for a in range(len(draws)):
        for b in range(a):
            same = sum(segment(draws[a], i) == segment(draws[b], i) for i in long)
            assert same < 0.06 * len(long)  # few sentences to choose from, now and then the same ones
    again = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0)
    assert small.contents(again) == small.contents(draws[0])


def test_attempts_may_differ_per_segment(rows):
    mixture = resolve(BlanksConfig())
    attempts = np.arange(400) % 3
    mixed = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0, attempt=attempts)
    each = [draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0, attempt=a) for a in range(3)]
    assert [segment(mixed, i) for i in range(400)] == [segment(each[i % 3], i) for i in range(400)]


def test_objectives_come_in_their_shares():
    rows = small.numbers([5] * 30_000, [False] * 30_000)
    mixture = resolve(BlanksConfig(mixture={"token": 0.6, "sentence": 0.3, "document": 0.1}))
    blanks = draw_blanks(mixture, rows, CLASSES, seed=3, epoch=0)
    for share, count in zip(mixture.shares, np.bincount(blanks.objective), strict=True):
        assert abs(count - 30_000 * share) < 4 * math.sqrt(30_000 * share * (1 - share))


def test_a_share_of_zero_never_comes():
    rows = small.numbers([5] * 2000, [False] * 2000)
    mixture = resolve(BlanksConfig(mixture={"token": 0.0, "document": 1.0, "sentence": 0.0}))
    assert set(draw_blanks(mixture, rows, CLASSES, seed=3, epoch=0).objective.tolist()) == {1}


def test_no_segments_no_blanks():
    blanks = draw_blanks(resolve(BlanksConfig()), small.numbers([], []), CLASSES, seed=0, epoch=0)
    assert (blanks.objective.tolist(), blanks.spans.shape, blanks.span_offsets.tolist()) == ([], (0, 2), [0])


def test_named_mixtures():
    assert {name: sum(shares.values()) for name, shares in MIXTURES.items()} == {
        "glm": 1.0, "glm_doc": 1.0, "glm_sent": 1.0, "glm_multi": 1.0, "gpt": 1.0,
    }  # fmt: skip
    multi = resolve(BlanksConfig())
    assert (multi.names, multi.shares) == (("token", "sentence", "document"), (0.5, 0.3, 0.2))
    assert multi.masks == ("mask", "smask", "gmask")
    assert resolve(BlanksConfig(mask_tokens="one")).masks == ("mask", "mask", "mask")
    gpt = resolve(BlanksConfig(mixture="gpt"))
    assert (gpt.configs[0].min_ratio, gpt.configs[0].suffix_share) == (1.0, 1.0)
    own = resolve(BlanksConfig(mixture="gpt", settings={"document": {"min_ratio": 0.25}}))
    assert (own.configs[0].min_ratio, own.configs[0].suffix_share) == (0.25, 1.0), "a setting wins over the preset"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BlanksConfig(mixture="glm_mutli"), r"unknown mixture 'glm_mutli'; did you mean 'glm_multi'\?"),
        (BlanksConfig(mixture={"token": 0.5, "document": 0.4}), "sums to 0.9, not to 1"),
        (BlanksConfig(mixture={"token": 1.5, "document": -0.5}), "gives document a share of -0.5, which is below 0"),
        (BlanksConfig(mixture={}), "sums to 0, not to 1"),
        (
            BlanksConfig(mixture={"token": 0.5, "dokument": 0.5}),
            r"unknown objective 'dokument'; did you mean 'document'\?",
        ),
        (
            BlanksConfig(mixture="glm", settings={"document": {}}),
            "settings has document, which the mixture does not use",
        ),
        (BlanksConfig(mixture="glm", settings={"token": {"ratios": 0.1}}), r"'ratios'(.|\n)*blanks.settings.token"),
    ],
)
def test_wrong_mixtures_are_refused_by_name(config, message):
    with pytest.raises(UserError, match=message):
        resolve(config)


def test_a_missing_mask_is_refused_with_the_remedy():
    poor = TokenClasses(1, 0, {"mask": 2, "smask": -1, "gmask": 3}, CLASSES.classes)
    with pytest.raises(UserError, match=r"the tokenizer has no smask token(.|\n)*blanks.mask_tokens=one"):
        mask_ids(resolve(BlanksConfig()), poor)
    assert mask_ids(resolve(BlanksConfig(mask_tokens="one")), poor).tolist() == [2, 2, 2]
    assert mask_ids(resolve(BlanksConfig()), CLASSES).tolist() == [2, 993, 992]


def test_a_ragged_batch_carries_each_segments_mask(rows):
    mixture = resolve(BlanksConfig())
    blanks = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0)
    batch = blanked_batch(rows, blanks, mask_ids(mixture, CLASSES))
    assert batch.mask_ids.tolist() == [[2, 993, 992][o] for o in blanks.objective]
    assert batch.objective_ids.tolist() == blanks.objective.tolist()


def two_rows(first: list[int], second: list[int]) -> RowBatch:
    return small.numbers(
        [*first, *second], [False] * (len(first) + len(second)), rows=[0, len(first), len(first) + len(second)]
    )


def expanded(rows: RowBatch, blanks: Blanks) -> list[int]:
    sizes = np.diff(rows.offsets) + 2 * np.diff(blanks.span_offsets)
    return np.add.reduceat(sizes, rows.row_offsets[:-1]).tolist()


def test_rows_that_fit_are_drawn_once():
    rows = two_rows([60, 30], [50])
    mixture = resolve(BlanksConfig(mixture="glm"))
    blanks, redraws = draw_rows(mixture, rows, CLASSES, seed=1, epoch=0, width=512)
    assert redraws.tolist() == [0, 0]
    once = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0)
    assert small.contents(blanks) == small.contents(once)


def test_a_row_that_overflows_is_redrawn_alone():
    rows = two_rows([100, 100, 100], [40])
    mixture = resolve(BlanksConfig(mixture="glm"))
    sizes = [expanded(rows, draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0, attempt=a))[0] for a in range(64)]
    width = min(sizes[1:8])  # met by one of the next draws
    assert sizes[0] > width
    blanks, redraws = draw_rows(mixture, rows, CLASSES, seed=1, epoch=0, width=width)
    attempt = next(a for a, size in enumerate(sizes) if size <= width)
    assert redraws.tolist() == [attempt, 0]
    assert expanded(rows, blanks)[0] == sizes[attempt]
    wanted = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0, attempt=attempt)
    first = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0)
    assert [segment(blanks, i) for i in range(3)] == [segment(wanted, i) for i in range(3)]
    assert segment(blanks, 3) == segment(first, 3), "the row that fits keeps its blanks"
    alone = take_rows(rows, [np.array([0, 1, 2])])
    same, _ = draw_rows(mixture, alone, CLASSES, seed=1, epoch=0, width=width)
    assert [segment(same, i) for i in range(3)] == [segment(blanks, i) for i in range(3)], "a rule on that row alone"


def test_rows_packed_for_another_mixture_are_refused_with_the_command():
    rows = two_rows([100, 100], [40])
    with pytest.raises(UserError, match=r"need more than its 210 positions(.|\n)*workflows/prepare.py"):
        draw_rows(resolve(BlanksConfig(mixture="glm")), rows, CLASSES, seed=1, epoch=0, width=210)


def test_moments_of_a_mixture_are_those_of_its_draws():
    """Expanded size over many epochs, against (mean, variance) of the law of total variance."""
    rows = small.numbers([400, 400], [False, False], ends=0.04, seed=3)
    mixture = resolve(BlanksConfig(mixture={"token": 0.7, "document": 0.3}))
    mean, variance = moments(mixture, rows, CLASSES)
    repeated = small.numbers([], [])
    tokens = np.tile(rows.tokens[:401], 20_000)
    ids = np.arange(20_000, dtype=np.uint64)
    repeated = RowBatch(tokens, np.arange(20_001) * 401, ids, np.zeros(20_000), np.arange(20_001))
    blanks = draw_blanks(mixture, repeated, CLASSES, seed=5, epoch=0)
    sizes = 401 + 2 * np.diff(blanks.span_offsets)
    assert abs(sizes.mean() - mean[0]) < 4 * math.sqrt(variance[0] / 20_000)
    assert abs(sizes.var() / variance[0] - 1) < 0.03
