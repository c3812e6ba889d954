"""evaluate.py: the table, the files and MLflow that a user gets; golden scores; mistakes, each with its exit code."""

import json
import math
import sys
from pathlib import Path

import pytest
from helpers import asked

from infra.errors import run_main
from infra.storage import parquet
from infra.tracking.mlflow_client import client_of
from workflows import evaluate
from workflows.settings.taught import write_taught

WORD = ["cat", "dog", "mat", "home", "go"]
LABEL = ["entailment", "not_entailment"]
WORDS = "--task.words={bad: cat, good: dog}"
GOLDEN_SCORES = {"accuracy": 83.3333, "macro_f1": 81.25, "mcc": 62.5}
GOLDEN_LOGPROBS = [-8.915719, -10.147918]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> Path:
    return Path(asked.model_folder(tmp_path_factory.mktemp("models") / "small", tiny_tokenizer))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in a folder of its own: (exit code, what it printed, its errors)."""

    def run(*argv: str, tracking: bool = False) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        off = [] if tracking else ["--tracking.enabled=false"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *argv, "--to=runs/evaluations", *off])
        with pytest.raises(SystemExit) as stopped:
            run_main(evaluate.main)
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


@pytest.fixture
def data(tmp_path) -> str:
    asked.write(tmp_path / "data" / "train.jsonl", asked.rows(40))
    return asked.write(tmp_path / "data" / "dev.jsonl", asked.rows(12))


def items(tmp_path: Path) -> list[dict]:
    (file,) = tmp_path.glob("runs/evaluations/*/*/items.parquet")
    return parquet.read_table(str(file)).to_pylist()


def test_golden_scores_of_a_fixed_model(run, model, data, tmp_path):
    words, metrics = "--task.words={bad: dog, good: ran}", "--task.metrics=[accuracy, macro_f1, mcc]"
    code, out, err = run("--models", str(model), f"--task.data={data}", "--task.id=id", words, metrics)
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
    assert {one["metric"]: round(one["value"], 4) for one in found} == GOLDEN_SCORES
    first = found[0]
    assert (first["n"], round(first["majority"], 2), first["pattern"], first["is_default"]) == (12, 66.67, 0, True)
    assert first["low"] < first["value"] < first["high"]
    assert first["bag_of_words"] is not None
    row = items(tmp_path)[0]
    assert (row["item"], row["question"], row["candidates"], row["gold"]) == (
        "item-0", "the cat It was [MASK].", ["dog", "ran"], 0,
    )  # fmt: skip
    assert row["logprobs"] == pytest.approx(GOLDEN_LOGPROBS, abs=1e-4)
    page = (tmp_path / "runs/evaluations/evaluation.html").read_text()
    assert "the cat It was <mark>[MASK]</mark>." in page
    assert "accuracy" in out
    wrong = [
        1 / (1 + math.exp(row["logprobs"][row["gold"]] - row["logprobs"][1 - row["gold"]])) for row in items(tmp_path)
    ]
    (told,) = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["items"]
    assert told["brier"] == pytest.approx(100 * sum(share**2 for share in wrong) / 12)
    assert f"calibration error {told['ece']:.1f}, Brier {told['brier']:.1f}" in out


def test_every_pattern_is_shown_and_the_default_is_told(run, model, data):
    code, out, _ = run("--models", str(model), f"--task.data={data}", "--task.id=id", WORDS, "--patterns=all")
    lines = [line.split()[3:] for line in out.splitlines() if line.split()[1:3] == ["classification", "dev"]]
    assert code == 0
    assert [line[0].rstrip(",") for line in lines] == ["p0", "p1", "p2"]
    assert ["default" in line for line in lines] == [False, True, True]


def test_mlflow_gets_scores_with_their_interval_and_a_second_look_is_the_same_run(run, model, data, mlflow_root):
    argv = ("--models", str(model), f"--task.data={data}", "--task.id=id", WORDS)
    uri = f"sqlite:///{mlflow_root}/mlflow.db"
    for _ in range(2):
        code, out, err = run(*argv, f"--tracking.uri={uri}", tracking=True)
        assert (code, err) == (0, "")
        assert "viewStateShareKey=glm-evaluation" in out
    client = client_of(uri)
    experiment = client.get_experiment_by_name("glm")
    (one,) = client.search_runs([experiment.experiment_id])
    name = "eval/classification/accuracy"
    assert {*one.data.metrics} == {name, f"{name}_n", f"{name}_low", f"{name}_high"}
    assert (one.data.metrics[f"{name}_n"], one.info.status, one.info.run_name) == (12.0, "FINISHED", "eval-small")
    inputs = client.get_run(one.info.run_id).inputs
    (data_link,), (model_link,) = inputs.dataset_inputs, inputs.model_inputs
    assert data_link.dataset.name == "classification-dev"
    shown = client.get_logged_model(model_link.model_id).metrics
    assert {(m.key, m.value, m.dataset_digest) for m in shown} >= {
        (name, one.data.metrics[name], data_link.dataset.digest)
    }
    assert one.data.tags["mlflow.note.content"].startswith("**Evaluation** of `small` on the split dev of")
    assert "[evaluations]" in experiment.tags["mlflow.note.content"]


def test_a_test_split_without_labels_gives_answers_and_no_score(run, model, tmp_path):
    rows = [{"id": row["id"], "text": row["text"]} for row in asked.rows(5)]
    data = asked.write(tmp_path / "data" / "test.jsonl", rows)
    code, out, _ = run("--models", str(model), f"--task.data={data}", "--task.id=id", WORDS, "--split=test")
    assert code == 0
    assert "5 without a gold answer" in out
    assert json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"] == []
    assert [row["gold"] for row in items(tmp_path)] == [None] * 5
    assert all(row["choice"] in (0, 1) for row in items(tmp_path))


def test_answers_to_a_test_split_of_superglue_are_written_for_its_leaderboard(run, model, tmp_path):
    rows = [{"premise": "the cat sat", "hypothesis": "a dog ran", "idx": number} for number in range(3)]
    data = asked.write(tmp_path / "data" / "test.jsonl", rows)
    code, out, err = run("--models", str(model), "--task.name=rte", f"--task.data={data}", "--split=test")
    assert (code, err) == (0, "")
    (file,) = tmp_path.glob("runs/evaluations/superglue/*/RTE.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["idx"] for line in lines] == [0, 1, 2]
    assert {line["label"] for line in lines} <= {"entailment", "not_entailment"}
    assert "for the leaderboard:" in out


def test_what_a_model_gets_without_the_premise_stands_beside_its_score(run, model, tmp_path):
    rows = [
        {"premise": f"a {WORD[n % 5]} sat", "hypothesis": f"the {WORD[n % 3]} ran", "idx": n, "label": LABEL[n % 2]}
        for n in range(8)
    ]
    data = asked.write(tmp_path / "data" / "dev.jsonl", rows)
    ask = ("--models", str(model), "--task.name=rte", f"--task.data={data}")
    code, out, err = run(*ask)
    assert (code, err) == (0, "")
    (score,) = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
    (place,) = tmp_path.glob("runs/evaluations/*/rte-dev-p0-without_context-*/items.parquet")
    less = parquet.read_table(str(place)).to_pylist()
    assert less[0]["question"] == '"the cat ran" ? [MASK], ""'
    right = [row["choice"] == row["gold"] for row in less]
    assert score["without_context"] == pytest.approx(100 * sum(right) / 8)
    assert f"{score['without_context']:.1f}" in out
    assert run("--compare", "small", "small")[0] == 0
    (verdict,) = json.loads((tmp_path / "runs/evaluations/comparison.json").read_text())["verdicts"]
    assert (verdict["first"], verdict["n"]) == (score["value"], 8)  # not those without the premise
    code, out, _ = run(*ask, "--without_context=false")
    (score,) = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
    assert (code, score["without_context"], "without context" in out) == (0, None, False)


def test_several_tasks_of_one_folder_are_found_by_what_their_files_begin_with(run, model, tmp_path):
    data = tmp_path / "data"
    endings = ["ran home.", "sat on a mat.", ", then sat.", "said go."]
    asked.write(data / "lambada_dev.first.jsonl", [{"text": f"the cat sat on {n % 3 * 'a '}mat"} for n in range(6)])
    (data / "hellaswag_val.txt").write_text("\n".join(["Dogs: a dog", "2", *endings] * 3) + "\n")
    wiki = "\n".join([" = Dogs = ", "", " the dog ran home . " * 20, "", " = Cats = ", "", " the cat sat . ", ""])
    (data / "perplexity").mkdir()
    (data / "perplexity" / "wiki.valid.tokens").write_text(wiki)
    tasks = ("lambada", "hellaswag", "perplexity")
    code, out, err = run("--models", str(model), "--tasks", *tasks, f"--data={data}", "--patterns=all")
    assert (code, err) == (0, "")
    scores = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
    found = {(one["task"], one["metric"]): one for one in scores if one["is_default"]}
    assert {task: [metric for name, metric in found if name == task] for task in tasks} == {
        "lambada": ["accuracy", "bits"],
        "hellaswag": ["accuracy", "accuracy_per_token", "accuracy_per_byte"],
        "perplexity": ["bits_per_byte", "word_perplexity", "perplexity"],
    }
    assert [one["majority"] for one in found.values()] == [None, None, 25.0, 25.0, 25.0, None, None, None]
    words, tokens = (found["perplexity", name] for name in ("word_perplexity", "perplexity"))
    assert math.log(words["value"]) * 110 == pytest.approx(math.log(tokens["value"]) * 112)
    (line,) = [one for one in out.splitlines() if "bits_per_byte" in one and "not default" not in one]
    assert f"{found['perplexity', 'bits_per_byte']['value']:.3f}" in line


def test_a_limit_asks_all_answers_to_a_question(run, model, tmp_path):
    def question(n: int) -> dict:
        answers = [{"text": WORD[k], "idx": 10 * n + k, "label": k % 2} for k in range(3)]
        return {"question": f"who said {WORD[n]}?", "idx": n, "answers": answers}

    row = {"idx": 0, "passage": {"text": "the cat sat.", "questions": [question(n) for n in range(4)]}}
    data = asked.write(tmp_path / "data" / "dev.jsonl", [row])
    ask = ("--models", str(model), "--task.name=multirc", f"--task.data={data}", "--without_context=false")
    for limit, n in ((1, 3), (3, 3), (4, 6), (99, 12)):
        code, _, err = run(*ask, f"--limit={limit}")
        assert (code, err) == (0, "")
        scores = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
        assert {one["metric"]: one["n"] for one in scores} == {"f1a": n, "em": n // 3, "accuracy": n}


def test_one_bad_row_among_many_is_a_row_with_its_reason(run, model, tmp_path):
    rows = asked.rows(20)
    data = asked.write(tmp_path / "data" / "dev.jsonl", [*rows[:7], {"id": "x", "body": "?"}, *rows[7:]])
    argv = ("--models", str(model), f"--task.data={data}", "--task.id=id", WORDS)
    code, _, err = run(*argv)
    assert code == 3
    assert f"{data}/dev.jsonl:8: no field 'text', but body, id" in err
    code, out, _ = run(*argv, "--task.max_bad=0.1")
    assert (code, "1 without a question" in out) == (0, True)
    assert [(row["item"], row["reason"]) for row in items(tmp_path)][20:] == [
        ("dev.jsonl:8", "no field 'text', but body, id")
    ]


LONG = [
    ("cut", 0, "1 cut"),
    ("skip", 0, "1 without a question"),
    ("error", 3, "the item 'long' of classification cannot be asked"),
]


@pytest.mark.parametrize(("overlong", "code", "told"), LONG)
def test_texts_longer_than_the_model(run, model, tmp_path, overlong, code, told):
    long = {"id": "long", "text": "the cat sat " * 40, "label": "good"}
    data = asked.write(tmp_path / "data" / "dev.jsonl", [*asked.rows(5), long])
    found, out, err = run(
        "--models", str(model), f"--task.data={data}", "--task.id=id", WORDS, f"--task.overlong={overlong}"
    )
    assert found == code
    assert told in out + err


def taught(model: Path, folder: Path, **changes) -> str:
    """The model as if it were fine-tuned."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    task = {"task": "classification", "version": 1, "labels": ["good", "bad"], "words": {"good": "dog", "bad": "cat"}}
    (folder / "task.json").write_text(
        json.dumps({**task, "pattern": "{mask}: {text~}", "started_from": "runs/a", "selected_on": "dev", **changes})
    )
    return str(folder)


