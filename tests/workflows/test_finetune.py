"""finetune.py as a user calls it: a CSV becomes a model that says its task; what is another run; what is refused."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.small import WORDS

from glm_model import GLM, GLMConfig, save_pretrained
from infra import config
from infra.console import Console, ConsoleConfig
from infra.storage import parquet
from infra.tracking.mlflow_client import client_of
from workflows import evaluate, finetune, predict
from workflows.finetuning.final_model import task_record, weights_text
from workflows.finetuning.setup import FinetuneSetup, describe_finetune, resolve_finetune
from workflows.settings.finetune import FinetuneRecipe

SHAPE = GLMConfig(layers=1, width=16, heads=2, vocab_size=128, positions=64)


@pytest.fixture
def place(tmp_path, tiny_tokenizer) -> Path:
    torch.manual_seed(0)
    save_pretrained(GLM(SHAPE), str(tmp_path / "begin"), tokenizer=tiny_tokenizer)
    write(tmp_path, flipped=False)
    return tmp_path


def write(folder: Path, *, flipped: bool) -> None:
    rows = [f"{WORDS[n % 2]} {WORDS[2 + n % 5]} {WORDS[n % 7]},{(n + flipped) % 2}" for n in range(70)]
    (folder / "reviews.csv").write_text("\n".join(["body,stars", *rows]) + "\n")


def settings(place: Path, *more: str) -> list[str]:
    words = f"--task.words={{'0': {WORDS[8]}, '1': {WORDS[9]}}}"
    own = [f"--task.data={place}/reviews.csv", "--task.text=body", "--task.label=stars", words]
    kept = [f"--run.storage_path={place}/runs", "--tracking.enabled=false"]
    return [f"--model.init_from={place}/begin", *own, *kept, *more]


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_csv_becomes_a_model_that_says_its_task(call, place, local_ray):
    code, told = call(finetune, *settings(place, "--run.name=a", "--train.epochs=2", "--train.select_on=none"))
    assert code == 0, told
    assert "glm finetune · classification" in told
    record = json.loads((place / "runs" / "a" / "model" / "task.json").read_text())
    assert (record["task"], record["labels"], record["words"]) == (
        "classification",
        ["0", "1"],
        {"0": WORDS[8], "1": WORDS[9]},
    )
    assert (record["pattern"], record["selected_on"]) == ("{body~} It was {mask}.", "nothing: the last weights")
    code, told = call(finetune, *settings(place, "--run.name=a", "--train.epochs=2", "--train.select_on=none"))
    assert (code, "run a is finished" in told) == (0, True)
    assert f"workflows/predict.py --model {place}/runs/a --input <a table with the same columns> --to <folder>" in told
    other = place / "other.csv"
    other.write_bytes((place / "reviews.csv").read_bytes())
    for more in ([], [f"--task.data={other}"]):  # the data that it was taught with, or others with the same columns
        code, told = call(evaluate, "--models", f"{place}/runs/a", *more, f"--to={place}/s", "--tracking.enabled=false")
        assert code == 0, told
        assert "accuracy" in told


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_classification_head_goes_with_its_model(call, place, local_ray):
    own = [*settings(place, "--run.name=b", "--train.steps=60", "--train.select_on=none", "--task.head=true")]
    own = [word for word in own if not word.startswith("--task.words")]
    code, told = call(finetune, *own, "--optim.lr=0.01", "--model.dropout=0")
    assert code == 0, told
    data = [f"--task.data={place}/reviews.csv", "--task.text=body", "--task.label=stars", "--tracking.enabled=false"]
    code, told = call(evaluate, "--models", f"{place}/runs/b", *data, f"--to={place}/scores")
    assert code == 0, told
    (score,) = json.loads((place / "scores" / "scores.json").read_text())["scores"]
    assert score["value"] == 100.0
    (table,) = [parquet.read_table(str(file)) for file in place.glob("scores/*/*/items.parquet")]
    first = table.to_pylist()[0]
    assert (first["candidates"], first["tokens"]) == (["0", "1"], [0, 0])
    assert np.exp(first["logprobs"]).sum() == pytest.approx(1.0)
    code, told = call(predict, "--model", f"{place}/runs/b", f"--input={place}/reviews.csv", f"--to={place}/answers")
    assert code == 0, told
    (shard,) = [parquet.read_table(str(file)) for file in place.glob("answers/*.parquet")]
    assert shard["label"].to_pylist() == shard["stars"].to_pylist()
    code, told = call(evaluate, "--models", f"{place}/begin", *data, f"--to={place}/scores", "--task.head=true")
    assert (code, "begin has no classification head" in told) == (2, True), told


def write_wsc(folder: Path) -> None:
    """It is always the cat: a row is asked of the cat, or of the dog, which is false."""
    rows = []
    for n in range(24):
        span = ("cat", "dog")[n % 2]
        target = {"span1_text": f"the {span}", "span1_index": 0, "span2_text": "it", "span2_index": 6}
        text = f"the {WORDS[n % 5]} ran home {WORDS[n % 7]} then it sat"
        rows.append({"text": text, "target": target, "idx": n, "label": span == "cat"})
    for split in ("train", "val"):
        (folder / "WSC").mkdir(exist_ok=True)
        (folder / "WSC" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_what_wsc_asks_is_learned_by_writing_it_and_its_false_rows_are_told_apart_afterwards(call, place, local_ray):
    write_wsc(place)
    own = [
        "--task.name=wsc",
        f"--task.data={place}/WSC",
        f"--run.storage_path={place}/runs",
        "--tracking.enabled=false",
    ]
    begin = [f"--model.init_from={place}/begin", "--model.dropout=0", "--run.name=w", "--train.select_on=dev"]
    code, told = call(finetune, *own, *begin, "--optim.lr=0.01", "--train.steps=40", "--train.eval_every=20")
    assert code == 0, told
    assert "12 to train on" in told  # the true rows
    assert f"evaluate.py --models {place}/runs/w" in told
    data = ["--task.name=wsc", f"--task.data={place}/WSC", f"--to={place}/scores", "--tracking.enabled=false"]
    code, told = call(evaluate, "--models", f"{place}/runs/w", *data)
    assert code == 0, told
    (score,) = json.loads((place / "scores" / "scores.json").read_text())["scores"]
    assert (score["metric"], score["one_answer"]) == ("accuracy", {"false": 50.0, "true": 50.0})
    assert score["value"] == 100.0
    (table,) = [parquet.read_table(str(file)) for file in place.glob("scores/*/*/items.parquet")]
    assert {tuple(row["candidates"]) for row in table.to_pylist()} == {("the cat",), ("the dog",)}
    code, told = call(predict, "--model", f"{place}/runs/w", f"--input={place}/WSC/val.jsonl", f"--to={place}/answers")
    assert code == 0, told
    filled = pq.read_table(place / "answers")["filled"].to_pylist()  # by default it does what it was taught: it writes
    assert [text.rpartition(" Answer: ")[2] for text in filled] == ["the cat."] * 24


def test_what_cannot_be_learned_is_refused(call, place):
    write_wsc(place)
    kept = [f"--run.storage_path={place}/runs", "--tracking.enabled=false", f"--model.init_from={place}/begin"]
    ask = ["--plan", *kept, f"--task.data={place}/WSC"]
    code, told = call(finetune, *ask, "--task.name=wsc", "--task.head=true")
    assert (code, "the answers of this task are written" in told) == (2, True), told
    code, told = call(finetune, *ask, "--task.name=ax_b")
    assert (code, "nothing is learned from ax_b" in told, "--task.name=rte" in told) == (2, True, True), told


def resolved(*flags: str) -> FinetuneSetup:
    recipe = config.parse(FinetuneRecipe, description="", argv=list(flags)).config
    return resolve_finetune(recipe, Console(ConsoleConfig(quiet=True)))


def test_a_task_whose_metrics_validation_does_not_tell_is_selected_by_accuracy(place):
    entities = [{"start": 4, "end": 6}, {"start": 12, "end": 14}]
    passage = {"text": "the cat saw dog ran", "entities": entities}
    queries = [{"query": "@placeholder sat", "idx": n, "answers": [{"text": ("cat", "dog")[n % 2]}]} for n in range(9)]
    for split in ("train", "val"):
        row = {"idx": 0, "passage": passage, "qas": queries}
        (place / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    flags = ["--task.name=record", f"--task.data={place}", f"--model.init_from={place}/begin"]
    setup = resolved(*flags, "--train.select_on=dev")
    assert (setup.task.metrics, setup.metrics) == (("f1", "em"), ("accuracy",))
    assert ("selected on", "dev, by accuracy") in describe_finetune(setup)
    told = weights_text(setup, {"step": 3, "validated": {"val/accuracy": 50.0}})
    assert told == "those of step 3, accuracy 50.0; selected on dev"


def test_runs_that_differ_in_their_seed_alone_are_a_group(place):
    def resolved_with(*more: str) -> FinetuneSetup:
        return resolved(*settings(place, *more))

    first, second = resolved_with("--train.items=30"), resolved_with("--train.items=30", "--train.seed=2")
    assert {one.item.id for one in first.selection.train} != {one.item.id for one in second.selection.train}
    assert (first.identity == second.identity, first.group == second.group) == (False, True)
    taught = task_record(second)
    assert (taught["seed"], taught["group"]) == (2, first.group)
    others = ("--optim.lr=1e-3", "--train.items=31", "--model.random=true", "--task.pattern=1")
    assert len({first.group, *(resolved_with("--train.items=30", one).group for one in others)}) == 5
    write(place, flipped=True)
    assert resolved_with("--train.items=30").group != first.group


def test_other_labels_are_another_run(call, place):
    plans = []
    for flipped in (False, True, False):
        write(place, flipped=flipped)
        code, told = call(finetune, *settings(place, "--plan"))
        assert code == 0, told
        plans.append(told.split()[2])
    assert plans[0].startswith("classification-")
    assert plans[0] == plans[2] != plans[1]


def test_a_plan_says_what_a_run_would_take(call, place):
    code, told = call(finetune, *settings(place, "--plan", "--run.name=a", "--train.epochs=4"))
    assert code == 0, told
    rows = (
        "items 56 to train on, 11 positions each on average",
        "budget 14 steps of 16 items = 4.00 epochs",
        "selected on nothing: the last weights, as 10 % of train would be fewer than 200 items",
        "batch 16 items in micro-batches of 8 = 176 positions",
        "compute 5.34e+07 FLOP over 2.5k positions",
        "assumed rates, --calibrate measures",
        "119 kB per worker with gradients and optimizer",
        f"of checkpoints in {place}/runs",
    )
    assert [row for row in rows if row not in told] == [], told
    assert not (place / "runs" / "a").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_calibrated_plan_takes_a_few_steps_and_leaves_nothing(call, place, local_ray):
    code, told = call(finetune, *settings(place, "--plan", "--calibrate", "--run.name=a"))
    assert code == 0, told
    assert "measured here" in told
    assert list((place / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--task.label=mark"], 3, "has no labelled items"),
        (["--task.text=text"], 3, "56 of 56 rows of the split 'train' of classification cannot be asked"),
        (["--task.words={'0': a}"], 3, "the label '1' is not one of the task's: 0"),
        (["--task.data=nowhere.csv"], 3, "nowhere.csv does not exist"),
        (["--model.init_from=nowhere"], 3, "nowhere does not exist"),
        (["--task.head=true", "--train.loss=gold"], 2, "train.loss=gold does nothing with task.head"),
        (["--train.patience=2"], 2, "train.patience=2 waits for validations, and nothing is validated"),
        (["--optim.warmup_steps=99"], 2, "optim.warmup_steps=99 leaves nothing of 10 steps"),
        (["--train.items=4", "--train.num_workers=2"], 2, "there are 4 items, in micro-batches of train.micro=8"),
        (["--task.metrics=[auc]"], 2, "unknown metric 'auc'"),
        (["--task.metrics=[f1]"], 2, "f1 is for items with candidates of their own, and this task has classes"),
        (["--train.num_workers=3"], 2, "3 workers for 2 micro-batches of a step: some would be idle"),
    ],
)
def test_mistakes_are_told_in_a_line(call, place, more, code, message):
    got, told = call(finetune, *settings(place, "--plan", *more))
    assert (got, message in told) == (code, True), told


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_mlflow_shows_what_a_fine_tuning_read_and_made(call, place, local_ray, mlflow_root):
    tracked = [f"--tracking.uri=sqlite:///{mlflow_root}/mlflow.db", "--tracking.enabled=true"]
    chosen = ["--train.select_on=dev", "--train.epochs=2", "--run.name=a"]
    code, told = call(finetune, *settings(place, *tracked, *chosen))
    assert code == 0, told
    client = client_of(f"sqlite:///{mlflow_root}/mlflow.db")
    (listed,) = [one for e in client.search_experiments() for one in client.search_runs([e.experiment_id])]
    found = client.get_run(listed.info.run_id)  # search_runs leaves the models out that a run has read
    note, tags, params = found.data.tags["mlflow.note.content"], found.data.tags, found.data.params
    assert note.startswith(
        f"**Fine-tuning** of {place}/begin (7.4k parameters) for classification on 56 items, 7 steps"
    )
    assert "**Finished**: the weights are those of step " in note
    assert "; selected on dev. To evaluate the model:" in note
    assert "workflows/evaluate.py --models" in note
    assert (tags["glm.phase"], tags["glm.status"], tags["glm.selected_on"]) == ("finetune", "finished", "dev")
    assert params["train.seed"] == "1234"
    assert [key for key in params if "storage" in key or "tracking" in key or "digest" in key] == []
    (data,) = found.inputs.dataset_inputs
    assert data.dataset.name == "classification-train"
    (used,), (made,) = found.inputs.model_inputs, found.outputs.model_outputs
    names = [client.get_logged_model(one.model_id).name for one in (used, made)]
    assert names == ["begin", "a"]
    model = client.get_logged_model(made.model_id)
    assert {metric.key for metric in model.metrics} == {"val/accuracy", "val/loss"}
    assert found.data.metrics["val/accuracy"] >= 0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_model_that_cannot_be_written_ends_with_5_and_the_next_call_writes_it(call, place, local_ray, monkeypatch):
    plain = ["--run.name=a", "--train.steps=2", "--train.select_on=none"]
    with monkeypatch.context() as full:
        full.setattr(GLM, "save_pretrained", full_disk)
        code, told = call(finetune, *settings(place, *plain))
    assert (code, "cannot write" in told, "No space left on device" in told) == (5, True, True), told
    code, told = call(finetune, *settings(place, *plain))
    assert code == 0, told
    assert (place / "runs" / "a" / "model" / "model.safetensors").exists()


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
