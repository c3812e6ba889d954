"""Calibration of shares: golden cases by hand, and what has none."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.metrics.calibration import calibration, of_shares
from pipelines.metrics.items import SCHEMA

# name, shares, gold, ece, brier
GOLDEN = [
    ("sure and right", [[1.0, 0.0], [0.0, 1.0]], [0, 1], 0.0, 0.0),
    ("sure and wrong", [[1.0, 0.0], [0.0, 1.0]], [1, 0], 100.0, 100.0),
    ("half right at one half", [[0.5, 0.5]] * 4, [0, 1, 0, 1], 0.0, 25.0),
    ("three of four right at 0.9", [[0.9, 0.1]] * 4, [0, 0, 0, 1], 15.0, 100 * (3 * 0.01 + 0.81) / 4),
    ("two bins", [[0.9, 0.1], [0.6, 0.4]], [0, 1], 100 * (0.1 + 0.6) / 2, 100 * (0.01 + 0.36) / 2),
    ("a label that is never gold", [[0.2, 0.3, 0.5]], [2], 50.0, 100 * (0.04 + 0.09 + 0.25) / 2),
]


@pytest.mark.parametrize(("shares", "gold", "ece", "brier"), [case[1:] for case in GOLDEN], ids=[c[0] for c in GOLDEN])
def test_golden_cases(shares, gold, ece, brier):
    found = of_shares(np.array(shares), np.array(gold))
    assert (found.ece, found.brier) == pytest.approx((ece, brier), abs=1e-9)


def items(logprobs: list[list[float]], gold: list[int | None]) -> pa.Table:
    empty = dict.fromkeys(SCHEMA.names)
    rows = [
        empty | {"item": str(n), "logprobs": p, "gold": g} for n, (p, g) in enumerate(zip(logprobs, gold, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_only_items_with_a_known_answer_count():
    table = items([[0.0, -np.log(3)], [-9.0, -2.0]], [1, None])
    found = calibration(table, classes=2)
    assert found is not None
    assert (found.ece, found.brier) == pytest.approx((75.0, 56.25))


def test_items_with_candidates_of_their_own_have_none():
    assert calibration(items([[0.0, -1.0]], [0]), classes=0) is None
    assert calibration(items([[0.0, -1.0]], [None]), classes=2) is None
