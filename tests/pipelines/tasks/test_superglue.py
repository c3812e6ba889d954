"""SuperGLUE's tasks: what every pattern shows of an item in the official form, and that the published files are read
whole, with their quirks.
"""

import json
from dataclasses import replace

import pytest
from helpers.rendered import defined, items, learned, published, shown

from pipelines.questions.question import ask
from pipelines.questions.task import Item

BOOLQ = {
    "passage": "Rain -- Rain is water that falls from clouds.",
    "question": "does rain fall up",
    "idx": "4",
    "label": "false",
}
WIC = {
    **{"word": "bank", "sentence1": "He sat on the bank.", "sentence2": "The bank was closed."},
    **{"start1": "14", "end1": "18", "start2": "4", "end2": "8", "idx": "2", "label": "false"},
}


def test_boolq(tiny_tokenizer):
    texts, answers, gold = shown("boolq", BOOLQ, tiny_tokenizer)
    passage = "Rain -- Rain is water that falls from clouds."
    by_text = [
        f"{passage} Question: does rain fall up? Answer: [MASK].",
        f"{passage} Based on the previous passage, does rain fall up? [MASK].",
        f"Based on the following passage does rain fall up? [MASK]. {passage}",
    ]
    assert texts == [text for text in by_text for _ in range(2)]
    assert (answers, gold) == (("No", "Yes"), 0)
    assert defined("boolq").pattern(5).words == {"false": "false", "true": "true"}


def test_boolq_ends_a_question_once_and_groups_passages_of_one_article():
    rows = [BOOLQ | {"question": "is it so?", "idx": "0"}, BOOLQ | {"idx": "2"}, BOOLQ | {"passage": "No title."}]
    found, _ = items(defined("boolq"), rows)
    assert found[0].fields["question"] == "is it so"
    assert [item.group for item in found[:2]] == ["Rain", "Rain"]
    assert len(found[2].group) == 16


def test_wic(tiny_tokenizer):
    texts, answers, gold = shown("wic", WIC, tiny_tokenizer)
    assert texts == [
        '"He sat on the bank." / "The bank was closed." Similar sense of "bank"? [MASK].',
        "He sat on the bank. The bank was closed. Does bank have the same meaning in both sentences? [MASK]",
        'bank . Sense (1) (a) "He sat on the bank." ([MASK]) "The bank was closed."',
    ]
    assert (answers, gold) == (("No", "Yes"), 0)
    assert defined("wic").pattern(2).words == {"false": "2", "true": "b"}


def wsc(text: str, place: int, pronoun: str = "it", **changes: str) -> dict[str, str]:
    target = {"span1_text": "The pipe", "span1_index": 9, "span2_text": pronoun, "span2_index": place}
    return {"text": text, "target": json.dumps(target), "idx": "6", "label": "true", **changes}


def test_wsc(tiny_tokenizer):
    texts, answers, gold = shown("wsc", wsc("The pipe broke, so it leaks.", 4), tiny_tokenizer)
    assert texts == [
        "The pipe broke, so *it* leaks. The pronoun '*it*' refers to [MASK].",
        "The pipe broke, so *it* leaks. In the previous sentence, the pronoun '*it*' refers to [MASK].",
        "The pipe broke, so *it* leaks. Question: In the passage above, what does the pronoun '*it*' refer to? "
        "Answer: [MASK].",
    ]
    assert (answers, gold) == (("The pipe",), 1)


MARKED = [
    ("it", 3, "We saw *it*."),  # one word too far
    ("it", 1, "We saw *it*."),  # one too near
    ("it", 2, "We saw *it*."),
    ("It", 2, "We saw *it*."),
    ("him", 2, '"I like *him*," he said'),
    ("it", 0, "*It*'s\n\nover  now"),  # white space stays
]


@pytest.mark.parametrize(("pronoun", "place", "marked"), MARKED)
def test_the_pronoun_of_wsc_is_marked_at_its_index_or_one_word_beside_it(pronoun, place, marked):
    (item,), _ = items(defined("wsc"), [wsc(marked.replace("*", ""), place, pronoun)])
    assert item.fields["text"] == marked


def test_pronouns_of_wsc_that_are_further_off_are_rows_with_their_reason():
    rows = [
        wsc("We saw it there.", 0),
        wsc("Its roof is its own.", 0),
        wsc("We saw it.", 9),
        wsc("We saw it.", 1, target='{"span1_text": "We"}'),
        wsc("We saw it.", 1, target='{"span1_text": "We", "span2_text": "it", "span2_index": "2"}'),
    ]
    beside = "expected the pronoun 'it' there or one word beside"
    assert items(defined("wsc"), rows) == (
        [],
        [
            f"a.jsonl:1: span2_index=0 points at 'We': {beside}",
            f"a.jsonl:2: span2_index=0 points at 'Its': {beside}",
            f"a.jsonl:3: span2_index=9 points at none of 3 words: {beside}",
            "a.jsonl:4: the target has no 'span2_text', but span1_text",
            'a.jsonl:5: span2_index: expected a number, got "2"',
        ],
    )


