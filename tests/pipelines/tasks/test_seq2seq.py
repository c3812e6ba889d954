"""Seq2seq: pair files, tables and lists become items; what is wrong with a row is said; what is learned and asked."""

import json
from pathlib import Path

import pytest

from infra.errors import DataError, UserError
from pipelines import tasks
from pipelines.questions.config import GenerationConfig, TaskConfig
from pipelines.questions.question import ask, ask_all
from pipelines.questions.rows import BadRow, Row
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item


def config(**changes) -> TaskConfig:
    return TaskConfig(name="seq2seq", **changes)


def items(options: TaskConfig, split: str) -> list[Item | BadRow]:
    splits = tasks.find_splits(options)
    task = tasks.define(options, lambda: [])
    return [item for _, item in task.items(split_rows(splits, split, columns=options.columns))]


def item(**fields: str) -> Item | BadRow:
    ((_, found),) = tasks.define(config(), lambda: []).items([Row("a.jsonl", 3, fields)])
    return found


def write(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return str(folder)


def test_a_line_of_the_sources_belongs_to_the_line_of_the_targets(tmp_path):
    data = write(
        tmp_path,
        train_source="The cat sat. It ran.\nA dog\n",
        train_target="a cat\na dog",
        val_source="Go home\n",
        val_target="home\n",
        test_source="A mat\n",
    )
    first, second = items(config(data=data), "train")
    assert (first.id, first.fields, first.candidates, first.gold) == (
        *("1", {"source": "The cat sat. It ran."}, ("a cat",)),
        "0",
    )
    assert (second.id, second.candidates) == ("2", ("a dog",))
    assert [one.candidates for one in items(config(data=data), "dev")] == [("home",)]
    assert [(one.gold, one.candidates) for one in items(config(data=data), "test")] == [(None, ())]


def test_pair_files_of_unlike_lengths_are_refused(tmp_path):
    data = write(tmp_path, train_source="a\nb\n", train_target="a\n")
    with pytest.raises(DataError, match=r"train.source has more lines than \S+train.target"):
        items(config(data=data), "train")


def test_columns_of_a_table_without_a_header_are_named_by_the_recipe(tmp_path):
    data = write(tmp_path, train_tsv="one\tA cat.\ta\ntwo\tA dog.\tb\n")
    options = config(data=data, columns=["key", "long", "short"], source="long", target="short", id="key")
    splits = tasks.find_splits(options)
    task = tasks.define(options, lambda: [])
    rows = splits["train"].rows(options.columns)
    assert [(one.id, one.fields["source"], one.candidates) for _, one in task.items(rows)] == [
        ("one", "A cat.", ("a",)),
        ("two", "A dog.", ("b",)),
    ]


def test_a_list_is_the_sentences_of_a_source_and_several_right_targets():
    found = item(source=json.dumps(["A cat sat.", " It ran. "]), target=json.dumps(["a cat", "cats", "a cat"]))
    assert (found.fields["source"], found.candidates, found.golds) == ("A cat sat. It ran.", ("a cat", "cats"), (0, 1))
    learned = list(tasks.define(config(), lambda: []).train_items(found))
    assert [(one.id, one.candidates, one.golds) for one in learned] == [("3/0", ("a cat",), ()), ("3/1", ("cats",), ())]
    assert item(source="[1] A cat", target="[x").candidates == ("[x",)  # which no list of texts is
    assert item(source="a", target="One. <S_SEP> Two.").candidates == ("One.\nTwo.",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": " ", "target": "a"}, "the source is empty"),
        ({"source": "[]", "target": "a"}, "the source is empty"),
        ({"source": "a", "target": ""}, "the target is empty"),
        ({"source": "a", "target": '["", " "]'}, "the target is empty"),
        ({"document": "a", "target": "b"}, "no field 'source', but document, target"),
    ],
)
def test_a_row_that_is_no_pair_says_why(fields, reason):
    assert str(item(**fields)).endswith(reason)


