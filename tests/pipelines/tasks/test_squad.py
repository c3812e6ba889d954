"""SQuAD's questions: published forms and rows, windows of a passage and what each teaches, and their metrics."""

import json

import pytest
from helpers.answered import table

from infra.errors import DataError
from pipelines import tasks
from pipelines.metrics.scores import scores
from pipelines.metrics.written.squad import span_of
from pipelines.questions.config import GenerationConfig, TaskConfig
from pipelines.questions.question import ask
from pipelines.questions.rows import BadRow, Row, as_text
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item
from pipelines.tasks._shared.squad import around, windows

PASSAGE = "The cat sat on the mat. Then a dog ran home, it said."


def items(fields: dict[str, str], *, name: str = "squad", **generation) -> list[Item | BadRow]:
    task = tasks.define(TaskConfig(name=name, generation=GenerationConfig(**generation)), lambda: [])
    return [one for _, one in task.items([Row("a.jsonl", 5, fields)])]


def row(answers: list[dict] | None, **more: str) -> dict[str, str]:
    told = {} if answers is None else {"answers": json.dumps(answers)}
    return {"id": "q", "context": PASSAGE, "question": " Where did it sit?", **told, **more}


def test_windows_overlap_by_half_and_end_with_the_text():
    text = "a b c d e f g h i j"
    assert [text[first:last] for first, last in windows(text, 4)] == ["a b c d", "c d e f", "e f g h", "g h i j"]
    assert [text[first:last] for first, last in windows(text, 10)] == [text]
    assert [text[first:last] for first, last in windows(text, 99)] == [text]


def test_the_part_around_an_answer_has_it_in_the_middle():
    text = "a b c d e f g h i j"
    assert [around(text, at, at + 1, 3) for at in (0, 8, 18)] == ["a b c", "d e f", "h i j"]


def test_a_question_has_all_right_answers_and_its_passage():
    answers = [{"text": "the mat", "answer_start": 15}, {"text": "mat", "answer_start": 19}, {"text": "mat"}]
    (one,) = items(row(answers))
    assert (one.id, one.joint, one.candidates, one.golds) == ("q/0", "q", ("the mat", "mat"), (0, 1))
    assert (one.fields["question"], one.fields["passage"], one.source) == ("Where did it sit?", PASSAGE, PASSAGE)
    (test,) = items(row(None))
    assert (test.gold, test.candidates) == (None, ())


def test_each_window_teaches_what_it_says():
    """For 8 tokens windows have 4 words, for 14 tokens 8."""
    several = items(row([{"text": "the mat", "answer_start": 15}]), max_source=8)
    assert [one.id for one in several] == [f"q/{number}" for number in range(6)]
    assert {one.candidates for one in several} == {("the mat",)}
    task = tasks.define(TaskConfig(name="squad"), lambda: [])
    learned = [learned.candidates[0] for one in several for learned in task.train_items(one)]
    assert learned == ["N/A", "the mat", "the mat", "N/A", "N/A", "N/A"]
    wide = items(row([{"text": "the mat", "answer_start": 15}]), max_source=14)
    assert [next(task.train_items(one)).candidates[0] for one in wide] == ["the mat", "the mat", "N/A"]
    none = items(row([], is_impossible="true"))
    assert [(one.candidates, next(task.train_items(one)).candidates) for one in none] == [(("N/A",), ("N/A",))]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (row([{"text": "the hat"}]), "the answer 'the hat' is not in the passage"),
        (row([{"text": " "}]), "an answer is empty"),
        ({"context": PASSAGE, "question": " "}, "question is empty"),
        ({"question": "Where?"}, "no field 'context'"),
        (row(None) | {"answers": "cat"}, "answers: expected a JSON list, or lists of texts and places, got 'cat'"),
        (row(None) | {"answers": "5"}, "answers: expected a JSON list, or lists of texts and places, got '5'"),
        (row(None) | {"answers": "null"}, "answers: expected a JSON list, or lists of texts and places, got 'null'"),
        (row(None) | {"answers": '["cat"]'}, "an answer: expected a JSON object, got 'cat'"),
        (row([{"text": None}]), "an answer: expected a text, got None"),
        (row(None) | {"answers": '{"text": [5]}'}, "an answer: expected a text, got 5"),
        (row(None) | {"answers": '{"text": "cat"}'}, "text of answers: expected a list, got 'cat'"),
        (row(None) | {"answers": '{"answer_start": [4]}'}, "answers has no 'text', but answer_start"),
        (
            row(None) | {"answers": '{"text": ["cat"], "answer_start": [4, 0]}'},
            "answers: 1 texts and 2 places where they begin",
        ),
    ],
)
def test_a_row_that_asks_nothing_says_why(fields, reason):
    (bad,) = items(fields)
    assert str(bad) == f"a.jsonl:5: {reason}"