def test_a_fine_tuned_model_brings_its_words_their_order_and_its_pattern(run, model, data, tmp_path):
    code, _, err = run("--models", taught(model, tmp_path / "tuned"), f"--task.data={data}", "--task.id=id")
    assert (code, err) == (0, "")
    assert items(tmp_path)[0]["candidates"] == ["dog", "cat"]
    assert items(tmp_path)[0]["question"].startswith("[MASK]: ")
    (score,) = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
    assert (score["pattern"], score["is_default"]) == (1, True)
    assert (score["started_from"], score["selected_by"]) == ("runs/a", "dev")


def test_a_fine_tuned_model_is_asked_by_a_pattern_of_its_own(run, model, data, tmp_path):
    url = taught(model, tmp_path / "tuned", pattern="go {text~} {mask}")
    assert run("--models", url, f"--task.data={data}", "--task.id=id")[0] == 0
    assert items(tmp_path)[0]["question"] == "go the cat [MASK]"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "rte"}, "was fine-tuned on rte and is asked classification"),
        ({"labels": ["good", "bad"]}, "fine-tuned with other labels of classification: ['good', 'bad'], and is asked"),
        ({"version": 7, "labels": ["bad", "good"]}, "fine-tuned with other version of classification: 7"),
        ({"labels": ["bad", "good"], "words": {"bad": "dog", "good": "cat"}}, "fine-tuned with other words"),
    ],
)
def test_a_fine_tuned_model_is_not_asked_another_task(run, model, data, tmp_path, changes, told):
    url = taught(model, tmp_path / "tuned", **changes)
    code, _, err = run("--models", url, f"--task.data={data}", "--task.id=id", WORDS)
    assert code == 2
    assert told in err


