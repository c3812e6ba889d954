"""How much of a prediction is the model, and how much memory it takes.

    python benchmarks/predict.py [--rows 100000] [--tokens 64] [--size mini] [--kind classify] [--threads N] [--profile]
                                 [--json FILE]

Runs the command `predict.py` in a process of its own, on a Parquet file of rows of so many tokens, by a classifier with
random weights, which cost what trained ones cost. Of the other kinds, `choose` has two candidates of three tokens, and
`fill` writes 16 tokens.

`model_share` is the CPU time of all threads in `GLM.hidden` and `GLM.logits`, divided by that of the process from
reading the input to the manifest; `share_with_start` divides by all of its CPU time, with imports and the loading of
the model. `peak_mib` is the process's highest memory. --profile: also what takes CPU time outside the model.
"""

import argparse
import cProfile
import json
import platform
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _predictions
import torch

from glm_model import GLM, Tokenizer
from infra.errors import run_main
from workflows import predict
from workflows.evaluation.workers import Worker

_ASKED = {
    "classify": [],
    "choose": ["--kind=choose", "--pattern={text~} {mask}", "--candidates", "first", "second"],
    "score": ["--kind=score"],
    "fill": ["--kind=fill", "--pattern={text~} {mask}", "--decoding.max_tokens=16", "--decoding.min_tokens=16"],
    "embed": ["--kind=embed"],
}
"""Kind -> the arguments that ask for it."""


class Watched:
    """A function whose CPU seconds and calls are counted."""

    def __init__(self, owner: Any, name: str) -> None:
        self.function: Callable[..., Any] = getattr(owner, name)
        self.cpu, self.calls = 0.0, 0
        setattr(owner, name, lambda *args, **kwargs: self(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.cpu += time.process_time() - began
            self.calls += 1


def main() -> None:
    options = _options()
    if options.folder:
        _measure(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        _predictions.make(Path(folder), rows=options.rows, tokens=options.tokens, size=options.size)
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--folder", folder], check=True)


def _measure(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    hidden, logits = Watched(GLM, "hidden"), Watched(GLM, "logits")
    loads, command = (Watched(Worker, "__init__"), Watched(Tokenizer, "load")), Watched(predict, "main")
    profile = cProfile.Profile(time.process_time)
    if options.profile:
        command.function = _profiled(command.function, profile)
    places = [f"--model={options.folder}/model", f"--input={options.folder}/in.parquet", f"--to={options.folder}/out"]
    sys.argv = ["predict.py", *places, *_ASKED[options.kind]]
    try:
        run_main(predict.main)
    except SystemExit as stopped:
        if stopped.code:
            raise
    forward, cpu = hidden.cpu + logits.cpu, command.cpu - sum(load.cpu for load in loads)
    values = {
        "model_share": forward / cpu,
        "share_with_start": forward / time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": options.rows,
        "cpu_s": cpu,
        "cpu_ms_a_row": 1000 * cpu / options.rows,
        "calls": hidden.calls + logits.calls,
        "threads": torch.get_num_threads(),
    }
    for name, value in values.items():
        print(f"{name:16} {value:,.3f}" if isinstance(value, float) else f"{name:16} {value:,}")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    if options.json:
        report = {"name": "predict", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps({**report, "values": values, "ratios": {}}, indent=2))


def _profiled(function: Callable[..., Any], profile: cProfile.Profile) -> Callable[..., Any]:
    return lambda *args, **kwargs: profile.runcall(function, *args, **kwargs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=64, help="of each row")
    parser.add_argument("--size", default="mini")
    parser.add_argument("--kind", choices=[*_ASKED], default="classify")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--folder", help=argparse.SUPPRESS)  # of the process that is measured
    parser.add_argument("--json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
