"""What each type of setting makes of a text: on the command line, in a recipe, and after `--print_config`."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from infra.config import Count, from_yaml, parse, to_yaml
from infra.errors import UserError


@dataclass
class Kinds:
    whole: int = -1
    real: float = -1.0
    count: Count = Count(1)
    flag: bool = False
    text: str = "default"
    maybe_text: str | None = "default"
    maybe_whole: int | None = -1
    maybe_count: Count | None = Count(1)
    maybe_flag: bool | None = None
    wholes: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    either: int | list[int] | None = -1
    form: Literal["null", "on"] = "on"
    weights: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


# fmt: off
WHOLE = {"5": 5, "+5": 5, "-5": -5, "0": 0, "1_000": 1000, "12345678901234567890": 12345678901234567890}
REAL = WHOLE | {"5.0": 5.0, "1e3": 1e3, "1E-4": 1e-4, "5.": 5.0, ".5": 0.5, "1_000.5": 1000.5, ".inf": math.inf,
                "-.inf": -math.inf, "12345678901234567890": 12345678901234567890.0}
COUNT = {"5": 5, "+5": 5, "0": 0, "1_000": 1000, "5.0": 5, "1e3": 1000, "5.": 5, "20B": 20 * 10**9, "512k": 512_000}
FLAG = {"true": True, "True": True, "FALSE": False}
NULL = {"null": None, "Null": None, "~": None}
LISTS = {"[]": [], "[5, +6]": [5, 6]}
# What YAML 1.1 takes for numbers, dates or truth, numbers that no float holds, and digits of other scripts.
NEVER = [
    "010", "00", "-010", "0_1", "_1", "1_", "1__0", "0x10", "0o17", "0b1", "1:30", "1:30:00", "007.5", "1e400",
    "-1e400", "1e-400", "1" * 400, "1,000", "1 000", "5%", "5kk", "٥", "５", "½", "inf", "nan", "1e", "e5", "yes", "on",
    "off", "None", "2026-11-23", "=", "!!int 0x10", "!!float 1:30",
]
# fmt: on
TEXTS = [*REAL, *COUNT, *FLAG, *NULL, *LISTS, *NEVER, "[0x10]", "[null]", "[010, 5]", "[a, b]"]
READ = {
    "whole": WHOLE,
    "real": REAL,
    "count": COUNT,
    "flag": FLAG,
    "maybe_whole": WHOLE | NULL,
    "maybe_count": COUNT | NULL,
    "maybe_flag": FLAG | NULL,
    "wholes": LISTS,
    "texts": {"[]": [], "[a, b]": ["a", "b"], "[0x10]": ["0x10"]},
    "either": WHOLE | NULL | LISTS,
    "form": {"on": "on"},
    "weights.a": REAL,
}


def get(config: Kinds, key: str) -> Any:
    name, _, entry = key.partition(".")
    return getattr(config, name)[entry] if entry else getattr(config, name)


def read(key: str, text: str, way: str) -> Any:
    """The value, or the UserError; a value is the same after `--print_config`."""
    try:
        if way == "command line":
            config = parse(Kinds, description="", argv=[f"--{key}={text}"]).config
        else:
            name, _, entry = key.partition(".")
            config = from_yaml(Kinds, f"{name}:\n  {entry}: {text}" if entry else f"{name}: {text}")
    except UserError as error:
        return error
    value = get(config, key)
    again = get(from_yaml(Kinds, to_yaml(config)), key)
    assert (again, type(again)) == (value, type(value))
    return value


@pytest.mark.parametrize("way", ["command line", "recipe"])
@pytest.mark.parametrize("key", READ)
def test_a_text_is_read_alike_everywhere_or_refused(key, way):
    for text in TEXTS:
        found = read(key, text, way)
        if text in READ[key]:
            value = READ[key][text]
            assert (found, isinstance(found, bool)) == (value, isinstance(value, bool)), text
        else:
            assert isinstance(found, UserError), (text, found)
            assert re.match(rf"{key.split('.')[0]}\S* (on|in) the .*: expected |invalid YAML", str(found)), text


@pytest.mark.parametrize("key", ["text", "maybe_text"])
def test_text_is_taken_letter_by_letter_and_only_null_may_be_missing(key):
    for text in [*TEXTS, " ", "a b ", "#5", "'5'", "*", "&a", "{", "/a/0x10", "s3://b/[1]?x#1:30"]:
        found = read(key, text, "command line")
        if text not in NULL:
            assert found == text
        elif key == "maybe_text":
            assert found is None
        else:
            assert str(found).startswith("text on the command line: expected text, got None")
        quoted = text.replace("'", "''")
        assert read(key, f"'{quoted}'", "recipe") == text
    for text in NEVER[:10]:  # what only YAML 1.1 takes for numbers needs no quotes
        assert read(key, text, "recipe") == text
    for text in REAL | FLAG:
        assert "try: quote it, or YAML reads" in str(read(key, text, "recipe"))


def test_an_empty_value_is_refused():
    for key in [*READ, "text", "maybe_text", "texts+", "config", "options.a"]:
        for argv in ([f"--{key}="], [f"--{key}", ""]):
            with pytest.raises(UserError, match=r"command line: expected .*, got an empty value\n  why: a shell"):
                parse(Kinds, description="", argv=argv)
    with pytest.raises(UserError, match="texts on the command line: expected text, got an empty value"):
        parse(Kinds, description="", argv=["a", ""], positional="texts")
    assert "--maybe_whole=null" in str(read("maybe_whole", "", "command line"))
    assert read("maybe_whole", "", "recipe") is None  # as YAML has it


def test_white_space_and_comments_are_not_null():
    for text in (" ", "\t", "# 5", "&a"):
        assert isinstance(read("maybe_whole", text, "command line"), UserError), text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--wholes+=5", "--wholes+=[6, -7]", "--wholes+=1_000"], [5, 6, -7, 1000]),
        (["--wholes=[1]", "--wholes+=2"], [1, 2]),
        (["--texts+=5", "--texts+=010", "--texts+=a: b", "--texts+=[c, d]"], ["5", "010", "a: b", "c", "d"]),
        (["--wholes+=010"], "wholes.0 on the command line: expected a whole number, got '010'"),
        (["--wholes+=null"], "wholes.0 on the command line: expected a whole number, got None"),
        (["--wholes+=[1:30]"], "wholes.0 on the command line: expected a whole number, got "),
        (["--texts+=null"], "texts.0 on the command line: expected text, got None"),
    ],
)
def test_what_is_appended_to_a_list_is_read_as_its_items_are(words, expected):
    if isinstance(expected, list):
        config = parse(Kinds, description="", argv=words).config
        assert (config.wholes or config.texts) == expected
        assert from_yaml(Kinds, to_yaml(config)) == config
    else:
        with pytest.raises(UserError) as refused:
            parse(Kinds, description="", argv=words)
        assert str(refused.value).startswith(expected)


def test_keys_are_texts():
    text = "{1: 1, 01: 2, 1.0: 3, 1e0: 4, 0x1: 5, true: 6, null: 7, 2026-11-23: 8, 1_0: 9, 10: 10, '': 11}"
    keys = ["1", "01", "1.0", "1e0", "0x1", "true", "null", "2026-11-23", "1_0", "10", ""]
    expected = dict(zip(keys, range(1, 12), strict=True))
    for way in ("command line", "recipe"):
        assert read("weights", text, way) == read("options", text, way) == expected
        assert read("options", f"{{a: [{text}]}}", way) == {"a": [expected]}
    argv = ["--weights.1=1", "--weights.01=2", "--weights.1e0=3", "--weights.null=4"]
    assert parse(Kinds, description="", argv=argv).config.weights == {"1": 1, "01": 2, "1e0": 3, "null": 4}
    assert "given twice" in str(read("options", "{1: a, '1': b}", "recipe"))


def test_the_refusal_says_how_numbers_are_written():
    assert str(read("maybe_whole", "1:30", "command line")) == (
        "maybe_whole on the command line: expected a whole number or null, got '1:30'\n"
        "  why: numbers are decimal (5, 1_000, 0.5, 1e-4), unquoted, without leading zeros, and below 1.8e308"
    )
    assert str(read("real", "'5'", "recipe")).startswith(
        "real in the YAML text: expected a number, got '5'\n  why: num"
    )
    assert str(read("whole", "many", "recipe")) == "whole in the YAML text: expected a whole number, got 'many'"
