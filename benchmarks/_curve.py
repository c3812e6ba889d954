"""One training as a curve: CPU-seconds and bits per byte of held-out text as it goes on. Started by time_to_quality.py.

    python benchmarks/_curve.py CELL.json

It runs in a process of a tree, this one or an earlier revision, and trains as that tree's workers do: one worker, one
thread, without Ray. CPU-seconds are those of the steps, feed included; evaluations and checkpoints are left out. The
points go to `curve.jsonl` in the cell's folder, beside checkpoints: a cell that was stopped goes on from the last one.
"""

import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # as the workers have it

import torch
from safetensors.torch import load_file

EVALUATIONS = 50  # every 2 % of a run


def main() -> None:
    torch.set_num_threads(1)
    file = Path(sys.argv[1])
    cell, folder = json.loads(file.read_text()), file.parent
    sys.argv = [sys.argv[0], *cell["arguments"], f"--run.storage_path={folder}", "--train.hang_s=0"]
    worker, steps = begin(cell["store"])
    texts = {name: load_text(Path(path)) for name, path in cell["texts"].items()}
    points = [point for point in read_points(folder) if point["step"] <= worker.step]
    if worker.step == 0:
        parameters = sum(p.numel() for p in step_of(worker).model.parameters())
        points = [{"step": 0, "steps": steps, "parameters": parameters, "cpu_s": 0.0, "tokens": 0}]
    write_points(folder, points)
    due = {round(steps * part / EVALUATIONS) for part in range(1, EVALUATIONS + 1)}
    tokens, took_s, began_at = points[-1]["tokens"], points[-1]["cpu_s"], time.process_time()
    for item in worker.steps():
        worker.advance(item)
        tokens += sum(micro_batch.tokens for _, micro_batch in item.micro_batches)
        if worker.step in due:
            took_s += time.process_time() - began_at
            looks = [name for name, begin in cell["looks_from"].items() if worker.step >= begin * steps]
            bits = {name: bits_per_byte(step_of(worker), *texts[name]) for name in looks}
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            points.append({"step": worker.step, "cpu_s": took_s, "tokens": tokens, "peak_mib": peak_mib, **bits})
            write_points(folder, points)  # first: points behind the checkpoint are left out by whoever goes on
            worker.save()
            worker.checkpoints.wait()
            began_at = time.process_time()


def begin(store: str) -> tuple[Any, int]:
    """(worker, steps of its run) of the recipe on the command line; from the last checkpoint, or from the start."""
    try:
        from workflows.training.worker import Worker
    except ImportError:
        return _begin_before_folders(store)
    from infra.console import Console, ConsoleConfig
    from infra.tracking import NOT_TRACKED
    from pipelines.store.format import TokenStore
    from workflows.runs.launch import job_of
    from workflows.runs.run import Run
    from workflows.runs.setup import resolve_setup
    from workflows.settings.command_line import read_recipe
    from workflows.settings.recipe import Recipe
    from workflows.training.ranks import Ranks

    recipe = read_recipe(Recipe, description="", common=()).config
    setup = resolve_setup(recipe, TokenStore.open(store), Console(ConsoleConfig(quiet=True)))
    job = job_of(setup, Run.of(recipe, "run"), NOT_TRACKED, link=None)
    return Worker(job, Ranks(0, 1, torch.device("cpu"))), job.steps


def _begin_before_folders(store: str) -> tuple[Any, int]:
    """The same for revisions before modules moved into folders by what they make."""
    from pipelines.vocabulary import Vocabulary
    from workflows.budget import make_budget, model_config
    from workflows.ranks import Ranks
    from workflows.recipe import Recipe
    from workflows.worker import Worker

    from glm_model import Tokenizer
    from infra import config
    from infra.tracking import NOT_TRACKED
    from pipelines.store import TokenStore
    from workflows import runs

    recipe, _ = config.parse(Recipe, description="")
    opened, tokenizer = TokenStore.open(store), Tokenizer.load(store)
    shape = model_config(recipe, opened, tokenizer)
    budget = make_budget(recipe, opened, shape, Vocabulary.of(tokenizer))
    run = runs.Run.of(recipe, "run")
    job = runs.worker_job(recipe, run, opened, budget, shape.to_dict(), NOT_TRACKED, link_name="")
    return Worker(job, Ranks(0, 1, torch.device("cpu"))), budget.steps


def step_of(worker: Any) -> Any:
    """The worker's module from a batch to summed losses."""
    return worker.training.step if hasattr(worker, "training") else worker.train_step


def load_text(path: Path) -> tuple[list[dict[str, torch.Tensor]], float, float]:
    """(micro-batches of a row, bytes, unknown bytes) of a held-out text."""
    rows = load_file(path)
    num_bytes, unknown = rows.pop("bytes").tolist()
    count = len(rows["tokens"])
    return [{name: array[i : i + 1].long() for name, array in rows.items()} for i in range(count)], num_bytes, unknown


@torch.no_grad()
def bits_per_byte(step: Any, batches: list[dict[str, torch.Tensor]], num_bytes: float, unknown: float) -> float:
    """Bits per byte of a text that is read from left to right; 8 for each byte that the tokenizer lacks."""
    step.eval()
    nats = sum(float(step(batch)[0].sum()) for batch in batches)
    step.train()
    return (nats / math.log(2) + 8 * unknown) / num_bytes


def read_points(folder: Path) -> list[dict[str, Any]]:
    """The points of a curve so far: its start and each evaluation."""
    file = folder / "curve.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write_points(folder: Path, points: list[dict[str, Any]]) -> None:
    new = folder / "curve.new"
    new.write_text("".join(json.dumps(point) + "\n" for point in points))
    new.replace(folder / "curve.jsonl")


if __name__ == "__main__":
    main()
    os._exit(0)  # without waiting for the feed's thread