def test_of_several_tasks_each_fine_tuned_model_is_asked_its_own_and_their_diagnostics(run, model, tmp_path):
    folders = {"RTE/val": LABEL, "CB/val": ["neutral", "entailment"], "AX-b/AX-b": LABEL}
    for place, labels in folders.items():
        names = ("sentence1", "sentence2") if "AX" in place else ("premise", "hypothesis")
        texts = {names[0]: "a cat sat", names[1]: "a dog ran"}
        rows = [{**texts, "idx": n, "label": labels[n % 2]} for n in range(4)]
        asked.write(tmp_path / "data" / f"{place}.jsonl", rows)
    yes = {"entailment": "Yes", "not_entailment": "No"}
    pattern = '"{hypothesis~}" ? {mask}, "{premise~}"'
    rte = taught(model, tmp_path / "on_rte", task="rte", labels=LABEL, words=yes, pattern=pattern)
    words = {"contradiction": "No", "neutral": "Maybe", "entailment": "Yes"}
    cb = taught(
        model, tmp_path / "on_cb", task="cb", labels=[*words], words=words, pattern="{hypothesis~}? {mask}. {premise~}"
    )
    where = f"--data={tmp_path}/data"
    code, _, err = run("--models", rte, cb, "--tasks", "rte", "cb", "ax_b", where)
    assert (code, err) == (0, "")
    scores = json.loads((tmp_path / "runs/evaluations/scores.json").read_text())["scores"]
    assert {(one["model"], one["task"]) for one in scores} == {("on_rte", "rte"), ("on_rte", "ax_b"), ("on_cb", "cb")}
    code, _, err = run("--models", cb, "--tasks", "rte", "ax_b", where)
    assert (code, "on_cb was fine-tuned on cb, which is none of rte, ax_b" in err) == (2, True)


