"""What a form says of a segment before it is laid out is what lies in its arrays afterwards."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import small

from pipelines.blanks.draw import draw_blanks
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed.examples import lay_out

FORMS = {
    "glm": {"mixture": "glm_multi"},
    "sentinels": {"mask_tokens": "sentinel"},
    "noise": {"noise": 0.5},
    "in place": {"mixture": {"masked_lm": 1.0}},
}


@pytest.mark.parametrize("name", FORMS)
def test_positions_targets_and_visible_pairs_are_those_of_the_arrays(name):
    mixture = resolve(BlanksConfig(**FORMS[name]))
    rows = small.numbers([1, 2, 9, 30, 64], [True, False, True, False, True])
    rows = replace(rows, row_offsets=np.arange(6))
    blanks = draw_blanks(mixture, rows, small.golden_classes(), seed=1, epoch=0)
    example = lay_out(rows, blanks, small.golden_settings(mixture, width=200))
    inside = example.segment_ids == 0
    assert mixture.form.positions(rows, blanks).tolist() == inside.sum(axis=1).tolist()
    assert mixture.form.targets(blanks).tolist() == example.loss_mask.sum(axis=1).tolist()
    pairs = []
    for row in range(5):
        place = np.flatnonzero(inside[row])
        context = place < example.context_end[row, 0]
        pairs.append(int((context[None, :] | (place[None, :] <= place[:, None])).sum()))
    assert mixture.form.visible_pairs(rows, blanks).tolist() == pairs