@pytest.mark.parametrize("start", [None, "4", 4.0])
def test_a_place_that_is_no_number_is_looked_for(start):
    (one,) = items(row([{"text": "cat", "answer_start": start}]))
    assert (one.candidates, one.fields["here"]) == (("cat",), "cat")


def test_answers_that_are_null_are_not_known():
    (one,) = items(row(None) | {"answers": as_text(None)})
    assert (one.gold, one.candidates) == (None, ())


def test_published_files_are_read(tmp_path):
    qa = [
        {"id": "a", "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}], "is_impossible": False},
        {"id": "b", "question": "Why?", "answers": [], "plausible_answers": [], "is_impossible": True},
    ]
    value = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": PASSAGE, "qas": qa}]}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(value, indent=1))
    listed = [{"context": PASSAGE, "question": "Who?", "answer": "cat"}]
    (tmp_path / "train-v1.1.json").write_text(json.dumps(listed))
    for name, expected in (("squad", [("cat",), ("N/A",)]), ("squad_questions", [("Who?",)])):
        options = TaskConfig(name=name, data=str(tmp_path))
        splits, task = tasks.find_splits(options), tasks.define(options, lambda: [])
        assert [one.candidates for _, one in task.items(split_rows(splits, "dev"))] == expected
        assert [one.candidates for _, one in task.items(split_rows(splits, "train"))] == expected[:1]
    (tmp_path / "dev-v2.0.json").write_text('{"data": [{"paragraphs": 3}]}')
    with pytest.raises(DataError, match="is not of SQuAD's form"):
        list(split_rows(tasks.find_splits(TaskConfig(name="squad", data=str(tmp_path))), "dev"))


def test_hugging_faces_columns_are_read():
    fields = {"context": PASSAGE, "question": "Who?", "id": "q"}
    (one,) = items(fields | {"answers": '{"text": ["cat", "The cat"], "answer_start": [4, 0]}'})
    assert one.candidates == ("cat", "The cat")
    (none,) = items(fields | {"answers": '{"text": [], "answer_start": []}'})
    assert none.candidates == ("N/A",)


def test_a_question_is_asked_for_an_answer(tiny_tokenizer):
    answers = [{"text": "dog", "answer_start": 31}]
    (one,) = items(row(answers), name="squad_questions", max_source=10)
    assert (one.fields, one.candidates) == (
        {"passage": "mat. Then a dog ran home,", "answer": "dog"},
        ("Where did it sit?",),
    )
    task = tasks.define(TaskConfig(name="squad_questions"), lambda: [])
    text = ask(task, task.pattern(), one, tiny_tokenizer, positions=64).text
    assert text == "mat. Then a dog ran home, Question: [MASK] Answer: dog"


def test_what_was_written_is_found_in_the_passage():
    passage = "It cost 1,000 EUR in Zürich; a hat at home."
    assert passage[slice(*span_of(passage, "1 , 000 eur"))] == "1,000 EUR"
    assert passage[slice(*span_of(passage, "zurich"))] == "Zürich"
    assert span_of(passage, "at") == (35, 37)  # the word, not the end of "hat"
    assert span_of(passage, "ome") == (39, 42)
    assert span_of(passage, "dog") is None
    assert span_of(passage, "") is None


def answered(name: str, golds: list[str], *written: str) -> list[dict]:
    shared = {"joint": name, "candidates": golds, "gold": 0, "source": "He paid 1,000 dollars."}
    return [{**shared, "item": f"{name}/{number}", "written": text} for number, text in enumerate(written)]


def test_em_and_f1_are_those_of_the_official_scripts():
    items = table(
        *answered("a", ["1,000 dollars", "dollars"], "n / a", "1 , 000 dollars", "dollars"),  # the first that says some
        *answered("b", ["the big cat"], "a cat"),  # articles do not count: 1 of 1 and 2 words
        *answered("c", ["N/A"], "N/A", ""),
        *answered("d", ["N/A"], "cat"),
        *answered("e", ["dog"], "n/a"),
    )
    found = {score.metric: score for score in scores(items, tuple(tasks.find("squad").METRICS), classes=0)}
    assert {name: round(score.value, 2) for name, score in found.items()} == {
        "squad_f1": round(100 * (1 + 2 / 3 + 1 + 0 + 0) / 5, 2),
        "squad_em": 40.0,
        "squad_f1_has_answer": round(100 * (1 + 2 / 3 + 0) / 3, 2),
        "squad_em_no_answer": 50.0,
    }
    assert {name: score.n for name, score in found.items()} == {
        "squad_f1": 5,
        "squad_em": 5,
        "squad_f1_has_answer": 3,
        "squad_em_no_answer": 2,
    }


def test_without_unanswerable_questions_there_is_no_score_of_them():
    found = scores(table(*answered("a", ["dollars"], "dollars")), tuple(tasks.find("squad").METRICS), classes=0)
    assert [score.metric for score in found] == ["squad_f1", "squad_em", "squad_f1_has_answer"]
