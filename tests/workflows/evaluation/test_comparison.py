"""evaluate.py --compare: verdicts from the answers that were kept; what cannot be compared is refused."""

import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import run_main
from infra.storage import parquet
from pipelines.metrics.items import FORMAT, SCHEMA
from workflows import evaluate

SETTINGS = {
    "format": FORMAT,
    "task": "rte",
    "task_version": 1,
    "task_digest": "d",
    "text": "{hypothesis} {mask}",
    "words": {"entailment": "Yes", "not_entailment": "No"},
    "labels": ["entailment", "not_entailment"],
    "split": "dev",
}
GOLD = np.arange(56) % 2


@pytest.fixture
def answers(tmp_path):
    """Write what a model answered to 56 items. text: the pattern's."""

    def answers(
        model: str,
        right: np.ndarray,
        *,
        pattern=0,
        digest="0" * 8,
        key="0" * 12,
        gold=GOLD,
        ids=(),
        groups=(),
        **settings,
    ):
        told = {**SETTINGS, **settings}
        folder = tmp_path / "out" / f"{model}-{digest}" / f"{told['task']}-{told['split']}-p{pattern}-{key}"
        rows = [
            {
                "item": ids[n] if ids else f"{n:03}",
                "group": groups[n] if groups else "",
                "question": f"question {n} [MASK]",
                "candidates": ["Yes", "No"],
                "logprobs": [-1.0, -2.0],
                "tokens": [1, 1],
                "choice": int(one if is_right else 1 - one),
                "gold": int(one),
                "tied": False,
                "cut": 0,
            }
            for n, (one, is_right) in enumerate(zip(gold, right, strict=True))
        ]
        parquet.write_table(str(folder / "items.parquet"), pa.Table.from_pylist(rows, schema=SCHEMA))
        told["pattern"] = told.pop("text")
        (folder / "settings.json").write_text(json.dumps(told))

    return answers


