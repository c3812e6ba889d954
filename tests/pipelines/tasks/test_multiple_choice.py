"""Multiple choice: golden rendered items in every form in which data are published, and what is odd in these."""

import json

import pytest
from helpers.rendered import defined, items, published, questions, shown

from infra.errors import DataError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import BadRow
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item

ENDINGS = ["sits down.", ", and sits down.", "'s home.", '" hello " ran.']
HELLASWAG = {"ctx": "Cats: A cat", "endings": json.dumps(ENDINGS), "label": "2", "ind": "7"}
OFFICIAL = HELLASWAG | {"ctx": "[header] A [title] cat  [step] ran", "activity_label": "Cats"}


def test_hellaswag(tiny_tokenizer):
    texts, answers, gold = shown("hellaswag", HELLASWAG, tiny_tokenizer)
    assert texts == ["Cats: A cat[MASK]", "Cats: A cat[gMASK]"]
    assert (answers, gold) == ((" sits down.", ", and sits down.", "'s home.", '" hello " ran.'), 2)
    assert shown("hellaswag", OFFICIAL, tiny_tokenizer)[0][0] == "Cats: A. cat ran[MASK]"
    first, second = questions("hellaswag", HELLASWAG, tiny_tokenizer)
    special = tiny_tokenizer.special
    assert (first.prompt.tokens[-1], second.prompt.tokens[-1]) == (special.eos, special.gmask)
    assert (first.count_end, first.kind) == (False, "choose")


def test_hellaswag_as_text_has_six_lines_an_item_and_says_where_lines_are_missing(tmp_path):
    lines = ["Cats: A cat", "2", *ENDINGS, "Dogs: it", "4", *ENDINGS, "Cats: A cat", "2"]
    file = tmp_path / "hellaswag_val.txt"
    file.write_text("\n".join(lines) + "\n")
    rows = list(split_rows(tasks.find_splits(TaskConfig(name="hellaswag", data=str(file))), "dev"))
    (item, second), last = [one for _, one in defined("hellaswag").items(rows[:2])], rows[2]
    assert (item.id, item.gold, item.fields["before"]) == ("1", "2", "Cats: A cat")
    assert str(second) == f"{file}:7: the right candidate is number 4 of 4"
    assert isinstance(last, BadRow)
    assert str(last) == f"{file}:13: 2 lines instead of 6"


PIQA = {"goal": "To sit ", "sol1": "run.", "sol2": " sit down. ", "label": "1"}


def test_piqa_takes_labels_from_the_file_beside_it(tmp_path, tiny_tokenizer):
    texts, answers, gold = shown("piqa", PIQA, tiny_tokenizer)
    assert texts == ["Question: To sit\nAnswer:[MASK]", "Question: To sit\nAnswer:[gMASK]"]
    assert (answers, gold) == ((" run.", " sit down."), 1)
    row = json.dumps({name: PIQA[name] for name in ("goal", "sol1", "sol2")})
    (tmp_path / "valid.jsonl").write_text(f"{row}\n{row}\n")

    def golds() -> list[str | None]:
        splits = tasks.find_splits(TaskConfig(name="piqa", data=str(tmp_path)))
        return [item.gold for _, item in defined("piqa").items(split_rows(splits, "dev")) if isinstance(item, Item)]

    assert golds() == [None, None]
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    assert golds() == ["1", "0"]
    for labels in ("1\n", "1\n0\n1\n"):
        (tmp_path / "valid-labels.lst").write_text(labels)
        with pytest.raises(DataError, match=r"valid-labels.lst has \d labels, and .*valid.jsonl has (more|fewer) rows"):
            golds()


MMLU = {"subject": "high_school_physics", "question": "What ran? ", "A": "a cat", "B": "a dog ", "answer": "B"}
MMLU |= {"C": "None", "D": "a dog"}


def test_mmlu(tiny_tokenizer):
    texts, answers, gold = shown("mmlu", MMLU, tiny_tokenizer)
    options = "What ran?\nA. a cat\nB. a dog\nC. None\nD. a dog\nAnswer: [MASK]"
    header = "The following are multiple choice questions (with answers) about high school physics.\n\n"
    assert texts == [f"{header}{options}", f"Question: {options}"]
    assert (answers, gold) == (("A", "B", "C", "D"), 1)
    (item,), _ = items(defined("mmlu"), [MMLU])
    assert (item.id, item.group, item.golds) == ("high_school_physics/1", "high_school_physics", (1, 3))


