"""Infilling: blanks that are given, and words that are drawn; several of them in one text, each with its own length."""

import json

import pytest

from glm_model.layout import Marks
from pipelines import tasks
from pipelines.feed.questions import lay_out_questions, segment_sizes
from pipelines.questions.config import BlanksConfig, TaskConfig
from pipelines.questions.question import Question, ask, ask_all
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item, Task
from pipelines.tasks.infilling import draw

MARKS = Marks(sop=90, eop=91, pad=92)


def task(**blanks) -> Task:
    return tasks.define(TaskConfig(name="infilling", blanks=BlanksConfig(**blanks)), lambda: [])


def item(text: str, answers: list[str] | None = None, **blanks) -> Item | BadRow:
    fields = {"text": text} | ({} if answers is None else {"answers": json.dumps(answers)})
    ((_, found),) = task(**blanks).items([Row("a.jsonl", 7, fields)])
    return found


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.9])
def test_drawn_words_are_the_share_that_was_asked_for(ratio):
    text = " ".join(f"w{n}" for n in range(40))
    shown, blanks = draw(text, ratio, "key")
    assert sum(len(blank.split()) for blank in blanks) == int(40 * ratio)
    assert shown.count("[MASK]") == len(blanks)
    assert "[MASK] [MASK]" not in shown
    parts = shown.split("[MASK]")
    assert "".join(part for pair in zip(parts, [*blanks, ""], strict=True) for part in pair) == text
    assert draw(text, ratio, "key") == (shown, blanks)
    assert draw(text, ratio, "other") != (shown, blanks)


def test_a_short_text_has_one_blank_and_a_word_beside_it():
    shown, (blank,) = draw("cat sat", 0.1, "")
    assert sorted([shown.replace("[MASK]", "").strip(), blank]) == ["cat", "sat"]
    with pytest.raises(ValueError, match="needs two words"):
        draw("cat", 0.5, "")


def test_given_blanks_are_asked_as_they_are():
    found = item("A [MASK] sat on [MASK] mat [sMASK]", ["cat", "the old"])
    assert (found.fields["text"], found.blanks) == ("A [MASK] sat on [MASK] mat [ sMASK]", ("cat", "the old"))
    assert (found.gold, found.candidates) == ("0", ())
    assert item("A [MASK] sat").gold is None


@pytest.mark.parametrize(
    ("text", "answers", "reason"),
    [
        ("A cat sat", ["cat"], "the text has no [MASK], and 1 answers"),
        ("A [MASK] sat", ["a", "b"], "the text has 1 of [MASK] and 2 answers: give one for each"),
        ("[MASK] [MASK] sat", ["a"], "the text has 2 of [MASK] and 1 answers: give one for each"),
        ("A [MASK] sat", [" "], "the answer 1 of 1 is empty"),
        ("A [MASK] sat", [None], "the answer 1 of 1 is empty"),
        ("cat", None, "the text 'cat' needs two words: one to be asked for, and one beside it"),
    ],
)
def test_masks_that_are_missing_or_too_many_are_said(text, answers, reason):
    assert str(item(text, answers)) == f"a.jsonl:7: {reason}"


def test_each_draw_of_a_text_is_learned():
    own = task(draws=3)
    ((_, found),) = own.items([Row("a.jsonl", 7, {"text": "the cat sat on the mat then ran home"})])
    learned = list(own.train_items(found))
    assert [one.id for one in learned] == ["7", "7/1", "7/2"]
    assert len({one.fields["text"] for one in learned}) == 3
    assert len({one.group for one in learned}) == 1


def test_lines_and_tables_are_read(tmp_path):
    (tmp_path / "train.txt").write_text("the cat sat\n\na dog ran\n")
    (tmp_path / "val.jsonl").write_text('{"text": "a [MASK] ran", "answers": ["dog"]}\n')
    options = TaskConfig(name="infilling", data=str(tmp_path))
    splits, own = tasks.find_splits(options), tasks.define(options, lambda: [])
    found = {name: [one for _, one in own.items(split_rows(splits, name))] for name in splits}
    assert [(one.id, one.fields["whole"]) for one in found["train"]] == [("1", "the cat sat"), ("3", "a dog ran")]
    assert [one.blanks for one in found["dev"]] == [("dog",)]


def question(tokenizer, *, learns: bool = False) -> Question:
    own = task()
    found = item("the [MASK] sat on [MASK] mat", ["cat", "the dog ran"])
    return ask(own, own.pattern(), found, tokenizer, positions=64, learns=learns)


def test_a_question_has_an_answer_for_each_mask(tiny_tokenizer):
    one = question(tiny_tokenizer)
    assert (len(one.prompt.mask_positions), one.pieces, one.count_end) == (2, (1, 3), True)
    assert [tiny_tokenizer.decode(part).strip() for part in one.of_each_mask(0)] == ["cat", "the dog ran"]
    assert segment_sizes(one) == [len(one.prompt.tokens) + 4 + 2]
    assert one.positions == len(one.prompt.tokens) + 2 * (32 + 1)
    wrong = list(ask_all(task(), [Row("a", 1, {"text": "a [MASK] a [MASK]"})], tiny_tokenizer, positions=64))
    assert wrong[0].candidates == ()


def test_all_blanks_of_a_text_are_learned_in_one_segment_each_with_its_end(tiny_tokenizer):
    one, other = question(tiny_tokenizer, learns=True), question(tiny_tokenizer, learns=True)
    batch = lay_out_questions([one, other], MARKS)
    example, asked = batch.example, batch.asked
    assert asked.question.tolist() == [0, 1]
    assert example.segment_ids.max() == 1
    cat, rest = (part.tolist() for part in one.of_each_mask(0))
    assert asked.targets.tolist() == [*cat, MARKS.eop, *rest, MARKS.eop] * 2
    assert asked.candidate.tolist() == [0] * 6 + [1] * 6
    assert example.loss_mask.sum() == 12
    first = asked.at[:6]
    assert example.tokens.ravel()[first].tolist() == [MARKS.sop, *cat, MARKS.sop, *rest]
    places = one.prompt.mask_positions.tolist()
    assert example.position_ids.ravel()[first].tolist() == [places[0]] * 2 + [places[1]] * 4


def test_baselines_fill_in_words_that_they_have_seen():
    own = task()
    texts = ["a cat sat", "a cat ran", "a dog sat", "the dog ran", "the cat"]
    train = [one for _, one in own.items([Row("t", n, {"text": text}) for n, text in enumerate(texts)])]
    found = item("a [MASK] sat [MASK] go, [MASK] ran", ["x", "y", "z"])
    assert {name: teach(train)(found) for name, teach in own.baselines.items()} == {
        "unigram": ("a", "a", "a"),
        "n-gram": ("cat", "a", "a"),
    }
    assert own.baselines["n-gram"](train)(item("the [MASK]", ["x"])) == ("cat",)
    assert own.baselines["n-gram"](train)(item("the [MASK] ran", ["x"])) == ("dog",)
    assert [teach([]) for teach in own.baselines.values()] == [None, None]
