"""finetune.py and evaluate.py on a task that generates: it learns to write, and keeps the limits of its recipe."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small import WORDS

from glm_model import GLM, GLMConfig, save_pretrained
from infra import config
from infra.console import Console, ConsoleConfig
from infra.storage import parquet
from workflows import evaluate, finetune
from workflows.finetuning.final_model import task_record, weights_text
from workflows.finetuning.setup import FinetuneSetup, describe_finetune, resolve_finetune
from workflows.settings.finetune import FinetuneRecipe

PAIRS = 32


@pytest.fixture
def place(tmp_path, tiny_tokenizer) -> Path:
    torch.manual_seed(0)
    shape = GLMConfig(layers=2, width=64, heads=4, vocab_size=128, positions=64, dropout=0.0, attention_dropout=0.0)
    save_pretrained(GLM(shape), str(tmp_path / "begin"), tokenizer=tiny_tokenizer)
    rng = np.random.default_rng(3)
    for split in ("train", "val"):
        pairs = [[" ".join(rng.choice(WORDS[:9], size)) for size in (7, 2 + n % 5)] for n in range(PAIRS)]
        for side, name in enumerate(("source", "target")):
            (tmp_path / f"{split}.{name}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
    return tmp_path


def settings(place: Path, *more: str) -> list[str]:
    task = ["--task.name=seq2seq", f"--task.data={place}"]
    kept = [f"--run.storage_path={place}/runs", "--run.name=a", "--tracking.enabled=false"]
    return [*task, f"--model.init_from={place}/begin", *kept, *more]


def resolved(*flags: str) -> FinetuneSetup:
    recipe = config.parse(FinetuneRecipe, description="", argv=list(flags)).config
    return resolve_finetune(recipe, Console(ConsoleConfig(quiet=True)))


def test_what_is_written_is_selected_by_its_loss(place):
    setup = resolved(*settings(place, "--train.select_on=dev", "--task.generation.max_tokens=4"))
    assert setup.metrics == ("loss",)
    assert ("selected on", "dev, by loss") in describe_finetune(setup)
    assert weights_text(setup, {"step": 7, "validated": {"val/loss": 1.25}}) == (
        "those of step 7, loss 1.250; selected on dev"
    )
    assert sum(sum(one.target_cut) for one in setup.selection.train) == sum(max(0, 2 + n % 5 - 4) for n in range(PAIRS))
    taught = task_record(setup)
    assert taught["kind"] == "generate"
    assert taught["settings"]["generation"]["max_tokens"] == 4


def test_settings_of_generation_are_those_of_another_run_and_their_defaults_of_none(place):
    begin = resolved(*settings(place))
    assert not [key for key in begin.settings if key.startswith(("task.generation", "task.source", "task.blanks"))]
    other = resolved(*settings(place, "--task.generation.max_tokens=4"))
    assert other.settings["task.generation.max_tokens"] == "4"
    assert other.identity != begin.identity


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--task.target=summary"], 3, "none of them with a target"),
        (["--task.source=text"], 3, "32 of 32 rows of the split 'train' of seq2seq cannot be asked"),
        (["--task.metrics=[accuracy]"], 2, "accuracy is for choices, and this task generates texts"),
        (["--task.head=true"], 2, "a classification head needs labels"),
        (["--task.generation.max_tokens=64"], 2, "max_tokens=64 is more than the 63 tokens"),
    ],
)
def test_mistakes_are_told_in_a_line(call, place, more, code, message):
    found, told = call(finetune, *settings(place, *more), "--plan")
    assert (found, message in told) == (code, True), told


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_32_examples_are_learned_by_heart(call, place, local_ray):
    train = ["--train.steps=400", "--train.batch=32", "--train.micro=32", "--optim.lr=0.003", "--train.select_on=none"]
    limits = ["--task.generation.max_tokens=8", "--task.generation.beams=2"]
    code, told = call(finetune, *settings(place, *train, *limits, "--model.dropout=0"))
    assert code == 0, told
    asked = ["--models", f"{place}/runs/a", "--task.name=seq2seq", f"--task.data={place}", f"--to={place}/scores"]
    asked.append("--tracking.enabled=false")
    code, told = call(evaluate, *asked, "--split=train")
    assert code == 0, told
    found = {one["metric"]: one for one in json.loads((place / "scores" / "scores.json").read_text())["scores"]}
    assert found["rougeLsum"]["value"] > 95
    assert found["sacrebleu"]["variant"].startswith("nrefs:1|case:mixed")
    assert found["rougeLsum"]["one_answer"]["copy"] < 60
    (kept,) = (place / "scores").glob("*/*/settings.json")
    assert json.loads(kept.read_text())["generation"]["beams"] == 2  # as it was taught
    blanks = [row["blanks"][0] for row in parquet.read_table(str(kept.parent / "items.parquet")).to_pylist()]
    assert all(blank["ended"] for blank in blanks)
