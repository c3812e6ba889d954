"""How much of an evaluation is the model, and how much memory it takes.

    python benchmarks/evaluate.py --task blimp --data <file or folder> --tokenizer <file or folder>
                                  [--size mini] [--limit N] [--split dev] [--threads N] [--profile] [--json FILE]

Runs the command `evaluate.py` in this process, with random weights, which cost what trained ones cost. `model_share` is
the CPU time of all threads in `GLM.hidden` and `GLM.logits`, divided by that of the process from reading the first item
to the finished items.parquet, without loading the model and its tokenizer. `peak_mib` is the process's highest memory,
with all that the command does: metrics, the bag of words, the page and MLflow. --profile: also what takes CPU time
outside the model.
"""

import argparse
import cProfile
import json
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from glm_model import GLM, Tokenizer, save_pretrained, sized
from infra.errors import run_main
from workflows import evaluate
from workflows.evaluation import ask_models
from workflows.evaluation.workers import Worker


class Watched:
    """A function whose CPU seconds, wall seconds and calls are counted."""

    def __init__(self, owner: Any, name: str) -> None:
        self.function: Callable[..., Any] = getattr(owner, name)
        self.cpu, self.wall, self.calls = 0.0, 0.0, 0
        setattr(owner, name, lambda *args, **kwargs: self(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.cpu += time.process_time() - cpu
            self.wall += time.perf_counter() - wall
            self.calls += 1


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokenizer = Tokenizer.load(options.tokenizer)
    rows = -(-tokenizer.vocab_size // 128) * 128
    profile = cProfile.Profile(time.process_time)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(GLM(sized(options.size, vocab_size=rows)), f"{folder}/random", tokenizer)
        hidden, logits = Watched(GLM, "hidden"), Watched(GLM, "logits")
        loads, run = (Watched(Worker, "__init__"), Watched(Tokenizer, "load")), Watched(ask_models, "ask_models")
        pa.array([])  # for which pyarrow loads pandas: what is loaded at its first use is no part of it
        if options.profile:
            run.function = _profiled(run.function, profile)
        _evaluate(options, folder)
        (counts,) = json.loads(Path(folder, "out", "scores.json").read_text())["items"]
    cpu = run.cpu - sum(load.cpu for load in loads)
    found = {
        "model_share": (hidden.cpu + logits.cpu) / cpu,
        "items": counts["items"],
        "cpu_s": cpu,
        "wall_s": run.wall - sum(load.wall for load in loads),
        "calls": hidden.calls + logits.calls,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
    }
    for name, value in found.items():
        print(f"{name:12} {value:,.3f}" if isinstance(value, float) else f"{name:12} {value:,}")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    if options.json:
        Path(options.json).write_text(json.dumps(found))


def _evaluate(options: argparse.Namespace, folder: str) -> None:
    limit = [f"--limit={options.limit}"] if options.limit else []
    own = [f"--task.{setting}" for setting in options.setting]
    sys.argv = [
        *("evaluate.py", "--models", f"{folder}/random", f"--task.name={options.task}", f"--task.data={options.data}"),
        *(f"--split={options.split}", f"--to={folder}/out", "--console.quiet=true", *limit, *own),
        f"--tracking.uri=sqlite:///{folder}/mlflow.db",
    ]
    try:
        run_main(evaluate.main)
    except SystemExit as stopped:
        if stopped.code:
            raise


def _profiled(function: Callable[..., Any], profile: cProfile.Profile) -> Callable[..., Any]:
    return lambda *args, **kwargs: profile.runcall(function, *args, **kwargs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="blimp")
    parser.add_argument("--setting", action="append", default=[], help="of the task, such as text=body")
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
