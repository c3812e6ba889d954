"""Lengths of what was written: how often they come, how well they fit the right ones, and who did not end."""

from helpers.answered import table

from pipelines.metrics.written.lengths import LengthCalibration, LengthCount, Lengths, lengths


def blank(right: int | None, written: int, *, ended: bool = True) -> dict:
    texts = {"right": None if right is None else "a", "written": "b"}
    return {**texts, "right_tokens": right, "tokens": written, "ended": ended}


def test_lengths_are_counted_and_set_beside_the_right_ones():
    found = lengths(
        table(
            {"blanks": [blank(1, 1), blank(1, 2)]},
            {"blanks": [blank(11, 10)]},
            {"blanks": None},
            {"blanks": [blank(16, 40, ended=False)]},
        )
    )
    assert found == Lengths(
        blanks=4,
        without_end=1,
        histogram=(
            LengthCount("1", 1, 2),
            LengthCount("2", 1, 0),
            LengthCount("9-16", 1, 2),
            LengthCount("33-64", 1, 0),
        ),
        calibration=(LengthCalibration("1", 2, 1.0, 1.5, 50.0), LengthCalibration("9-16", 2, 13.5, 25.0, 0.0)),
    )


def test_without_right_texts_there_is_nothing_to_fit():
    found = lengths(table({"blanks": [blank(None, 3)]}))
    assert found is not None
    assert (found.calibration, found.histogram) == ((), (LengthCount("3", 1, 0),))
    assert lengths(table({"blanks": None})) is None
