"""Questions come back from the file as they were, in the orders that an evaluation needs, and take little memory."""

import contextlib
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from pipelines.questions.pattern import Pattern
from pipelines.questions.question import Question, Windows, ask
from pipelines.questions.task import Item, Task
from workflows.evaluation import evaluation
from workflows.evaluation.spool import Spool

PATTERN = Pattern("{text} It is {mask}.", {"bad": "cat", "good": "the dog"})
TASK = Task("own", 1, "choose", (PATTERN,), item=lambda row: Item("", {}), labels=("bad", "good"))


@pytest.fixture
def spool():
    with contextlib.closing(Spool()) as spool:
        yield spool


def question(tokenizer, name: str, text: str) -> Question:
    return ask(TASK, PATTERN, Item(name, {"text": text}, gold="good", group="g"), tokenizer, positions=48)


def told(one: Question) -> str:
    """All of a question but the fields of its item."""
    return repr(replace(one, item=Item(one.item.id, {}, group=one.item.group)))


def test_questions_come_back_as_they_were(spool, tiny_tokenizer):
    asked = [question(tiny_tokenizer, str(n), text) for n, text in enumerate(("the cat sat", "go\n\u00e9", "a mat"))]
    for one in asked:
        spool.add(one)
    assert [told(one) for one in spool.read([2, 0, 1])] == [told(asked[n]) for n in (2, 0, 1)]
    assert [spool.digest(n) == spool.digest(0) for n in range(3)] == [True, False, False]


def test_of_an_item_comes_back_what_its_answer_is_judged_by(spool, tiny_tokenizer):
    one = replace(question(tiny_tokenizer, "1", "go"), kind="write", has_labels=False, windows=Windows(8, True))
    one = replace(one, item=Item("1", {}, group="g", joint="j", golds=(1, 2), words=7))
    spool.add(one)
    (back,) = spool.read([0])
    assert back.item == one.item
    assert (back.kind, back.has_labels, back.windows) == ("write", False, Windows(8, True))


def test_rows_are_written_in_parts_of_so_many_questions_and_positions(monkeypatch):
    monkeypatch.setattr(evaluation, "_ROWS", 3)
    monkeypatch.setattr(evaluation, "_ROW_POSITIONS", 10)
    lengths = np.array([1, 1, 1, 1, 9, 2, 30, 4, 6])
    parts = [part.tolist() for part in evaluation._some(np.arange(9), lengths)]
    assert parts == [[0, 1, 2], [3, 4], [5], [6], [7, 8]]
    assert [part.tolist() for part in evaluation._some(np.array([6, 0]), lengths)] == [[6], [0]]


def test_they_are_ordered_by_length_and_by_id(spool, tiny_tokenizer):
    for name, text in (("10", "go"), ("9", "the cat sat"), ("b", "go"), ("a", "the mat")):
        spool.add(question(tiny_tokenizer, name, text))
    order, lengths = spool.by_length()
    assert order.tolist() == [0, 2, 3, 1]
    assert np.diff(lengths).tolist() == [0, 1, 1]
    assert spool.by_id().tolist() == [1, 3, 2, 0]


def test_memory_does_not_follow_the_length_of_texts(spool, tiny_tokenizer):
    one = question(tiny_tokenizer, "0", "the cat sat")
    long = replace(one, text="the cat sat " * 1000)
    tracemalloc.start()
    for number in range(2000):
        spool.add(replace(long, item=Item(str(number), {})))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2000 * 200
    assert spool.read([1999])[0].text == long.text
