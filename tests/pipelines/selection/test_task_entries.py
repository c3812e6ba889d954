"""A task is an evaluation set: what is asked is found in documents, what was public before is not looked for."""

import json

import pytest

from infra.errors import DataError, UserError
from pipelines.selection.config import EvaluationSet
from pipelines.selection.contamination import read_entries
from pipelines.selection.window_index import find_shared

LONG = {name: f"{name} " + " ".join(f"{name}{n}" for n in range(30)) for name in "abcdefgh"}


def write(path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rte(number: int, premise: str, hypothesis: str) -> dict:
    return {"idx": number, "premise": LONG[premise], "hypothesis": LONG[hypothesis], "label": "entailment"}


def found(one: EvaluationSet, *documents: str) -> list[tuple[str, int]]:
    """(file, line) of the entry that each document shares text with."""
    entries = read_entries([one])
    number, entry = find_shared(list(documents), entries.index)
    assert number.tolist() == sorted({*number.tolist()}), "an entry a document"
    return [entries.names[one][1:] for one in entry.tolist()]


def test_what_is_asked_of_a_task_is_found_and_its_public_context_and_its_train_split_are_not(tmp_path):
    write(tmp_path / "RTE" / "train.jsonl", rte(1, "a", "b"))
    write(tmp_path / "RTE" / "val.jsonl", rte(1, "c", "d"), rte(2, "c", "e"))
    write(tmp_path / "RTE" / "test.jsonl", rte(1, "f", "g"))
    one = EvaluationSet("task:rte", str(tmp_path / "RTE"))
    asked = [f"so {LONG[name]}!" for name in "deg"]
    assert found(one, *asked) == [("val.jsonl", 1), ("val.jsonl", 2), ("test.jsonl", 1)]
    assert found(one, *(LONG[name] for name in "abcf")) == []
    assert found(EvaluationSet("task:rte", one.url, fields=["premise"]), LONG["f"], LONG["g"]) == [("test.jsonl", 1)]


def test_candidates_of_an_item_are_asked(tmp_path):
    row = {"idx": 0, "premise": LONG["a"], "choice1": LONG["b"], "choice2": LONG["c"], "question": "cause", "label": 1}
    write(tmp_path / "val.jsonl", row)
    assert found(EvaluationSet("task:copa", str(tmp_path)), *(LONG[name] for name in "abcd")) == 3 * [("val.jsonl", 1)]
    assert read_entries([EvaluationSet("task:copa", str(tmp_path))]).too_short == {tmp_path.name: 0}


def test_a_file_from_which_nothing_is_learned_is_asked_whole_and_once(tmp_path):
    pairs = [
        {"sentence_good": LONG[good], "sentence_bad": LONG[bad], "UID": "order", "pairID": number}
        for number, (good, bad) in enumerate(["ab", "cd", "ef"])
    ]
    write(tmp_path / "blimp.jsonl", *pairs)
    one = EvaluationSet("task:blimp", str(tmp_path / "blimp.jsonl"))
    assert found(one, *(LONG[name] for name in "abcdefg")) == [("blimp.jsonl", n) for n in (1, 1, 2, 2, 3, 3)]


def test_own_files_are_asked_by_the_columns_of_their_options(tmp_path):
    write(tmp_path / "dev.jsonl", {"body": LONG["a"], "note": LONG["b"], "stars": "good"})
    one = EvaluationSet("task:classification", str(tmp_path), options={"text": "body", "label": "stars"})
    assert found(one, LONG["a"], LONG["b"]) == [("dev.jsonl", 1)]


def test_mistakes(tmp_path):
    write(tmp_path / "val.jsonl", rte(1, "a", "b"), {"idx": 2, "premise": "x"})
    with pytest.raises(DataError, match=r"val.jsonl:2: no field 'hypothesis'.*\n.*--options.max_bad=0.51"):
        read_entries([EvaluationSet("task:rte", str(tmp_path))])
    read_entries([EvaluationSet("task:rte", str(tmp_path), options={"max_bad": 0.6})])
    with pytest.raises(UserError, match="unknown task 'rta'; did you mean 'rte'"):
        read_entries([EvaluationSet("task:rta", str(tmp_path))])
    with pytest.raises(UserError, match="unknown key 'texts' in the options of task:rte"):
        read_entries([EvaluationSet("task:rte", str(tmp_path), options={"texts": "body"})])
    with pytest.raises(UserError, match="an item of rte has no field 'premises'"):
        read_entries([EvaluationSet("task:rte", str(tmp_path), fields=["premises"], options={"max_bad": 0.6})])
    write(tmp_path / "empty" / "val.jsonl")
    with pytest.raises(DataError, match="asks nothing"):
        read_entries([EvaluationSet("task:rte", str(tmp_path / "empty"))])