def test_candidates_of_wsc_come_from_the_file_each_once_behind_the_span():
    names = json.dumps([{"text": "the roof"}, {"text": "The pipe"}, {"text": "the roof"}, {"text": "rain"}])
    (item,), _ = items(defined("wsc"), [wsc("We saw it.", 2, candidates=names)])
    assert item.candidates == ("The pipe", "the roof", "rain")


def test_wsc_teaches_its_true_rows_alone_nine_candidates_at_a_time():
    others = tuple(f"name{n}" for n in range(11))
    true = Item("6", {}, "true", candidates=("pipe", *others))
    assert learned("wsc", replace(true, gold="false")) == []
    assert learned("wsc", replace(true, candidates=("pipe",))) == [replace(true, candidates=("pipe",))]
    first, second = learned("wsc", true)
    assert first.candidates == ("pipe", *others[:9])
    assert second.candidates == ("pipe", *others[9:], *others[:7])
    assert (first.id, second.id) == ("6/0", "6/9")


AX_B = {"sentence1": "A cat sat.", "sentence2": "A cat did not sit.", "idx": "5", "label": "not_entailment"}
AX_G = {"premise": "She met him.", "hypothesis": "They met.", "idx": "7", "label": "entailment", "pair_id": "551"}


def test_the_diagnostics_are_asked_as_rte(tiny_tokenizer):
    broad, answers, gold = shown("ax_b", AX_B, tiny_tokenizer)
    assert broad[0] == '"A cat did not sit" ? [MASK], "A cat sat."'
    assert (answers, gold) == (("Yes", "No"), 1)
    assert shown("ax_g", AX_G, tiny_tokenizer)[0][4] == "She met him. question: They met True or False? answer: [MASK]"
    for name in ("ax_b", "ax_g"):
        assert (defined(name).patterns, defined(name).labels) == (defined("rte").patterns, defined("rte").labels)


def test_pairs_of_ax_g_are_found_by_the_number_of_the_row():
    found, bad = items(defined("ax_g"), [AX_G, AX_G | {"idx": "6"}, AX_G | {"idx": "8"}, AX_G | {"idx": "x"}])
    assert [(item.joint, item.group) for item in found] == [("3", "3"), ("3", "3"), ("4", "4")]
    assert bad == ["a.jsonl:4: idx='x' is not the number of a row, by which pairs are found"]


COUNTS = [
    ("boolq", "BoolQ", "dev", [623, 1012]),
    ("boolq", "FewGLUE_32dev/BoolQ", "train", [14, 18]),
    ("boolq", "FewGLUE_32dev/BoolQ", "dev", [13, 19]),
    ("wic", "WiC", "train", [2714, 2714]),
    ("wic", "WiC", "dev", [170, 149]),
    ("wic", "FewGLUE_32dev/WiC", "dev32", [16, 16]),
    ("multirc", "MultiRC", "train", [15218, 12025]),
    ("multirc", "MultiRC", "dev", [1382, 1002]),
    ("wsc", "WSC", "train", [295, 259]),
    ("wsc", "WSC", "dev", [36, 16]),
    ("wsc", "FewGLUE_32dev/WSC", "train", [0, 32]),
    ("wsc", "FewGLUE_32dev/WSC", "dev", [22, 10]),
    ("ax_b", "AX-b", "dev", [460, 644]),
    ("ax_g", "AX-g", "dev", [178, 178]),
    ("rte", "FewGLUE_32dev/RTE", "train", [13, 19]),
    ("cb", "FewGLUE_32dev/CB", "dev", [13, 2, 17]),
    ("copa", "FewGLUE_32dev/COPA", "dev", [15, 17]),
]
WITHOUT_LABELS = [("boolq", "BoolQ", 3245), ("wic", "WiC", 1400), ("rte", "RTE", 3000), ("cb", "CB", 250)]
WITHOUT_LABELS += [("copa", "COPA", 500), ("wsc", "WSC", 146), ("multirc", "MultiRC", 9693)]


@pytest.mark.parametrize(("name", "folder", "split", "counts"), COUNTS)
def test_published_files_have_these_labels(shared, name, folder, split, counts):
    task, found = defined(name), published(shared, name, f"superglue/{folder}", split)
    golds = [task.gold_index(item) for item in found]
    assert [golds.count(number) for number in range(len(counts))] == counts
    assert len(golds) == sum(counts)


