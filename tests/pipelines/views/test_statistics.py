"""Histograms of blanks: counted by hand, and beside theory."""

import numpy as np
from helpers import small

from pipelines.blanks.draw import draw_blanks
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.ragged import Blanks
from pipelines.views.statistics import histograms

CLASSES = small.golden_classes()


def test_counted_by_hand():
    rows = small.numbers([10, 20], [False, True])
    blanks = Blanks(np.array([0, 0], np.uint8), np.array([[1, 3], [5, 6], [2, 4]]), np.array([0, 2, 3]))
    mixture = resolve(BlanksConfig(mixture="glm"))
    lengths, numbers, share = histograms(mixture, rows, blanks, CLASSES)
    assert (lengths.title, lengths.labels, lengths.count) == (
        "token: length of a blank, in tokens",
        ["1", "2", "3+"],
        3,
    )
    assert lengths.observed.tolist() == [1 / 3, 2 / 3, 0]
    assert lengths.theory is not None
    assert np.allclose(lengths.theory, [0.157187, 0.235781, 1 - 0.157187 - 0.235781], atol=1e-6)
    assert (numbers.labels, numbers.observed.tolist()) == (["1", "2+"], [0.5, 0.5])
    assert share.observed[[2, 6]].tolist() == [0.5, 0.5]  # 2 of 20 and 3 of 10 text tokens
    assert share.labels[2] == "10 %"


def test_observed_is_near_theory_in_long_segments():
    rows = small.numbers([500] * 400, [False] * 400)
    mixture = resolve(BlanksConfig(mixture="glm"))
    blanks = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0)
    lengths = histograms(mixture, rows, blanks, CLASSES)[0]
    assert lengths.theory is not None
    assert abs(lengths.theory.sum() - 1) < 1e-12
    assert np.abs(lengths.observed - lengths.theory).max() < 5 * np.sqrt(0.25 / lengths.count)


def test_one_blank_a_segment_is_shown_by_its_share_alone():
    rows = small.numbers([100] * 50, [False] * 50)
    mixture = resolve(BlanksConfig(mixture="gpt"))
    blanks = draw_blanks(mixture, rows, CLASSES, seed=1, epoch=0)
    (share,) = histograms(mixture, rows, blanks, CLASSES)
    assert share.title == "document: blanked share of the text"
    assert share.observed.tolist() == [0.0] * 19 + [1.0]