def test_a_fine_tuned_model_is_asked_by_another_pattern_only_in_a_row_of_its_own(run, model, data, tmp_path):
    url, own = taught(model, tmp_path / "tuned"), [f"--task.data={data}", "--task.id=id"]
    code, _, err = run("--models", url, *own, "--task.pattern=0")
    assert (code, "was fine-tuned with other pattern of classification: {mask}: {text~}, and is asked" in err) == (
        2,
        True,
    )
    code, out, _ = run("--models", url, *own, "--patterns=0,1")
    assert (code, out.count("not default")) == (0, 1)


def test_a_task_that_was_changed_in_the_model_folder_is_refused(run, model, data, tmp_path):
    url = taught(model, tmp_path / "tuned")
    write_taught(json.loads((tmp_path / "tuned" / "task.json").read_text()), url)
    assert run("--models", url, f"--task.data={data}", "--task.id=id")[0] == 0
    place = tmp_path / "tuned" / "task.json"
    swapped = json.loads(place.read_text()) | {"labels": ["bad", "good"]}
    place.write_text(json.dumps(swapped))
    code, _, err = run("--models", url, f"--task.data={data}", "--task.id=id")
    assert (code, "task.json was changed after finetune.py wrote it" in err) == (2, True)


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        ([], 2, "--models is missing"),
        (["--models", "MODEL"], 2, "task.data is missing"),
        (["--models", "MODEL", "--tasks", "rte", "cb"], 2, "--data is missing"),
        (["--models", "MODEL", "--tasks", "rte", "--data=data"], 3, "holds nothing of the task 'rte'"),
        (["--models", "MODEL", "--task.data=data", "--split=tset"], 2, "unknown split 'tset'; did you mean 'test'"),
        (["--models", "MODEL", "--task.data=data", "--split=empty"], 3, "the split 'empty' of classification has no"),
        (["--models", "MODEL", "--task.data=data", "--split=twice"], 3, "twice.jsonl:2: the id 'a' was there before"),
        (["--models", "MODEL", "--task.data=data", "--split=other"], 3, "the label 'maybe' is not one of the task's"),
        (
            ["--models", "MODEL", "--task.data=data", "--split=one", "--patterns=9"],
            2,
            "the task classification has no pattern 9",
        ),
        (["--models", "MODEL", "--task.data=data", "--split=one", "--task.metrics=[f2]"], 2, "unknown metric 'f2'"),
        (["--models", "nowhere", "--task.data=data"], 3, "nowhere does not exist"),
        (["--models", "MODEL@2000", "--task.data=data"], 2, "what stands behind @ is unknown"),
    ],
)
def test_mistakes(run, model, tmp_path, argv, code, told):
    for name, rows in {
        "test": [],
        "empty": [],
        "one": [{"id": "a", "text": "go"}],
        "twice": [{"id": "a", "text": "go"}, {"id": "a", "text": "the"}],
        "other": [{"id": "a", "text": "go", "label": "maybe"}],
    }.items():
        asked.write(tmp_path / "data" / f"{name}.jsonl", rows)
    splits = ", ".join(f"{name}: {name}.jsonl" for name in ("test", "empty", "one", "twice", "other"))
    own = ["--task.id=id", WORDS, f"--task.splits={{{splits}}}"] if "--task.data=data" in argv else []
    found, _, err = run(*(word.replace("MODEL", str(model)) for word in argv), *own)
    assert (found, told in err) == (code, True), err
