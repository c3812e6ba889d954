"""How much of an evaluation is the model: CPU seconds inside its forward, of all from the first item to the last.

    python benchmarks/evaluate.py --task blimp --data <file or folder> --tokenizer <file or folder>
                                  [--size mini] [--limit N] [--split dev] [--threads N] [--json FILE]

Random weights, which cost what trained ones cost. `model_share` is the CPU time of all threads in `GLM.hidden` and
`GLM.logits`, divided by that of the process from reading the first item to the finished items.parquet; loading the
model and the modules comes before, metrics after. Peak memory is that of the process.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from glm_model import GLM, Tokenizer, save_pretrained, sized
from infra.console import Console, ConsoleConfig
from pipelines.questions.config import TaskConfig
from workflows.evaluation import campaign
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.models import find_models
from workflows.evaluation.workers import Worker


class Watched:
    """A function whose CPU seconds, and calls, are counted."""

    seconds, calls = 0.0, 0

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        began = time.process_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            Watched.seconds += time.process_time() - began
            Watched.calls += 1


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokenizer = Tokenizer.load(options.tokenizer)
    rows = -(-tokenizer.vocab_size // 128) * 128
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(GLM(sized(options.size, vocab_size=rows)), f"{folder}/random", tokenizer)
        settings = EvaluateConfig(split=options.split, limit=options.limit, to=f"{folder}/out")
        (model,) = find_models([f"{folder}/random"])
        Worker(model)  # what torch loads at the first use is no part of it
        for name in ("hidden", "logits"):
            watched = Watched(getattr(GLM, name))
            setattr(GLM, name, lambda *args, watched=watched, **kwargs: watched(*args, **kwargs))
        task = TaskConfig(name=options.task, data=options.data)
        began, cpu = time.perf_counter(), time.process_time()
        (one,) = campaign.run(settings, [task], [model], Console(ConsoleConfig(quiet=True)))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = {
        "model_share": Watched.seconds / cpu,
        "items": len(one.items),
        "cpu_s": cpu,
        "wall_s": wall,
        "calls": Watched.calls,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
    }
    for name, value in found.items():
        print(f"{name:12} {value:,.3f}" if isinstance(value, float) else f"{name:12} {value:,}")
    if options.json:
        Path(options.json).write_text(json.dumps(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="blimp")
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