@pytest.fixture
def compare(monkeypatch, capsys, tmp_path):
    """Run the command: (exit code, what it printed, its errors)."""

    def compare(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--compare", *argv, f"--to={tmp_path}/out"])
        with pytest.raises(SystemExit) as stopped:
            run_main(evaluate.main)
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return compare


def verdicts(tmp_path) -> list[dict]:
    return json.loads((tmp_path / "out" / "comparison.json").read_text())["verdicts"]


def some(*, of: int = 56, right: int) -> np.ndarray:
    return np.arange(of) < right


def test_two_models_that_hardly_differ_cannot_be_told_apart(answers, compare, tmp_path):
    answers("base", some(right=30))
    answers("tuned", some(right=32))
    code, out, err = compare("base", "tuned")
    assert (code, err) == (0, "")
    assert "rte dev p0 accuracy: cannot be told apart at n=56" in out
    (one,) = verdicts(tmp_path)
    assert (one["test"], one["p"], one["corrected"], one["seeds"]) == ("exact McNemar", 0.5, 0.5, [1, 1])
    assert one["difference"] == pytest.approx(100 * 2 / 56)
    assert one["low"] <= 0 < one["high"]


def test_a_model_that_is_right_more_often_is_higher(answers, compare):
    answers("base", some(right=30))
    answers("tuned", some(right=45))
    assert "rte dev p0 accuracy: tuned is higher by 26.8 at n=56" in compare("base", "tuned")[1]
    assert "rte dev p0 accuracy: tuned is higher by 26.8 at n=56" in compare("tuned", "runs/base")[1]


def test_over_a_suite_p_is_corrected_and_tasks_of_one_model_alone_are_left_out(answers, compare, tmp_path):
    for number, right in enumerate((36, 31, 30)):
        answers("base", some(right=30), split=f"s{number}")
        answers("tuned", some(right=right), split=f"s{number}")
    answers("tuned", some(right=56), split="other")
    answers("tuned", some(right=56), pattern=1, split="s0")
    code, out, _ = compare("base", "tuned")
    assert code == 0
    assert [(one["split"], one["p"], one["corrected"]) for one in verdicts(tmp_path)] == [
        ("s0", 0.03125, 0.09375),
        ("s1", 1.0, 1.0),
        ("s2", 1.0, 1.0),
    ]
    assert "rte s0 p0 accuracy: cannot be told apart at n=56" in out


def test_items_of_passages_are_compared_by_passages(answers, compare, tmp_path):
    groups = [f"passage {n // 8}" for n in range(56)]
    answers("base", some(right=24), groups=groups)
    answers("tuned", some(right=40), groups=groups)
    assert "cannot be told apart" in compare("base", "tuned")[1], "two of seven passages"
    assert verdicts(tmp_path)[0]["test"] == "paired bootstrap"


def test_groups_of_seeds_are_compared_over_seeds_and_items(answers, compare, tmp_path):
    for seed, (one, two) in enumerate(((29, 44), (30, 45), (31, 46))):
        answers(f"base-seed{seed}", some(right=one))
        answers(f"tuned-seed{seed}", some(right=two))
    out = compare("base-seed*", "tuned-seed*", "--task.metrics=[accuracy, mcc]")[1]
    assert "accuracy: tuned-seed* is higher by 26.8 at n=56 and 3 and 3 seeds" in out
    first, second = verdicts(tmp_path)
    assert (first["test"], first["seeds"], second["metric"]) == ("bootstrap over seeds and items", [3, 3], "mcc")
    shutil.rmtree(next(tmp_path.glob("out/base-seed0-*")))
    shutil.rmtree(next(tmp_path.glob("out/base-seed1-*")))
    code, _, err = compare("base-seed*", "tuned-seed*")
    assert (code, "1 and 3 models" in err) == (2, True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task_version": 2}, "were asked rte dev with other version"),
        ({"text": "{premise} {mask}"}, "were asked rte dev with other pattern"),
        ({"words": {"entailment": "true", "not_entailment": "false"}}, "were asked rte dev with other words"),
        ({"pattern": 1}, "base and tuned answered no task in common"),
        ({"ids": [f"{n:03}" for n in range(1, 57)]}, "answered other items of rte: 56 and 56, of which 2 are of one"),
        ({"gold": 1 - GOLD}, "have other gold answers"),
        ({"groups": ["a", "b"] * 28}, "have other groups"),
    ],
)
def test_answers_to_other_questions_are_not_compared(answers, compare, changes, told):
    answers("base", some(right=30))
    answers("tuned", some(right=30), **changes)
    code, _, err = compare("base", "tuned")
    assert (code, told in err) == (2, True), err


def test_seeds_of_which_each_two_were_asked_alike_and_not_all_are_not_compared(answers, compare):
    for model, versions in (("base-0", (1, 2)), ("base-1", (1,)), ("tuned-0", (2,)), ("tuned-1", (2,))):
        for version in versions:
            answers(model, some(right=30), key=f"{version}" * 12, task_version=version)
    code, _, err = compare("base-*", "tuned-*")
    assert (code, "base-0 and tuned-0 were asked rte dev with other version" in err) == (2, True), err


def test_mistakes(answers, compare):
    answers("base", some(right=30))
    answers("twice", some(right=30))
    answers("twice", some(right=31), digest="1" * 8)
    assert compare("base")[0] == 2
    code, _, err = compare("base", "tuned")
    assert (code, "holds no answers of tuned" in err) == (3, True)
    answers("old", some(right=30), format=FORMAT - 1)
    code, _, err = compare("base", "old")
    assert (code, "holds no answers of old" in err) == (3, True)
    code, _, err = compare("base", "twice")
    assert (code, "names several models called twice: twice-00000000, twice-11111111" in err) == (2, True)
    assert compare("base", "twice-11111111")[0] == 0