def test_the_mask_stands_behind_the_source_or_in_front(tiny_tokenizer):
    pair = item(source="the cat sat", target="a mat")
    for name, text in ((None, "the cat sat [MASK]"), ("front", "[MASK] Content: the cat sat")):
        task = tasks.define(config(pattern=name), lambda: [])
        question = ask(task, task.pattern(), pair, tiny_tokenizer, positions=64)
        assert question.text == text
        assert [tiny_tokenizer.decode(one).strip() for one in question.candidates] == ["a mat"]
        assert (question.kind, question.count_end, question.gold) == ("generate", True, 0)


def test_limits_of_the_recipe_cut_source_and_target(tiny_tokenizer):
    options = config(generation=GenerationConfig(max_source=8, max_tokens=3))
    task = tasks.define(options, lambda: [])
    row = Row("a.jsonl", 1, {"source": "the cat sat on the mat " * 4, "target": "the dog ran home then"})
    (learned,) = ask_all(task, [row], tiny_tokenizer, positions=64, learns=True)
    assert len(learned.prompt.tokens) <= 8
    assert learned.cut == 24 + 3 - len(learned.prompt.tokens)
    assert (len(learned.candidates[0]), learned.target_cut, learned.count_end) == (3, (2,), False)
    (asked,) = ask_all(task, [row], tiny_tokenizer, positions=64)
    assert (len(asked.candidates[0]), asked.target_cut, asked.count_end) == (5, (), True)
    assert asked.positions == max(len(asked.prompt.tokens) + 6, len(asked.prompt.tokens) + 4)
    (short,) = ask_all(task, [row], tiny_tokenizer, positions=4, learns=True)
    assert "positions" in str(short)  # the mask alone does not fit


def test_a_limit_that_the_model_cannot_write_is_refused(tiny_tokenizer):
    task = tasks.define(config(generation=GenerationConfig(max_tokens=64)), lambda: [])
    with pytest.raises(UserError, match="max_tokens=64 is more than the 63 tokens"):
        list(ask_all(task, [Row("a.jsonl", 1, {"source": "a", "target": "b"})], tiny_tokenizer, positions=64))


def test_settings_that_do_nothing_are_refused():
    with pytest.raises(UserError, match=r"task.label does nothing with the task seq2seq"):
        tasks.define(config(label="stars"), lambda: [])
    with pytest.raises(UserError, match=r"task.generation is for tasks that generate texts"):
        tasks.define(TaskConfig(name="rte", generation=GenerationConfig(beams=2)), lambda: [])
    usual = GenerationConfig(min_tokens=1, beams=1, length_penalty=1.0, no_repeat_ngram=0)  # as task.json may say
    assert tasks.define(TaskConfig(name="rte", generation=usual), lambda: []).generation is None
    with pytest.raises(UserError, match=r"min_tokens=9 is more than max_tokens=4"):
        tasks.define(config(generation=GenerationConfig(min_tokens=9, max_tokens=4)), lambda: [])


def test_baselines_copy_the_source_or_its_first_sentence():
    task, pair = tasks.define(config(), lambda: []), item(source="A cat sat. It ran.", target="a")
    assert {name: teach([])(pair) for name, teach in task.baselines.items()} == {
        "copy": ("A cat sat. It ran.",),
        "first sentence": ("A cat sat.",),
    }


def test_half_a_character_in_a_list_is_no_text(tmp_path):
    """JSON may hold half of a character of two units, which no file of UTF-8 can."""
    data = write(tmp_path, dev_jsonl=r'{"source": ["a \ud83d"], "target": ["b \ud83d", "c"]}')
    (one,) = items(config(data=data), "dev")
    assert (one.fields["source"], one.candidates) == ("a \ufffd", ("b \ufffd", "c"))
    assert item(source="a", target=r'["b \ud83d"]').candidates == ("b \ufffd",)


def test_one_file_is_cut_between_sources(tmp_path):
    rows = [{"text": f"source {n // 3}", "target": f"target {n}"} for n in range(120)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = config(data=f"{tmp_path}/all.jsonl", source="text")
    found = {split: items(options, split) for split in ("train", "dev", "test")}
    sources = {split: {one.fields["source"] for one in several} for split, several in found.items()}
    assert [len(several) for several in sources.values()] == [32, 4, 4]
    assert len(set.union(*sources.values())) == 40
    assert sorted(one.candidates[0] for several in found.values() for one in several) == sorted(
        row["target"] for row in rows
    )
