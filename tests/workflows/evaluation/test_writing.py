"""Texts that a model generates are kept with their lengths, and judged beside what costs nothing to write."""

import json
import math
from pathlib import Path

import pytest
from helpers import asked

from glm_model import Decoding, fill_batch, from_pretrained, score
from glm_model.tokenizer import Tokenizer
from infra.console import Console
from infra.storage import parquet
from pipelines.questions.config import BlanksConfig, GenerationConfig, TaskConfig
from pipelines.questions.generation import Generation
from workflows.evaluation import page
from workflows.evaluation.ask_models import ask_models
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import find_models
from workflows.evaluation.results import counts_line, counts_of, results_of, table_rows
from workflows.evaluation.tasks import ask_task, task_configs

ROWS = [
    {"source": "the cat sat on the mat", "target": ["a cat", "the cat sat"]},
    {"source": "the dog ran home then. it said go", "target": ["the dog ran home then"]},
    {"source": "a mat", "target": ["then go home on the mat"]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> str:
    return asked.model_folder(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture
def evaluate(tmp_path, model):
    def evaluate(rows: list[dict], *, to: str = "out", id_: str | None = None, **generation) -> Evaluated:
        data = asked.write(tmp_path / f"data-{to}" / "dev.jsonl", rows)
        options = asked.options(data, model, tmp_path / to)
        options.task.name, options.task.id, options.task.words = "seq2seq", id_, {}
        options.task.generation = GenerationConfig(**generation)
        models = find_models(options.models)
        (one,) = ask_models(options, task_configs(options, models), models, Console(options.console))
        return one

    return evaluate


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_is_what_the_model_fills_in(evaluate, model, beams):
    one = evaluate(ROWS, max_tokens=5, beams=beams, length_penalty=0.7)
    rows = parquet.read_table(one.items_url).to_pylist()
    glm, tokenizer = from_pretrained(model), Tokenizer.load(model)
    decoding = Decoding(max_tokens=5, beams=beams, **({"length_penalty": 0.7} if beams > 1 else {}))
    texts = [f"{row['source']} [MASK]" for row in ROWS]
    filled = [several[0].blanks[0] for several in fill_batch(glm, tokenizer, texts, decoding)]
    assert [row["question"] for row in rows] == texts
    assert [row["written"] for row in rows] == [blank.text.strip() for blank in filled]
    assert [[(b["written"], b["tokens"], b["ended"]) for b in row["blanks"]] for row in rows] == [
        [(blank.text.strip(), len(blank.tokens), len(blank.tokens) < 5)] for blank in filled
    ]
    rated = score(glm, tokenizer, texts[0], ROWS[0]["target"])
    assert rows[0]["logprobs"] == pytest.approx([each.logprob for each in rated], abs=1e-4)
    assert (rows[0]["tokens"], rows[0]["golds"], rows[0]["choice"]) == ([3, 4], [0, 1], None)
    assert rows[1]["blanks"][0]["right"] == "the dog ran home then"


def test_scores_stand_beside_baselines_and_lengths(evaluate):
    one = evaluate(ROWS, max_tokens=4)
    results = {result.metric: result for result in results_of(one)}
    assert list(results) == ["rougeLsum", "rouge1", "rouge2", "rougeL", "sacrebleu", "chrf", "bits_per_byte"]
    # Shared words, and pairs of words with the nearest target: 3 of 6 and 3, 5 of 8 and 5, 2 of 2 and 6; of the first
    # sentence 5 of 5 and 5.
    assert results["rouge1"].one_answer == pytest.approx(
        {
            "copy": 100 * (6 / 9 + 10 / 13 + 2 / 8) / 3,
            "first sentence": 100 * (6 / 9 + 1 + 2 / 8) / 3,
        }
    )
    assert results["sacrebleu"].variant.startswith("nrefs:var|case:mixed")
    assert results["bits_per_byte"].one_answer == {}
    columns, rows = table_rows(results.values())
    assert rows[1][columns.index("one answer")] == "first sentence 63.9, copy 56.2"
    counts = counts_of(one)
    assert counts.lengths is not None
    assert counts.lengths.blanks == 3
    assert "of 3 texts (" in counts_line(counts)
    html = page.render([one], list(results.values()), [], [])
    assert "Lengths that are written, for each right length" in html
    assert "then go home on the mat" in html


def test_each_blank_of_a_text_is_written_and_the_whole_text_is_judged(tmp_path, model):
    rows = [
        {"text": "the [MASK] sat on [MASK] mat", "answers": ["cat", "a"]},
        {"text": "the dog [MASK]", "answers": ["ran home"]},
        {"text": "a [MASK]"},
    ]
    options = asked.options(asked.write(tmp_path / "data" / "dev.jsonl", rows), model, tmp_path / "out")
    options.task.name, options.task.id, options.task.words = "infilling", None, {}
    options.task.generation.max_tokens = 3
    models = find_models(options.models)
    (one,) = ask_models(options, task_configs(options, models), models, Console(options.console))
    found = parquet.read_table(one.items_url).to_pylist()
    assert [row["candidates"] for row in found] == [["the cat sat on a mat"], ["the dog ran home"], []]
    glm, tokenizer = from_pretrained(model), Tokenizer.load(model)
    filled = [
        several[0] for several in fill_batch(glm, tokenizer, [row["text"] for row in rows], Decoding(max_tokens=3))
    ]
    assert [row["written"] for row in found] == [each.text for each in filled]
    assert [[blank["right"] for blank in row["blanks"]] for row in found] == [["cat", "a"], ["ran home"], [None]]
    assert [row["blanks"][0]["right_tokens"] for row in found] == [1, 2, None]
    rated = score(glm, tokenizer, rows[0]["text"], [["cat", "a"]])
    assert found[0]["logprobs"] == pytest.approx([rated[0].logprob], abs=1e-4)
    results = {result.metric: result for result in results_of(one)}
    bits = -(found[0]["logprobs"][0] + found[1]["logprobs"][0]) / math.log(2)
    assert results["bits_per_byte"].value == pytest.approx(bits / len("cataran home"))
    assert (results["exact_match"].n, results["sacrebleu"].n) == (3, 2)
    assert results["exact_match"].one_answer == {}


def test_a_right_text_that_is_longer_than_the_model_costs_the_others_nothing(evaluate, model):
    one = evaluate([{"source": "a mat", "target": ["the cat", "the cat sat on " * 20]}], max_tokens=2)
    (row,) = parquet.read_table(one.items_url).to_pylist()
    (rated,) = score(from_pretrained(model), Tokenizer.load(model), "a mat [MASK]", [["the cat"]])
    assert row["logprobs"] == [pytest.approx(rated.logprob, abs=1e-4), pytest.approx(math.nan, nan_ok=True)]
    bits = next(result for result in results_of(one) if result.metric == "bits_per_byte")
    assert (bits.value, bits.n) == (pytest.approx(-rated.logprob / math.log(2) / len("the cat")), 1)


def test_without_targets_there_are_answers_and_no_scores(evaluate):
    one = evaluate([{"source": row["source"]} for row in ROWS], max_tokens=4)
    assert results_of(one) == []
    rows = parquet.read_table(one.items_url).to_pylist()
    assert all(row["written"] and row["logprobs"] == [] and row["gold"] is None for row in rows)
    assert page.render([one], [], [], [])


def test_answers_depend_on_how_they_are_written_and_not_on_the_order_of_items(evaluate):
    rows = [{**row, "id": str(n)} for n, row in enumerate(ROWS)]
    first = evaluate(rows, id_="id", max_tokens=4)
    turned = evaluate(rows[::-1], to="turned", id_="id", max_tokens=4)
    assert parquet.read_table(first.items_url).equals(parquet.read_table(turned.items_url))
    other = evaluate(rows, to="other", id_="id", max_tokens=3)
    assert Path(first.url).name != Path(other.url).name
    told = json.loads(Path(first.url, "settings.json").read_text())
    assert told["generation"]["max_tokens"] == 4


def test_a_row_without_a_target_has_its_reason(evaluate, tmp_path):
    rows = [*ROWS, *({"source": "go", "target": "home"} for _ in range(97)), {"source": "a cat", "target": ""}]
    one = evaluate(rows, max_tokens=2)
    last = parquet.read_table(one.items_url).to_pylist()[-1]
    assert (last["item"], last["reason"]) == ("dev.jsonl:101", "the target is empty")


def test_items_with_other_answers_in_their_blanks_are_other_items(model, tmp_path):
    digests = set()
    for number, answer in enumerate(("cat", "dog")):
        data = asked.write(tmp_path / str(number) / "dev.jsonl", [{"text": "the [MASK] sat", "answers": [answer]}])
        (found,) = find_models([model])
        digests.add(ask_task(TaskConfig(name="infilling", data=data), found, split="dev").digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GenerationConfig(), Generation(max_tokens=5, beams=4, no_repeat_ngram=2)),
        (GenerationConfig(beams=1), Generation(max_tokens=5, beams=1, no_repeat_ngram=2)),
        (GenerationConfig(max_tokens=6, no_repeat_ngram=0), Generation(max_tokens=6, beams=4)),
    ],
)
def test_a_fine_tuned_model_keeps_the_limits_that_are_not_given(given, expected, tmp_path, tiny_tokenizer):
    (tmp_path / "model").mkdir()
    folder = asked.model_folder(tmp_path / "model", tiny_tokenizer)
    limits = GenerationConfig(max_tokens=5, beams=4, no_repeat_ngram=2)
    (found,) = find_models([asked.teach_task(folder, TaskConfig(name="seq2seq", generation=limits))])
    data = asked.write(tmp_path / "data" / "dev.jsonl", ROWS)
    config = TaskConfig(name="seq2seq", data=data, generation=given)
    assert ask_task(config, found, split="dev").task.generation == expected


def test_blanks_are_drawn_as_they_were_taught_where_nothing_else_is_given(tmp_path, tiny_tokenizer):
    (tmp_path / "model").mkdir()
    folder = asked.model_folder(tmp_path / "model", tiny_tokenizer)
    taught = TaskConfig(name="infilling", blanks=BlanksConfig(ratio=0.5, seed=3))
    (found,) = find_models([asked.teach_task(folder, taught)])
    data = asked.write(tmp_path / "data" / "dev.jsonl", [{"text": "the cat sat on the mat"}])
    config = TaskConfig(name="infilling", data=data, blanks=BlanksConfig(seed=1))
    assert ask_task(config, found, split="dev").config.blanks == BlanksConfig(ratio=0.5, seed=1)


def test_models_that_were_taught_other_limits_are_asked_their_task_together(tmp_path, tiny_tokenizer):
    data = asked.write(tmp_path / "data" / "dev.jsonl", ROWS)
    places = []
    for most in (2, 3):
        (tmp_path / f"at-most-{most}").mkdir()
        folder = asked.model_folder(tmp_path / f"at-most-{most}", tiny_tokenizer)
        recipe = TaskConfig(name="seq2seq", data=data, generation=GenerationConfig(max_tokens=most))
        places.append(asked.teach_task(folder, recipe))
    (config,) = task_configs(EvaluateConfig(), find_models(places))
    assert config == TaskConfig(name="seq2seq", data=data)


def test_each_model_writes_within_the_limits_that_it_was_taught(tmp_path, tiny_tokenizer):
    options = asked.options(asked.write(tmp_path / "data" / "dev.jsonl", ROWS), "", tmp_path / "out")
    options.task.name, options.task.id, options.task.words, options.models = "seq2seq", None, {}, []
    for most in (2, 3):
        (tmp_path / f"at-most-{most}").mkdir()
        folder = asked.model_folder(tmp_path / f"at-most-{most}", tiny_tokenizer)
        recipe = TaskConfig(name="seq2seq", generation=GenerationConfig(max_tokens=most))
        options.models.append(asked.teach_task(folder, recipe))
    models = find_models(options.models)
    found = ask_models(options, task_configs(options, models), models, Console(options.console))
    assert [one.asked.task.generation for one in found] == [Generation(max_tokens=2), Generation(max_tokens=3)]
