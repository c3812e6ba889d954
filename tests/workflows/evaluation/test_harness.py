"""lm-evaluation-harness as an outside check: what it makes of our model's likelihoods is what we make of them.

Skipped where the extra `eval` is not installed.
"""

import json

import pytest
from helpers import asked

from glm_model import Decoding, fill, score
from infra.console import Console, ConsoleConfig
from infra.storage import parquet
from pipelines.questions.config import TaskConfig
from workflows.evaluation.ask_models import ask_models
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import find_models
from workflows.evaluation.results import results_of

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is absent: pip install -c constraints.txt -e '.[eval]'")

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from workflows.evaluation.harness import HarnessModel

QUIET = Console(ConsoleConfig(quiet=True))
FORMS = {
    "hellaswag": {"doc_to_text": "{{ctx}}", "doc_to_choice": "{{endings}}", "doc_to_target": "{{label}}"},
    "piqa": {
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "doc_to_target": "{{label}}",
    },
    "blimp": {"doc_to_text": "", "doc_to_choice": "{{[sentence_good, sentence_bad]}}", "doc_to_target": 0},
}


@pytest.fixture(scope="module")
def place(tiny_tokenizer, tmp_path_factory):
    return asked.model_folder(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture(scope="module")
def model(place):
    return HarnessModel(place)


def rows(task: str) -> list[dict]:
    texts = [row["text"] for row in asked.rows(24)]
    if task == "blimp":
        return [
            {"sentence_good": f"{text}{'.' * (n % 2)}", "sentence_bad": f"{text}{'.' * (1 - n % 2)}", "UID": "one"}
            | {"pairID": str(n)}
            for n, text in enumerate(texts)
        ]
    if task == "piqa":
        return [
            {"goal": text, "sol1": "go home", "sol2": "the cat sat on a mat", "label": n % 2}
            for n, text in enumerate(texts)
        ]
    return [
        {"ind": n, "ctx": text, "endings": ["ran home", "sat", "then go on", "said mr smith"], "label": n % 4}
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize("task", FORMS)
def test_both_choose_the_same_and_have_the_same_accuracy(place, model, task, tmp_path):
    data = asked.write(tmp_path / "data" / "dev.jsonl", rows(task))
    options = EvaluateConfig(models=[place], to=str(tmp_path / "out"), without_context=False)
    (ours,) = ask_models(options, [TaskConfig(name=task, data=data)], find_models([place]), QUIET)
    table = parquet.read_table(ours.items_url)
    files = {"data_files": {"validation": f"{data}/dev.jsonl"}, "cache_dir": str(tmp_path / "cache")}
    fixed = {"task": task, "dataset_path": "json", "dataset_kwargs": files, "validation_split": "validation"}
    metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    form = {"output_type": "multiple_choice", "num_fewshot": 0, "metric_list": metrics, **FORMS[task]}
    found = evaluate(model, {"tasks": {task: ConfigurableTask(config=fixed | form)}}, bootstrap_iters=0)
    theirs = [[logprob for (logprob, _) in one["filtered_resps"]] for one in found["samples"][task]]
    expected = table["logprobs"].to_pylist()
    assert len(theirs) == len(expected) == 24
    assert [pytest.approx(one, abs=1e-4) for one in expected] == theirs
    assert [one.index(max(one)) for one in theirs] == table["choice"].to_pylist()
    accuracy = {result.metric: result.value for result in results_of(ours)}["accuracy"]
    assert 100 * found["results"][task]["acc,none"] == pytest.approx(accuracy)
    assert 0 < accuracy < 100


def asking(kind: str, *several: tuple) -> list[Instance]:
    return [Instance(kind, {}, arguments, number) for number, arguments in enumerate(several)]


def test_likelihoods_are_those_of_the_library_in_the_order_of_the_requests(model):
    continuations = [" sat", " oktober oktober", " ran", " home", " said", "."]
    scores = score(model.model, model.tokenizer, "the cat [MASK]", continuations, count_end=False)
    found = model.loglikelihood(asking("loglikelihood", *(("the cat", one) for one in continuations[::-1])))
    assert [logprob for logprob, _ in found] == pytest.approx([one.logprob for one in scores[::-1]], abs=1e-5)
    assert [is_greedy for _, is_greedy in found] == [one.greedy for one in scores[::-1]]
    assert model.loglikelihood([]) == []


def test_a_text_of_any_length_is_read_as_perplexity_reads_it(place, model, tmp_path):
    texts = ["the cat sat on a mat. " * count for count in (1, 30)]
    data = asked.write(tmp_path / "data" / "dev.jsonl", [{"text": text} for text in texts])
    options = EvaluateConfig(models=[place], to=str(tmp_path / "out"), patterns="1")
    (ours,) = ask_models(options, [TaskConfig(name="perplexity", data=data)], find_models([place]), QUIET)
    expected = [one for (one,) in parquet.read_table(ours.items_url)["logprobs"].to_pylist()]
    found = model.loglikelihood_rolling(asking("loglikelihood_rolling", *((text,) for text in texts)))
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_is_written_ends_where_the_task_says(model):
    context = "the cat [MASK] sat"  # a mask in a text is text
    whole = fill(model.model, model.tokenizer, "the cat [ MASK] sat[gMASK]", max_tokens=8).blanks[0].text
    word = whole.split()[-1]
    cases = asking(
        "generate_until",
        (context, {"until": [], "max_gen_toks": 8}),
        (context, {"until": ["[nowhere]", word], "max_gen_toks": 8}),
        ("the cat " * 100, {"until": "\n", "max_gen_toks": 2}),
    )
    found = model.generate_until(cases)
    assert found[:2] == [whole, whole[: whole.index(word)]]
    assert json.dumps(found[2])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Decoding(max_tokens=47)),
        ({"temperature": 0.7, "max_gen_toks": 4}, Decoding(max_tokens=4)),
        ({"do_sample": True, "temperature": 0.0, "max_gen_toks": 4}, Decoding(max_tokens=4)),
        ({"do_sample": True, "max_gen_toks": 4}, Decoding(max_tokens=4, temperature=1.0)),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 4},
         Decoding(max_tokens=4, temperature=0.7, top_p=0.9)),
    ],
)  # fmt: skip
def test_tokens_are_drawn_only_where_the_task_says_so(model, options, expected):
    assert model._decoding(options) == expected
