"""Tasks: golden rendered items, by which a change of a question is seen (law 18); own files; what is refused."""

import pytest
from helpers.rendered import defined, items, published, shown

from infra.errors import UserError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import ask
from pipelines.questions.rows import Row
from pipelines.questions.splits import split_rows

RTE = {"premise": "It rained.", "hypothesis": "The street is wet.", "idx": "7", "label": "entailment"}
COPA = {
    **{"premise": "I was late. ", "choice1": "I overslept.", "choice2": "The bus came.", "idx": "1"},
    **{"question": "cause", "label": "0"},
}
BLIMP = {"sentence_good": "She runs.", "sentence_bad": "She run.", "UID": "agreement", "pairID": "3"}


def test_rte(tiny_tokenizer):
    texts, answers, gold = shown("rte", RTE, tiny_tokenizer)
    assert texts == [
        '"The street is wet" ? [MASK], "It rained."',
        "The street is wet? [MASK], It rained.",
        '"The street is wet" ? [MASK]. "It rained."',
        "The street is wet? [MASK]. It rained.",
        "It rained. question: The street is wet True or False? answer: [MASK]",
    ]
    assert (answers, gold) == (("Yes", "No"), 0)


def test_cb(tiny_tokenizer):
    texts, answers, gold = shown("cb", RTE | {"label": "neutral"}, tiny_tokenizer)
    assert texts[4] == "It rained. question: The street is wet true, false or neither? answer: [MASK]"
    assert (answers, gold) == (("No", "Maybe", "Yes"), 1)


def test_copa_keeps_the_i_and_drops_final_marks(tiny_tokenizer):
    texts, answers, gold = shown("copa", COPA, tiny_tokenizer)
    assert texts == [
        '"I overslept" or "the bus came"? I was late because [MASK].',
        "I overslept or the bus came? I was late because [MASK].",
    ]
    assert (answers, gold) == (("I overslept", "the bus came"), 0)


def test_blimp_reads_both_sentences(tiny_tokenizer):
    task = defined("blimp")
    (item,), _ = items(task, [BLIMP])
    question = ask(task, task.pattern(), item, tiny_tokenizer, positions=512)
    special = tiny_tokenizer.special
    assert question.prompt.tokens.tolist() == [special.cls, special.gmask]
    assert [tokens.tolist() for tokens in question.candidates] == [
        tiny_tokenizer.encode(text).tolist() for text in ("She runs.", "She run.")
    ]
    assert (item.id, item.group, question.gold, question.count_end) == ("agreement/3", "agreement", 0, True)


def test_the_digest_of_a_task_follows_from_its_questions_alone():
    digests = {name: defined(name).digest[:12] for name in ("rte", "cb", "copa", "blimp")}
    assert len({*digests.values()}) == 4
    assert defined("rte", overlong="skip").digest == defined("rte").digest
    assert defined("rte", pattern="{premise} {mask}").digest != defined("rte").digest


def test_own_files_have_labels_in_their_order_and_words_of_the_recipe(tiny_tokenizer):
    task = defined("classification", words={"10": "great", "2": "terrible"})
    assert task.labels == ("10", "2")
    row = {"text": "Such a film.", "label": "2"}
    texts, answers, gold = shown("classification", row, tiny_tokenizer, words={"10": "great", "2": "terrible"})
    assert texts[0] == "Such a film. It was [MASK]."
    assert (answers, gold) == (("great", "terrible"), 1)


def test_names_of_columns_and_a_pattern_of_the_recipes_own(tiny_tokenizer):
    fields = {"body": "Fine.", "title": "A day", "stars": "ok"}
    settings = {
        "text": "body",
        "label": "stars",
        "words": {"ok": "ok", "no": "no"},
        "pattern": "{title}: {body~} {mask}",
    }
    texts, _, gold = shown("classification", fields, tiny_tokenizer, **settings)
    assert (texts[-1], gold) == ("A day: Fine. [MASK]", 0)


