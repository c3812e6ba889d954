"""Law 16: a score does not depend on how it was computed; items.parquet has equal bytes. Law 17: it is enough for all
scores. Law 18: the digest of a task's rendered items changes only with its version.
"""

import hashlib
from pathlib import Path

import pytest
from helpers import asked

from glm_model.tokenizer import Tokenizer
from infra.console import Console
from infra.storage import parquet
from pipelines import plugins, tasks
from pipelines.metrics.scores import scores
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import ask
from pipelines.questions.rows import BadRow, Row
from workflows.answering import answers
from workflows.evaluation import evaluation
from workflows.evaluation.ask_models import ask_models
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import find_models
from workflows.evaluation.results import results_of
from workflows.evaluation.tasks import task_configs


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(answers, "POSITIONS", 100)
    monkeypatch.setattr(evaluation, "_ROWS", 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> str:
    return asked.model_folder(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture
def evaluate(tmp_path, model):
    def evaluate(rows, *, to: str, **changes) -> Evaluated:
        data = asked.write(tmp_path / f"data-{to}" / "dev.jsonl", rows)
        options = asked.options(data, model, tmp_path / to, **changes)
        models = find_models(options.models)
        (one,) = ask_models(options, task_configs(options, models), models, Console(options.console))
        return one

    return evaluate


def items_bytes(one: Evaluated) -> bytes:
    return Path(one.url, "items.parquet").read_bytes()


def test_the_order_of_items_plays_no_part(evaluate):
    rows = asked.rows(30)
    one, other = evaluate(rows, to="one"), evaluate(rows[::-1], to="other")
    assert len(parquet.read_table(f"{one.url}/timing.parquet")) > 3
    assert items_bytes(one) == items_bytes(other)
    assert one.items["item"].to_pylist()[:3] == ["item-0", "item-1", "item-2"]


def test_an_evaluation_that_was_stopped_anywhere_continues_to_the_same_bytes(evaluate, monkeypatch):
    rows, whole = asked.rows(30), None
    stops = iter(range(1, 9))
    write = parquet.write_table

    def write_and_stop(url, table, **options):
        write(url, table, **options)
        if next(stops, 0) % 2:
            raise KeyboardInterrupt

    whole = evaluate(rows, to="whole")
    monkeypatch.setattr(parquet, "write_table", write_and_stop)
    stopped = 0
    while True:
        try:
            found = evaluate(rows, to="stopped")
            break
        except KeyboardInterrupt:
            stopped += 1
    assert stopped == 4
    assert items_bytes(found) == items_bytes(whole)
    assert not Path(found.url, "parts").exists()


def test_what_is_answered_is_not_asked_again(evaluate, monkeypatch):
    one = evaluate(asked.rows(30), to="one")
    monkeypatch.setattr("workflows.evaluation.workers.answer", None)  # who asks the model fails
    assert evaluate(asked.rows(30), to="one").items.equals(one.items)


@pytest.mark.ray
def test_the_number_of_workers_plays_no_part(evaluate, local_ray):
    rows = asked.rows(30)
    assert items_bytes(evaluate(rows, to="here")) == items_bytes(evaluate(rows, to="actors", num_workers=2))


def test_scores_follow_from_the_items_without_the_model(evaluate):
    one = evaluate(asked.rows(30), to="one")
    found = scores(parquet.read_table(f"{one.url}/items.parquet"), ("accuracy",), classes=2)
    (result,) = results_of(one)
    assert [(score.value, *(score.interval or ()), score.n, score.majority) for score in found] == [
        (result.value, result.low, result.high, 30, pytest.approx(100 * 2 / 3))
    ]


GOLDEN = {
    "rte": {"premise": "It rained.", "hypothesis": "The street is wet.", "idx": "7", "label": "entailment"},
    "cb": {"premise": "It rained.", "hypothesis": "The street is wet", "idx": "7", "label": "neutral"},
    "copa": {"premise": "I slept.", "choice1": "I sat.", "choice2": "It ran.", "question": "effect", "idx": "1"},
    "boolq": {"passage": "Rain -- It rained.", "question": "did it rain", "idx": "7", "label": "true"},
    "wic": {"word": "cat", "sentence1": "A cat sat.", "sentence2": "The cat ran.", "idx": "7", "label": "true"},
    "multirc": {
        "idx": "7",
        "passage": '{"text": "It rained.", "questions": [{"question": "Did it?", "idx": 1, '
        '"answers": [{"text": "Yes", "idx": 2, "label": 1}]}]}',
    },
    "record": {
        "idx": "7",
        "passage": '{"text": "Ann ran.", "entities": [{"start": 0, "end": 2}]}',
        "qas": '[{"idx": 1, "query": "@placeholder sat", "answers": [{"text": "Ann"}]}]',
    },
    "wsc": {
        "text": "The cat sat as it ran.",
        "target": '{"span1_text": "The cat", "span2_text": "it", "span2_index": 4}',
        "idx": "7",
        "label": "true",
    },
    "ax_b": {"sentence1": "It rained.", "sentence2": "It was wet.", "idx": "7", "label": "entailment"},
    "ax_g": {"premise": "She met him.", "hypothesis": "They met.", "idx": "7", "label": "entailment"},
    "blimp": {"sentence_good": "She runs.", "sentence_bad": "She run.", "UID": "agreement", "pairID": "3"},
    "hellaswag": {"ctx": "A cat", "endings": '["ran.", ", and sat."]', "label": "1", "ind": "7"},
    "piqa": {"goal": "To sit", "sol1": "sit", "sol2": "run", "label": "0"},
    "mmlu": {
        **{"subject": "world_cats", "question": "Who ran?", "A": "a cat", "B": "a dog", "C": "it", "D": "a cat"},
        "answer": "D",
    },
    "lambada": {"text": 'It rained.\n"Go" said the dog'},
    "perplexity": {"text": "= Dogs =\n\nA dog ran.", "words": "7", "id": "2"},
    "multiple_choice": {"query": "Question: Who ran?", "choices": '["a cat", "a dog"]', "gold": "1"},
    "seq2seq": {"source": "A cat sat. It ran.", "target": '["a cat", "it ran"]'},
    "infilling": {"text": "A [MASK] sat on [MASK] mat", "answers": '["cat", "the old"]'},
    "wiki_split": {"source": "A cat sat and it ran .", "target": "A cat sat . <::::> It ran ."},
    "squad": {
        "id": "q",
        "context": "A cat sat on the mat.",
        "question": "Where did it sit?",
        "answers": '[{"text": "the mat", "answer_start": 13}, {"text": "mat", "answer_start": 17}]',
    },
    "squad_questions": {
        "id": "q",
        "context": "A cat sat on the mat.",
        "question": "Where did it sit?",
        "answers": '[{"text": "the mat", "answer_start": 13}]',
    },
    "classification": {"text": "A [MASK] day.", "label": "good"},
    "pair_classification": {"text": "A day.", "text2": "A cat.", "label": "bad"},
}
# A change here means that scores are no longer comparable with earlier ones: raise the task's VERSION with it.
VERSIONS = {
    "rte": (1, "946b60e53b2635e0"),
    "cb": (1, "d086034058af75b1"),
    "copa": (1, "a25b074817964b04"),
    "boolq": (1, "a3d7a253e4909c75"),
    "wic": (1, "d5b00c516a513fbb"),
    "multirc": (1, "338b5b2487b89d8b"),
    "record": (1, "4df3c37d0c3ff946"),
    "wsc": (1, "3a6744e6fd518a28"),
    "ax_b": (1, "3fa6e96d1651ba84"),
    "lambada": (1, "c7b68f86331785fc"),
    "perplexity": (1, "e5c36b74cb03bf5e"),
    "ax_g": (1, "5813971d9442ac37"),
    "blimp": (1, "c530dfdcf36936c4"),
    "hellaswag": (1, "43d1dc79a86f39b0"),
    "piqa": (1, "0763f980d015f247"),
    "mmlu": (1, "3c86cc4101361e10"),
    "multiple_choice": (1, "30e93c23ee875950"),
    "seq2seq": (1, "2327de0e7a0646a2"),
    "infilling": (1, "c03183c1f39f71a0"),
    "wiki_split": (1, "8f691c0817237fe2"),
    "squad": (1, "2ee8aea8ab3127b3"),
    "squad_questions": (1, "9eb35db6631de10b"),
    "classification": (1, "08d44f085a73a98c"),
    "pair_classification": (1, "3bb4cacec04b52ec"),
}


def rendered(name: str, tokenizer: Tokenizer) -> tuple[int, str]:
    """(version, digest of the golden item as every pattern shows it, with candidates and gold)."""
    words = {"bad": "terrible", "good": "great"} if "classification" in name else {}
    task = tasks.define(TaskConfig(name=name, words=words), lambda: [])
    ((_, item),) = task.items(iter([Row("golden.jsonl", 1, GOLDEN[name])]))
    assert not isinstance(item, BadRow), item
    told = []
    for pattern in task.patterns:
        question = ask(task, pattern, item, tokenizer, positions=512)
        told.append(repr((item.id, item.group, question.text, question.answers, question.gold, question.count_end)))
    told += [repr((item.joint, item.golds))] if item.joint or item.golds else []
    told += [repr((item.words, task.stride))] if task.stride else []
    told += [repr((item.blanks, item.source, task.generation.max_tokens))] if task.generation else []
    return task.version, hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def test_every_task_has_a_golden_question():
    assert {*GOLDEN} == {*VERSIONS} == {*plugins.names(tasks)}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_questions_change_only_with_the_version_of_their_task(name, tiny_tokenizer):
    assert rendered(name, tiny_tokenizer) == VERSIONS[name]
