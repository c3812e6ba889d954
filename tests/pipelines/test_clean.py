"""Whole expected values of the cleaning rules."""

import pytest

from infra.errors import UserError
from pipelines.clean import CleanConfig, clean, repair

LIGHT = CleanConfig(min_characters=3)
STRICT = CleanConfig(preset="strict", min_characters=3)
PROSE = "The quick brown fox jumps over the lazy dog, and then it sleeps. " * 3


@pytest.mark.parametrize(
    ("text", "expected", "repairs"),
    [
        ("plain text\n\tkept", "plain text\n\tkept", ()),
        ("中文，没有问题。 Straße, naïve, Ärger, âge, Ão", "中文，没有问题。 Straße, naïve, Ärger, âge, Ão", ()),
        ("a\x00b\x0cc\x7f\x9bd", "abcd", ("control",)),
        ("a\r\nb\rc", "a\nb\nc", ("control",)),
        ("ab  \ncd\t\n\nef ", "ab\ncd\n\nef", ("trailing_space",)),
        ("cafe\u0301 au lait", "caf\u00e9 au lait", ("nfc",)),
        ("itâ€™s a cafÃ© in MÃ¼nchen", "it\u2019s a café in München", ("mojibake",)),
        ("itâ\x80\x99s here", "it\u2019s here", ("mojibake",)),
        ("cafÃ© \x00", "café", ("mojibake", "control", "trailing_space")),
    ],
)
def test_light_repairs(text, expected, repairs):
    assert clean(text, LIGHT) == (expected, repairs)
    assert repair(expected) == (expected, ())


def test_short_texts_are_dropped_after_repair():
    assert clean("ab", LIGHT) == "too_short"
    assert clean("ab \x00\x00\n\n  ", LIGHT) == "too_short"
    assert clean("", LIGHT) == "too_short"
    assert clean("abc", LIGHT) == ("abc", ())


def test_off_changes_nothing():
    assert clean("a\x00 ", CleanConfig(preset="off")) == ("a\x00 ", ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("| --- | === | +++ | *** |", "symbol_ratio"),
        ("buy now\n" * 50 + PROSE[:60], "repetition"),
        ("spam " * 1000, "repetition"),
    ],
)
def test_strict_drops(text, reason):
    assert clean(text, STRICT) == reason
    assert clean(text, LIGHT) != reason


@pytest.mark.parametrize("text", [PROSE, "हिन्दी में लिखा हुआ वाक्य है।", "我们在北京学习中文。", "ภาษาไทยเป็นภาษาที่สวยงาม"])
def test_strict_keeps_prose_of_any_script(text):
    assert clean(text, STRICT) == (text.rstrip(" "), ("trailing_space",) if text.endswith(" ") else ())


def no_numbers(text: str) -> str | None:
    return "numbers" if any(c.isdigit() for c in text) else None


def test_rules_of_the_user():
    config = CleanConfig(rules=[f"{__name__}.no_numbers"], min_characters=1)
    assert clean("abc 1", config) == "numbers"
    assert clean("abc", config) == ("abc", ())
    assert clean("!!!?", CleanConfig(rules=["symbol_ratio"], min_characters=1)) == "symbol_ratio"


@pytest.mark.parametrize(("name", "word"), [("symbol_ration", "symbol_ratio"), ("no.such.module", "no.such")])
def test_unknown_rule(name, word):
    with pytest.raises(UserError, match=word):
        clean("some text", CleanConfig(rules=[name], min_characters=1))
