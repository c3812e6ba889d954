"""Our scores checked from outside: lm-evaluation-harness asks the same model the same items, and chooses the same.

    python benchmarks/outside_check.py --model runs/<run> --hellaswag FILE --piqa FILE --blimp FILE --work FOLDER
        [--items 300] [--tasks hellaswag,piqa,blimp] [--json FILE]

So many items of each task, drawn with a fixed seed, are written to a file that both read. `evaluate.py` asks them in
its way; the harness asks them by its own templates, through `workflows/evaluation/harness.py`, and judges what it
hears. Choices and log-probabilities are compared item by item. Needs the extra `eval`.
"""

import argparse
import json
import os
import platform
from pathlib import Path

import numpy as np
from evaluate_peer import write_items
from task_peers import TASKS, local_task  # before lm_eval is loaded: it says where its caches go


def main() -> None:
    options = _options()
    values: dict[str, float] = {}
    for task in options.tasks.split(","):
        file = write_items(task, getattr(options, task), options.items, Path(options.work).resolve() / task)
        mine, accuracy = ours(task, file, options)
        theirs, their_accuracy = harness(task, file, options.model)
        same = [int(np.argmax(one)) == int(np.argmax(other)) for one, other in zip(mine, theirs, strict=True)]
        apart = max(max(map(abs, np.subtract(one, other))) for one, other in zip(mine, theirs, strict=True))
        for number in np.flatnonzero(~np.array(same)).tolist():
            print(f"{task}, item {number}: ours {mine[number]}, the harness {theirs[number]}")
        found = {"items": len(mine), "same": sum(same), "accuracy": accuracy, "harness": their_accuracy, "apart": apart}
        print(f"{task}: " + ", ".join(f"{name} {value:,.6g}" for name, value in found.items()), flush=True)
        values |= {f"{task}_{name}": value for name, value in found.items()}
    if options.json:
        report = {"name": "outside_check", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": {}}, indent=2))


def ours(task: str, file: Path, options: argparse.Namespace) -> tuple[list[list[float]], float]:
    """(log p of each candidate of each item, in the order of the file; accuracy). Items that the model cannot be asked,
    as a candidate is longer than it, leave the file.
    """
    from infra.console import Console, ConsoleConfig
    from infra.storage import parquet
    from pipelines.questions.config import TaskConfig
    from workflows.evaluation.ask_models import ask_models
    from workflows.evaluation.config import EvaluateConfig
    from workflows.evaluation.models import find_models
    from workflows.evaluation.results import results_of

    asked = EvaluateConfig(models=[options.model], to=f"{options.work}/answers", without_context=False)
    config = TaskConfig(name=task, data=str(file.parent))
    quiet = Console(ConsoleConfig(quiet=True))
    (one,) = ask_models(asked, [config], find_models(asked.models), quiet)
    table = parquet.read_table(one.items_url)
    by_id = dict(zip(table["item"].to_pylist(), table["logprobs"].to_pylist(), strict=True))
    lines = file.read_text().splitlines(keepends=True)
    found = [by_id.get(_id_of(task, number, json.loads(line))) for number, line in enumerate(lines, start=1)]
    file.write_text("".join(line for line, asked in zip(lines, found, strict=True) if asked))
    return [one for one in found if one], {result.metric: result.value for result in results_of(one)}["accuracy"]


def harness(task: str, file: Path, model: str) -> tuple[list[list[float]], float]:
    """As `ours`, of what the harness hears."""
    from lm_eval.evaluator import evaluate

    from workflows.evaluation.harness import HarnessModel

    found = evaluate(HarnessModel(model), {"tasks": {task: local_task(task, str(file))}}, bootstrap_iters=0)
    assert found is not None
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    logprobs = [[logprob for logprob, _ in sample["filtered_resps"]] for sample in samples]
    return logprobs, 100 * found["results"][task]["acc,none"]


def _id_of(task: str, line: int, row: dict) -> str:
    if task == "piqa":
        return str(line)
    return str(row["ind"]) if task == "hellaswag" else f"{row['UID']}/{row['pairID']}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a run, a model folder or a checkpoint")
    parser.add_argument("--hellaswag", help="hellaswag_val.jsonl, or text of six lines an item")
    parser.add_argument("--piqa", help="valid.jsonl, with valid-labels.lst beside it")
    parser.add_argument("--blimp", help="BLiMP's pairs as JSON lines")
    parser.add_argument("--work", required=True, help="folder for items and answers")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if missing := [task for task in options.tasks.split(",") if not getattr(options, task, None)]:
        parser.error(f"--{missing[0]} is needed: the file of its items")
    os.makedirs(options.work, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