@pytest.mark.parametrize(("name", "folder", "count"), WITHOUT_LABELS)
def test_published_test_files_are_read_to_their_last_line_which_has_no_newline(shared, name, folder, count):
    found = published(shared, name, f"superglue/{folder}", "test")
    assert (len(found), {item.gold for item in found}) == (count, {None})


def test_every_published_passage_of_boolq_has_a_title_and_some_are_asked_twice(shared):
    found = published(shared, "boolq", "superglue/BoolQ", "dev")
    assert all(item.fields["passage"].startswith(f"{item.group} -- ") for item in found)
    assert len(found) - len({item.fields["passage"] for item in found}) == 105
    assert not any(item.fields["question"].endswith("?") for item in found)


MULTIRC = {
    "idx": "3",
    "passage": json.dumps(
        {
            "text": "Tom sold his boat. He bought a bike!",
            "questions": [
                {
                    "question": "What did Tom buy?",
                    "idx": 5,
                    "answers": [{"text": "A bike", "idx": 11, "label": 1}, {"text": "", "idx": 12, "label": 0}],
                },
                {"question": "Who sold it ?", "idx": 6, "answers": [{"text": "Tom", "idx": 13, "label": 1}]},
            ],
        }
    ),
}


def test_multirc(tiny_tokenizer):
    texts, answers, gold = shown("multirc", MULTIRC, tiny_tokenizer)
    passage, question = "Tom sold his boat. He bought a bike", "What did Tom buy"
    assert texts == [
        f"{passage}. Question: {question}? Is it A bike? [MASK].",
        f'{passage}. Question: {question}? Is the correct answer "A bike"? [MASK].',
        f'{passage}. Based on the previous passage, {question}? Is "A bike" a correct answer? [MASK].',
        f"{passage} {question}- [[MASK]]A bike",
        f"{passage}. Question: {question}? A bike? [MASK].",
    ]
    assert (answers, gold) == (("No", "Yes"), 1)
    assert defined("multirc").pattern(3).words == {"0": "False", "1": "True"}


def test_every_answer_to_every_question_of_multirc_is_an_item_and_a_question_is_judged_whole():
    found, _ = items(defined("multirc"), [MULTIRC])
    assert [(item.id, item.group, item.joint, item.gold) for item in found] == [
        ("3/5/11", "3", "3/5", "1"),
        ("3/5/12", "3", "3/5", "0"),
        ("3/6/13", "3", "3/6", "1"),
    ]
    assert (found[1].fields["answer"], found[2].fields["question"]) == ("", "Who sold it ")


def test_a_row_of_multirc_that_lacks_something_says_what():
    broken = [
        MULTIRC | {"passage": "a text"},
        MULTIRC | {"passage": '{"text": "a"}'},
        MULTIRC | {"passage": '{"text": "a", "questions": [{"question": "b?", "idx": 1}]}'},
        {"question": "does it", "passage": "A text", "idx": "0"},
    ]
    assert items(defined("multirc"), broken) == (
        [],
        [
            "a.jsonl:1: passage: expected a JSON object, got 'a text'",
            "a.jsonl:2: the passage has no 'questions', but text",
            "a.jsonl:3: the question 1 has no 'answers', but question, idx",
            "a.jsonl:4: passage: expected a JSON object, got 'A text'",
        ],
    )


RECORD_TEXT = "The Rome club beat Milan.\n@highlight\nMilan lost to Rome"
RECORD = {
    "idx": "8",
    "passage": json.dumps(
        {
            "text": RECORD_TEXT,
            "entities": [
                {"start": 4, "end": 7},
                {"start": 19, "end": 23},
                {"start": 37, "end": 41},
                {"start": 51, "end": 54},
            ],
        }
    ),
    "qas": json.dumps(
        [
            {"idx": 2, "query": "Fans of @placeholder cheered", "answers": [{"text": "Rome", "start": 4, "end": 7}]},
            {
                "idx": 3,
                "query": "@placeholder played",
                "answers": [{"text": name, "start": 0, "end": 0} for name in ("Milan", "Rome", "Milan")],
            },
        ]
    ),
}


def test_record(tiny_tokenizer):
    texts, answers, gold = shown("record", RECORD, tiny_tokenizer)
    assert texts == ["The Rome club beat Milan.\n- Milan lost to Rome Fans of [MASK] cheered"]
    assert (answers, gold) == (("Rome", "Milan"), 0)


