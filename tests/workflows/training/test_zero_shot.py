"""Tasks that a model is asked while it is trained: the scores are those of evaluate.py, whoever answers."""

import math

import pytest
import torch
from helpers import asked

from glm_model import from_pretrained
from infra.console import Console, ConsoleConfig
from infra.errors import DataError, UserError
from pipelines.questions.config import TaskConfig
from workflows.evaluation.ask_models import ask_models
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import find_models
from workflows.evaluation.results import results_of
from workflows.settings.eval_tasks import check_eval_tasks
from workflows.settings.recipe import EvalTask
from workflows.training.engine import Place
from workflows.training.ranks import Ranks
from workflows.training.zero_shot import answered, scores_of, zero_shot_of, zero_shot_scores

QUIET = Console(ConsoleConfig(quiet=True))
LIMIT = 9


def place(rank: int = 0, world: int = 1) -> Place:
    return Place(Ranks(rank, world, torch.device("cpu")), "fp32", False, lambda: None)


@pytest.fixture(scope="module")
def model(tiny_tokenizer, tmp_path_factory):
    return asked.model_folder(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Pairs to choose from, words to write, endings to compare; 14 items of each."""
    folder, rows = tmp_path_factory.mktemp("tasks"), asked.rows(14)
    asked.write(folder / "pairs" / "dev.jsonl", [
        {"UID": f"group-{n % 3}", "pairID": str(n), "sentence_good": f"{row['text']}.", "sentence_bad": row["text"]}
        for n, row in enumerate(rows)
    ])  # fmt: skip
    asked.write(folder / "words" / "dev.jsonl", [{"text": f"the {row['text']} ran"} for row in rows])
    asked.write(folder / "endings" / "dev.jsonl", [
        {"ind": n, "ctx": row["text"], "endings": ["ran home", "sat", "then go on"], "label": str(n % 3)}
        for n, row in enumerate(rows)
    ])  # fmt: skip
    names = {"blimp": "pairs", "lambada": "words", "hellaswag": "endings"}
    return [EvalTask(name, f"{folder}/{place}") for name, place in names.items()]


def test_scores_are_those_of_evaluate_to_the_last_bit(model, tasks, tiny_tokenizer, tmp_path):
    several = zero_shot_of(tasks, tiny_tokenizer, positions=48, limit=LIMIT)
    found = zero_shot_scores(several, from_pretrained(model), tiny_tokenizer, place())
    assert [len(one.questions) for one in several] == [LIMIT] * 3
    expected = {}
    for task in tasks:
        config = TaskConfig(name=task.name, data=task.data)
        options = EvaluateConfig(models=[model], to=str(tmp_path), limit=LIMIT, without_context=False)
        (one,) = ask_models(options, [config], find_models([model]), QUIET)
        expected |= {f"eval/{task.name}/{result.metric}": result.value for result in results_of(one)}
    assert found == expected
    assert {"eval/blimp/accuracy", "eval/lambada/bits", "eval/hellaswag/accuracy_per_byte"} < {*found}
    assert 0 < found["eval/hellaswag/accuracy"] < 100


def test_labels_are_those_of_the_train_split(model, tiny_tokenizer, tmp_path):
    rows = [{"text": row["text"], "label": ("cat", "mat", "dog")[n % 3]} for n, row in enumerate(asked.rows(12))]
    asked.write(tmp_path / "data" / "train.jsonl", rows)
    asked.write(tmp_path / "data" / "dev.jsonl", [row for row in rows if row["label"] != "cat"])
    task = EvalTask("classification", f"{tmp_path}/data")
    (found,) = zero_shot_of([task], tiny_tokenizer, positions=48, limit=LIMIT)
    assert found.classes == 3
    assert {question.answers for question in found.questions} == {("cat", "dog", "mat")}


def test_the_number_of_workers_is_invisible(model, tasks, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr("workflows.answering.answers.POSITIONS", 30)
    several = zero_shot_of(tasks, tiny_tokenizer, positions=48, limit=LIMIT)
    assert all(len(one.batches) > 2 for one in several)
    loaded = from_pretrained(model)
    for one in several:
        alone, *sums = (
            sum(answered(one, loaded, tiny_tokenizer, place(rank, world)) for rank in range(world))
            for world in (1, 2, 3, 20)
        )
        assert all(torch.equal(alone, found) for found in sums)


def test_training_goes_on_as_if_nothing_was_asked(model, tasks, tiny_tokenizer):
    loaded = from_pretrained(model).train()
    before = torch.get_rng_state()
    zero_shot_scores(zero_shot_of(tasks, tiny_tokenizer, positions=48, limit=2), loaded, tiny_tokenizer, place())
    assert loaded.training
    assert torch.equal(torch.get_rng_state(), before)
    inputs = torch.randint(0, 30, (1, 6)), torch.arange(6)[None], torch.zeros(1, 6, dtype=torch.int64)
    loaded(*inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_weights_that_are_not_finite_have_no_scores_and_end_nothing(model, tasks, tiny_tokenizer):
    (pairs,) = zero_shot_of(tasks[:1], tiny_tokenizer, positions=48, limit=LIMIT)
    broken = from_pretrained(model)
    with torch.no_grad():
        broken.token_embedding.weight.fill_(math.nan)
    assert math.isnan(scores_of(pairs, answered(pairs, broken, tiny_tokenizer, place()))["accuracy"])


def test_what_cannot_be_asked_is_said_before_a_training(tasks, tiny_tokenizer, tmp_path):
    pairs, *_ = tasks
    check_eval_tasks(tasks)
    with pytest.raises(UserError, match="names blimp twice"):
        check_eval_tasks([pairs, pairs])
    with pytest.raises(UserError, match="names blimp twice"):
        check_eval_tasks([pairs, EvalTask("mine.blimp", pairs.data)])
    with pytest.raises(UserError, match="has no split 'test' of blimp"):
        check_eval_tasks([EvalTask("blimp", pairs.data, "test")])
    with pytest.raises(DataError, match="does not exist"):
        check_eval_tasks([EvalTask("lambada", f"{tmp_path}/nowhere")])
    with pytest.raises(UserError, match="blimp"):
        check_eval_tasks([EvalTask("blimpp", pairs.data)])
    asked.write(tmp_path / "long" / "dev.jsonl", [{"text": f"go {'.' * 60}"}])
    with pytest.raises(DataError, match="0 of 1 items of the split 'dev' of lambada can be asked"):
        zero_shot_of([EvalTask("lambada", f"{tmp_path}/long")], tiny_tokenizer, positions=48, limit=LIMIT)
    asked.write(tmp_path / "some" / "dev.jsonl", [{"text": f"go {'.' * 60}"}, {"text": "the cat sat"}])
    with pytest.raises(DataError, match="1 of 2 items of the split 'dev' of lambada can be asked"):
        zero_shot_of([EvalTask("lambada", f"{tmp_path}/some")], tiny_tokenizer, positions=48, limit=LIMIT)
    asked.write(tmp_path / "texts" / "dev.jsonl", [{"source": "the cat", "target": "sat"}])
    with pytest.raises(UserError, match="seq2seq writes whole texts"):
        zero_shot_of([EvalTask("seq2seq", f"{tmp_path}/texts")], tiny_tokenizer, positions=48, limit=LIMIT)
