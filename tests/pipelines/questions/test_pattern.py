"""Patterns: what they show, what is cut, and what their author is told."""

import pytest

from pipelines.questions.pattern import Part, Pattern

PAIR = Pattern('"{hypothesis~}" ? {mask}, "{~premise}"')


def test_a_pattern_is_words_fields_and_a_mask():
    assert PAIR.parts == (
        *(Part("text", '"'), Part("field", "hypothesis", "end"), Part("text", '" ? '), Part("mask", "[MASK]")),
        *(Part("text", ', "'), Part("field", "premise", "start"), Part("text", '"')),
    )
    assert PAIR.fields == ("hypothesis", "premise")
    assert PAIR.render({"hypothesis": "It rains", "premise": "It pours"}) == '"It rains" ? [MASK], "It pours"'


def test_braces_are_written_twice():
    assert Pattern("{{{text}}} {gmask}").render({"text": "x"}) == "{x} [gMASK]"


def test_a_mask_that_a_field_holds_is_text():
    shown = Pattern("{text} {mask}").render({"text": "a [MASK], [sMASK] and [gMASK]; [UNMASK]"})
    assert shown == "a [ MASK], [ sMASK] and [ gMASK]; [UNMASK] [MASK]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "{mask} and {mask}",
            r"the pattern '\{mask\} and \{mask\}' has 2 masks",
        ),
        ("{a}{|}{b}{mask}", r"has both a mask and \{\|\}, which is for a classification head"),
        ("{mask} {", "has a brace without its partner"),
        ("{mask} }", "has a brace without its partner"),
    ],
)
def test_patterns_that_cannot_work_are_refused(text, told):
    with pytest.raises(ValueError, match=told):
        Pattern(text)


def test_the_longest_fields_are_cut_first_and_to_one_length():
    pattern = Pattern("{a~}|{b~}|{c}{mask}")
    fields = {"a": "aaaa", "b": "bbbbbbbb", "c": "cccc"}
    assert pattern.shorten(fields, lambda text: len(text) <= 24) == "aaaa|bbbbbbbb|cccc[MASK]"
    assert pattern.shorten(fields, lambda text: len(text) <= 22) == "aaaa|bbbbbb|cccc[MASK]"
    assert pattern.shorten(fields, lambda text: len(text) <= 18) == "aaa|bbb|cccc[MASK]"
    assert pattern.shorten(fields, lambda text: len(text) <= 12) == "||cccc[MASK]"
    assert pattern.shorten(fields, lambda text: len(text) <= 11) is None


def test_a_cut_falls_at_white_space_where_some_is_near():
    pattern, end = Pattern("{~a}{mask}"), Pattern("{a~}{mask}")
    fields = {"a": "several words are longer than others in this sentence"}
    assert end.render(fields, most=30) == "several words are longer than[MASK]"
    assert pattern.render(fields, most=30) == "than others in this sentence[MASK]"
    assert end.render({"a": "x" * 40}, most=30) == "x" * 30 + "[MASK]"


def test_a_classification_head_reads_the_fields_with_a_boundary_between_them():
    read = Pattern('"{hypothesis~}" ? {mask}, "{~premise}" {hypothesis~}').for_head()
    assert (read.text, read.has_mask, PAIR.has_mask) == ("{hypothesis~}{|}{~premise}", False, True)
    assert read.for_head() == read
    fields = {"hypothesis": "It [SEP] rains", "premise": "It [MASK] pours"}
    assert read.render(fields) == "It [ SEP] rains[SEP]It [MASK] pours"
