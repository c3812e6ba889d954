"""Files for SuperGLUE's leaderboard have its forms, and an answer to each item."""

import pytest
from helpers.answered import table

from pipelines.metrics.submission import submission

BOOLEAN = ("false", "true")
FORMS = [
    ("boolq", BOOLEAN, {"idx": 7, "label": "true"}),
    ("wic", BOOLEAN, {"idx": 7, "label": "true"}),
    ("wsc", BOOLEAN, {"idx": 7, "label": "True"}),
    ("cb", ("contradiction", "neutral", "entailment"), {"idx": 7, "label": "neutral"}),
    ("ax_b", ("entailment", "not_entailment"), {"idx": 7, "label": "not_entailment"}),
    ("copa", (), {"idx": 7, "label": 1}),
]


@pytest.mark.parametrize(("task", "labels", "line"), FORMS)
def test_the_line_of_an_item(task, labels, line):
    rows = table({"item": "7", "gold": None, "choice": 1, "candidates": ["a", "b"]})
    assert submission(task, rows, labels=labels) == [line]


def test_record_gives_the_text_of_the_entity_under_the_number_of_the_query():
    rows = table({"item": "3/12", "gold": None, "choice": 1, "candidates": ["Rome", "Milan"]})
    assert submission("record", rows, labels=()) == [{"idx": 12, "label": "Milan"}]


def test_multirc_gives_passages_with_their_questions_and_answers():
    answers = [("0/1/2", 1), ("0/1/3", 0), ("0/4/5", 1), ("2/0/0", 0)]
    rows = table(*({"item": name, "gold": None, "choice": choice} for name, choice in answers))
    assert submission("multirc", rows, labels=("0", "1")) == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 1, "answers": [{"idx": 2, "label": 1}, {"idx": 3, "label": 0}]},
                    {"idx": 4, "answers": [{"idx": 5, "label": 1}]},
                ]
            },
        },
        {"idx": 2, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 0}]}]}},
    ]


def test_an_item_without_an_answer_is_told():
    rows = table({"item": "1", "gold": None, "choice": 0}, {"item": "2", "gold": None, "reason": "too long"})
    with pytest.raises(ValueError, match="1 of 2 items have no answer, such as 2"):
        submission("rte", rows, labels=("a", "b"))
