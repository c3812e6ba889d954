"""SuperGLUE's average over the results of an evaluation: of one model, or of one for each task."""

from dataclasses import replace

import pytest

from pipelines.metrics.superglue import METRICS
from workflows.evaluation.results import Result, averages

ONE = Result(
    model="a",
    task="rte",
    split="dev",
    pattern=0,
    is_default=True,
    metric="accuracy",
    value=50.0,
    low=None,
    high=None,
    n=10,
    one_answer={},
    majority=50.0,
    bag_of_words=None,
    without_context=None,
    started_from="",
    selected_by="",
    run="",
    step=None,
)


def results(model_of: dict[str, str], value: float = 80.0) -> list[Result]:
    return [
        replace(ONE, model=model_of[task], task=task, metric=metric, value=value)
        for task, metrics in METRICS.items()
        for metric in metrics
    ]


def test_a_model_that_is_asked_all_tasks_has_an_average():
    every = results(dict.fromkeys(METRICS, "a")) + results(dict.fromkeys(METRICS, "b"), 60.0)
    others = [replace(one, is_default=False, value=0.0) for one in every]
    assert averages([*every, *others]) == {"a": pytest.approx(80.0), "b": pytest.approx(60.0)}
    assert averages(every[1:]) == {"b": pytest.approx(60.0)}


def test_one_model_for_each_task_has_an_average_and_two_for_one_have_none():
    every = results({task: f"tuned on {task}" for task in METRICS})
    assert averages(every) == {"one model for each task": pytest.approx(80.0)}
    second = replace(next(one for one in every if one.task == "rte"), model="another")
    assert averages([*every, second]) == {}
    assert averages([one for one in every if one.task != "cb"]) == {}
