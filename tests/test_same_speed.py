"""The comparison of speeds: a ratio above 1 says that the newer tree is faster, whichever way a figure counts."""

import pytest
from helpers import benchmark_modules


@pytest.fixture(scope="module")
def same_speed():
    return benchmark_modules.load("same_speed")


def test_seconds_and_rates_both_become_speed(same_speed):
    figures = {"step_s": same_speed.Figure("step_s", False), "rate": same_speed.Figure("rate", True)}
    rounds = [
        {"step_s": (4.0, 2.0), "rate": (10.0, 5.0)},
        {"step_s": (3.0, 3.0), "rate": (10.0, 10.0)},
        {"step_s": (2.0, 4.0), "rate": (10.0, 40.0)},
    ]
    values, ratios = same_speed.summarise(rounds, figures)
    assert values == {"step_s_old": 3.0, "step_s_new": 3.0, "rate_old": 10.0, "rate_new": 10.0}
    assert ratios == {
        **{"step_s": 1.0, "step_s_low": 0.5, "step_s_high": 2.0},
        **{"rate": 1.0, "rate_low": 0.5, "rate_high": 4.0},
    }


def test_an_interval_of_nine_pairs_leaves_out_the_ends(same_speed):
    rounds = [{"s": (float(ratio), 1.0)} for ratio in (9, 1, 8, 2, 7, 3, 6, 4, 5)]
    _, ratios = same_speed.summarise(rounds, {"s": same_speed.Figure("s", False)})
    assert ratios == {"s": 5.0, "s_low": 2.0, "s_high": 8.0}