FORMS = [
    (
        {"query": "Question: Who ran?", "choices": '["a cat", "a dog", "a cat"]', "gold": "2"},
        "Question: Who ran?\nAnswer:",
    ),
    ({"query": "It ran", "choices": '["home", "off", "home"]', "gold": "0"}, "It ran"),
    ({"inputs_pretokenized": "Who ran? ", "choices_pretokenized": '["x", "y", "x"]', "label": "0"}, "Who ran?"),
    (
        {"question": "Who ran?", "choices": '{"label": ["A", "B", "C"], "text": ["x", "y", "x"]}', "answerKey": "C"},
        "Question: Who ran?\nAnswer:",
    ),
]


@pytest.mark.parametrize(("fields", "before"), FORMS)
def test_published_forms(fields, before, tiny_tokenizer):
    assert shown("multiple_choice", fields, tiny_tokenizer)[0] == [f"{before}[MASK]", f"{before}[gMASK]"]
    (item,), _ = items(defined("multiple_choice"), [fields])
    assert (item.id, item.gold, item.golds, len(item.candidates)) == ("1", "0", (0, 2), 3)


def test_a_mask_may_stand_inside_the_input_of_the_authors(tiny_tokenizer):
    row = {"inputs_pretokenized": "It [MASK] home.", "choices_pretokenized": '["ran", "sat"]', "label": "1"}
    texts, answers, gold = shown("multiple_choice", row, tiny_tokenizer)
    assert texts == ["It [MASK] home.", "It [gMASK] home."]
    assert (answers, gold) == (("ran", "sat"), 1)


def test_rows_that_cannot_be_asked_say_why():
    rows = [
        {"text": "x"},
        {"query": "x", "choices": '["a"]', "gold": "0"},
        {"query": "x", "choices": '["a", " "]', "gold": "0"},
        {"query": "x", "choices": '["a", "b"]', "gold": "2"},
        {"query": "x", "choices": '["a", "b"]', "gold": "A"},
        {"question": "x", "choices": '{"label": ["A", "B"], "text": ["a", "b"]}', "answerKey": "C"},
    ]
    two = "expected at least two candidates, each a text, got"
    assert items(defined("multiple_choice"), rows) == (
        [],
        [
            "a.jsonl:1: no field 'question', but text",
            f"a.jsonl:2: {two} ['a']",
            f"a.jsonl:3: {two} ['a', ' ']",
            "a.jsonl:4: the right candidate is number 2 of 2",
            "a.jsonl:5: gold='A' is not the number of a candidate",
            "a.jsonl:6: answerKey='C' is not one of the choices A, B",
        ],
    )


# task, place, split, items, items of which several candidates are right
PUBLISHED = [
    ("hellaswag", "multichoice/hellaswag_val.first_half.txt.gz", "dev", 5021, 0),
    ("piqa", "multichoice/piqa", "dev", 1838, 0),
    ("mmlu", "multichoice/mmlu", "dev", 1531, 1),
    ("mmlu", "multichoice/mmlu", "examples", 285, 0),
    ("multiple_choice", "multichoice/commonsense_qa.jsonl", "dev", 1221, 6),
    ("multiple_choice", "multichoice/arc_easy.jsonl", "dev", 2376, 0),
]


@pytest.mark.parametrize(("name", "place", "split", "count", "several"), PUBLISHED)
def test_published_files_are_read_whole(shared, name, place, split, count, several):
    found = published(shared, name, place, split)
    assert (len(found), sum(bool(item.golds) for item in found)) == (count, several)
    assert len({item.id for item in found}) == count
    assert all(item.gold is not None for item in found)


def test_endings_of_hellaswag_that_begin_with_a_mark_are_joined_without_a_blank(shared):
    found = published(shared, "hellaswag", "multichoice/hellaswag_val.first_half.txt.gz", "dev")
    joined = [text for item in found for text in item.candidates if not text.startswith(" ")]
    assert (len(joined), sum(text.startswith(",") for text in joined)) == (637, 492)


def test_none_is_a_text_in_mmlu(shared):
    found = published(shared, "mmlu", "multichoice/mmlu", "dev")
    assert sum("None" in item.fields.values() for item in found) == 2
    assert len({item.group for item in found}) == 57
