"""The bag of words knows single letters, numbers, marks, Chinese characters and "not", or says that it cannot learn."""

import pytest

from pipelines.metrics.bag_of_words import bag_of_words
from pipelines.questions.pattern import Pattern
from pipelines.questions.task import Item, Task

PATTERN = Pattern("{text} {mask}", {"no": "no", "yes": "yes"})


def task(labels: tuple[str, ...]) -> Task:
    return Task("own", 1, "choose", (PATTERN,), item=lambda row: Item("", {}), labels=labels)


def chosen(task: Task, train: list[Item], asked: list[Item]) -> list[int]:
    choose = bag_of_words(task, PATTERN, train)
    assert choose is not None
    return choose(asked).tolist()


@pytest.mark.parametrize(
    ("no", "yes"), [("b c", "a c"), ("7 c", "8 c"), ("这是坏的", "这是好的"), ("do not", "do"), ("so.", "so!")]
)
def test_a_word_is_enough(no, yes):
    train = [Item(str(n), {"text": text}, gold) for n, (text, gold) in enumerate([(no, "no"), (yes, "yes")] * 5)]
    asked = [Item("x", {"text": f"so {yes}"}), Item("y", {"text": f"so {no}"})]
    assert chosen(task(("no", "yes")), train, asked) == [1, 0]


def test_a_class_that_train_lacks_leaves_the_numbers_of_the_others_alone():
    train = [Item(str(n), {"text": text}, gold) for n, (text, gold) in enumerate([("bad", "no"), ("good", "yes")] * 5)]
    asked = [Item("x", {"text": "good"})]
    assert chosen(task(("other", "no", "yes")), train, asked) == [2]


def test_what_is_to_be_written_is_shown_beside_the_text():
    own = Task("own", 1, "write", (Pattern("{text} {mask}"),), item=lambda row: Item("", {}), labels=("no", "yes"))
    golds = [("the rain", "no"), ("the pipe", "yes")] * 5
    train = [Item(str(n), {"text": "it"}, gold, candidates=(span,)) for n, (span, gold) in enumerate(golds)]
    assert chosen(own, train, [Item("x", {"text": "it"}, candidates=("a pipe",))]) == [1]


def test_own_candidates_are_judged_by_their_words():
    pairs = [("it rained", "a cat"), ("a dog", "it rained")]
    train = [Item(str(n), {}, str(n % 2), candidates=pairs[n % 2]) for n in range(10)]
    asked = [Item("x", {}, candidates=("a fish", "it snowed", "a cow")), Item("y", {}, candidates=("it fell", "a b"))]
    assert chosen(task(()), train, asked) == [1, 0]


def test_one_class_teaches_nothing():
    train = [Item(str(n), {"text": "good"}, "yes") for n in range(5)]
    assert bag_of_words(task(("no", "yes")), PATTERN, train) is None