def test_a_classification_head_reads_texts_and_chooses_among_labels(tiny_tokenizer):
    task = defined("rte", head=True)
    ((_, item),) = task.items(iter([Row("a.jsonl", 1, RTE)]))
    question = ask(task, task.pattern(), item, tiny_tokenizer, positions=64)
    special = tiny_tokenizer.special
    texts = ("The street is wet", "It rained.")
    parts = [[special.cls], *([*tiny_tokenizer.encode(text), special.eos] for text in texts)]
    assert question.prompt.tokens.tolist() == [int(token) for part in parts for token in part]
    assert (question.candidates, question.answers, question.gold, question.has_mask) == ((), ("Yes", "No"), 0, False)
    own = defined("classification", head=True, pattern="{label}{|}{text~}")
    assert (own.pattern().text, dict(own.pattern().words)) == ("{label}{|}{text~}", {"2": "2", "10": "10"})
    assert defined("rte", head=True).digest != defined("rte").digest


def test_labels_that_are_words_need_no_words_and_numbers_do():
    rows = [Row("a.csv", n, {"text": "x", "label": label}) for n, label in enumerate(("Sci/Tech", "not_good", ""))]
    task = tasks.define(TaskConfig(), lambda: rows)
    assert dict(task.pattern().words) == {"Sci/Tech": "sci tech", "not_good": "not good"}
    with pytest.raises(UserError, match="the label '2' is not a word that a model could write: give label words"):
        defined("classification")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "rtf"}, r"unknown task 'rtf'; did you mean 'rte'\?"),
        ({"name": "rte", "text": "body"}, r"task\.text does nothing with the task rte"),
        ({"name": "rte", "pattern": "9"}, "the task rte has no pattern 9"),
        ({"name": "rte", "pattern": "{premise}"}, r"needs one \{mask\}, .* a classification head, task.head, reads"),
        ({"name": "copa", "head": True}, "a classification head needs labels"),
        ({"name": "classification", "label": "stars"}, "no label in the column 'stars', but text, label"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, told):
    with pytest.raises(UserError, match=told):
        defined(settings.pop("name"), **settings)


def test_rows_that_are_no_items_say_why_and_cost_no_other():
    task = defined("rte")
    found, bad = items(task, [RTE, {"premise": "x"}, RTE | {"label": "maybe", "idx": "8"}, RTE, RTE | {"idx": "9"}])
    assert bad == [
        "a.jsonl:2: no field 'hypothesis', but premise",
        "a.jsonl:3: the label 'maybe' is not one of the task's: entailment, not_entailment",
        "a.jsonl:4: the id '7' was there before",
    ]
    assert [item.id for item in found] == ["7", "9"]


def test_long_items_are_cut_as_the_pattern_says_or_refused(tiny_tokenizer):
    task = defined("rte")
    (item,), _ = items(task, [RTE | {"premise": "word " * 500}])
    question = ask(task, task.pattern(), item, tiny_tokenizer, positions=64)
    assert len(question.prompt.tokens) <= 64 < len(question.prompt.tokens) + question.cut
    assert question.text.startswith('"The street is wet" ? [MASK], "word')
    with pytest.raises(ValueError, match=r"tokens, and the model has 64 positions"):
        ask(task, task.pattern(), item, tiny_tokenizer, positions=64, overlong="skip")


@pytest.mark.parametrize(("name", "columns"), [("classification", "text"), ("pair_classification", "text,second")])
def test_one_file_is_cut_between_texts_whatever_their_labels(tmp_path, name, columns):
    texts = [",".join(f"{column} {n // 2 % 40}" for column in columns.split(",")) for n in range(400)]
    rows = "".join(f"{text},{n % 2}\n" for n, text in enumerate(texts))
    (tmp_path / "a.csv").write_text(f"{columns},label\n{rows}")
    splits = tasks.find_splits(TaskConfig(name=name, data=f"{tmp_path}/a.csv"))
    found = {split: [row for row in split_rows(splits, split) if isinstance(row, Row)] for split in splits}
    assert sum(map(len, found.values())) == 400
    assert all(found.values())
    several = [{row.fields["text"] for row in rows} for rows in found.values()]
    assert sum(map(len, several)) == len(set.union(*several)) == 40


COUNTS = [
    ("rte", "superglue/RTE", "dev", [69, 70]),
    ("cb", "superglue/CB", "train", [119, 16, 115]),
    ("copa", "superglue/COPA", "dev", [27, 23]),
]


@pytest.mark.parametrize(("name", "folder", "split", "counts"), COUNTS)
def test_the_published_files_are_read_whole(shared, name, folder, split, counts):
    task, found = defined(name), published(shared, name, folder, split)
    golds = [task.gold_index(item) for item in found]
    assert [golds.count(number) for number in range(len(counts))] == counts