def test_a_query_of_record_may_have_several_right_answers_and_begin_with_its_gap(tiny_tokenizer):
    found, _ = items(defined("record"), [RECORD])
    assert [(item.id, item.group, item.gold, item.golds) for item in found] == [
        ("8/2", "8", "0", ()),
        ("8/3", "8", "1", (1, 0)),
    ]
    task = defined("record")
    question = ask(task, task.pattern(), found[1], tiny_tokenizer, positions=512)
    assert question.text.endswith("Rome [MASK] played")
    assert (question.gold, question.item.golds) == (1, (1, 0))


def test_record_teaches_each_right_answer_among_nine_wrong_ones_at_most():
    names = tuple(f"name{n}" for n in range(15))
    one = Item("8/2", {}, "3", golds=(3, 5), candidates=names)
    taught = learned("record", one)
    assert [(item.id, item.gold, item.candidates[0]) for item in taught] == [
        ("8/2/3", "0", "name3"),
        ("8/2/5", "0", "name5"),
    ]
    assert [len({*item.candidates}) for item in taught] == [10, 10]
    assert taught[0].candidates[1:] == taught[1].candidates[1:]
    assert not {"name3", "name5"} & {*taught[0].candidates[1:]}
    assert taught == learned("record", one)


def test_rows_of_record_that_cannot_be_asked_say_why_and_cost_no_other_query():
    queries = [
        {"idx": 1, "query": "no gap", "answers": [{"text": "Rome"}]},
        {"idx": 2, "query": "@placeholder won", "answers": [{"text": "Turin"}]},
        {"idx": 3, "query": "@placeholder won", "answers": [{"text": "club"}]},
        {"idx": 4, "query": "@placeholder won", "answers": []},
    ]
    far = json.dumps({"text": "short", "entities": [{"start": 3, "end": 9}]})
    rows = [RECORD | {"qas": json.dumps(queries)}, RECORD | {"passage": far}]
    found, bad = items(defined("record"), rows)
    assert [(item.id, item.gold) for item in found] == [("8/4", None)]
    assert bad == [
        "a.jsonl:1: the query 'no gap' needs @placeholder once, which stands for the answer",
        "a.jsonl:1: the answer 'Turin' is not found in the passage",
        "a.jsonl:1: the answer 'club' is not an entity of the passage",
        "a.jsonl:2: an entity from 3 to 9 lies outside the passage of 5 characters",
    ]


def test_the_published_multirc_keeps_questions_without_a_right_answer_and_repeated_answers(shared):
    found = published(shared, "multirc", "superglue/MultiRC", "train")
    questions: dict[str, list[Item]] = {}
    for item in found:
        questions.setdefault(item.joint, []).append(item)
    golds = [[item.gold for item in several] for several in questions.values()]
    answers = [[item.fields["answer"].strip().lower() for item in several] for several in questions.values()]
    assert (len(found), len({item.group for item in found}), len(golds)) == (27243, 456, 5131)
    assert (sum("1" not in several for several in golds), sum("0" not in several for several in golds)) == (23, 23)
    assert sum(several.count("1") == 1 for several in golds) == 1382
    assert sum(len({*several}) < len(several) for several in answers) == 33
    assert sum("" in several for several in answers) == 3


def test_published_spans_of_record_end_inclusively_and_every_answer_is_an_entity(shared):
    found = [
        item
        for split in ("train", "dev32")
        for item in published(shared, "record", "superglue/FewGLUE_32dev/ReCoRD", split)
    ]
    assert len(found) == 64
    assert all(item.gold and len({*item.candidates}) == len(item.candidates) for item in found)
    assert sum(len(item.golds) > 1 for item in found) == 25
    assert not any("@highlight" in item.fields["passage"] for item in found)


def test_published_pairs_of_ax_g_share_hypothesis_and_label_and_differ_in_their_premise(shared):
    found = published(shared, "ax_g", "superglue/AX-g", "dev")
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.joint == second.joint
        assert (first.fields["hypothesis"], first.gold) == (second.fields["hypothesis"], second.gold)
        assert first.fields["premise"] != second.fields["premise"]


def test_every_published_pronoun_of_wsc_is_marked_and_one_of_val_is_repaired(shared):
    for split in ("train", "dev", "test"):
        for item in published(shared, "wsc", "superglue/WSC", split):
            assert f"*{item.fields['pronoun']}*".lower() in item.fields["text"].lower()
            assert item.fields["text"].count("*") == 2
    (repaired,) = [item for item in published(shared, "wsc", "superglue/WSC", "dev") if item.id == "42"]
    assert "*" in repaired.fields["text"]
    # Of 279 texts, a few differ in nothing but white space.
    assert len({item.group for item in published(shared, "wsc", "superglue/WSC", "train")}) == 275
