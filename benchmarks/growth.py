"""What a model knows while it grows: BLiMP, LAMBADA's last word and bits per byte over the tokens of one run.

    python benchmarks/growth.py --run runs/<name> [--blimp FILE --lambada FILE --to FOLDER [--limit N]]
        [--plot FILE.svg] [--json FILE]

Of a run that asked its model these tasks (--train.eval_tasks) its own log is shown, and how long a validation takes
beside the tasks: wall seconds in this process, of the last weights. With --blimp and --lambada `evaluate.py` asks every
checkpoint that the run keeps (--train.keep_at_tokens) instead, and intervals over items are shown. Models of millions
of parameters write hardly one of LAMBADA's words: its bits tell them apart. Bits per byte are those of the run's own
validation. Beside BLiMP stands a unigram model of the run's training split (each count raised by one), which knows
nothing of order: where a pair's sentences are of the same words it is undecided, which counts as wrong, as in the task.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import Row
from pipelines.questions.splits import find_splits, split_rows
from pipelines.questions.task import Item, Task
from workflows.runs.history import Past, open_past, read_log

ROOT = Path(__file__).resolve().parents[1]
BITS, BLIMP, WORD, RIGHT = "val/bits_per_byte", "eval/blimp/accuracy", "eval/lambada/bits", "eval/lambada/accuracy"
TITLES = {
    BITS: "bits per byte of held-out text",
    BLIMP: "BLiMP, % of pairs",
    WORD: "LAMBADA, bits of the last word",
}
Curve = list[tuple[int, dict[str, float]]]
"""(tokens, metric -> value) in their order."""


def main() -> None:
    options = _options()
    logged: dict[int, dict[str, float]] = {}
    for point in read_log(options.run):
        logged.setdefault(point.step, {}).update(point.values)
    if options.blimp:
        asked = asked_of_checkpoints(options)
        steps = {step: logged[step] | values for step, values in asked.items()}
    else:
        steps = {step: values for step, values in logged.items() if BLIMP in values or WORD in values}
    if not steps:
        sys.exit(f"error: {options.run} asked its model no task\n  try: --blimp and --lambada")
    curve = [(int(values["data/tokens"]), values) for _, values in sorted(steps.items())]
    for tokens, values in curve:
        print(f"{tokens:14,}  " + "  ".join(shown(name, values) for name in (*TITLES, RIGHT) if name in values))
    values = {"unigram": unigram(open_past(options.run), options.blimp)} if options.blimp else timed(options.run)
    for name, value in values.items():
        print(f"{name} {value:.2f}")
    if options.plot:
        draw(curve, options.plot)
    if options.json:
        report = {"name": "growth", "machine": platform.processor() or platform.machine(), "curve": curve}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": {}}, indent=2))


def asked_of_checkpoints(options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Step -> metrics of the tasks, for each checkpoint that the run keeps."""
    found: dict[int, dict[str, float]] = {}
    for task, data, split in (("blimp", options.blimp, "dev"), ("lambada", options.lambada, options.lambada_split)):
        to = Path(options.to).resolve() / task
        limit = [f"--limit={options.limit}"] if options.limit else []
        words = [f"--task.name={task}", f"--task.data={data}", f"--split={split}", f"--to={to}", *limit]
        command = [sys.executable, str(ROOT / "workflows" / "evaluate.py"), "--models", f"{options.run}@*"]
        more = ["--tracking.enabled=false", "--contamination=off"]
        if failed := subprocess.run([*command, *words, *more], check=False).returncode:
            sys.exit(failed)
        for score in json.loads((to / "scores.json").read_text())["scores"]:
            name = f"eval/{task}/{score['metric']}"
            parts = {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}
            found.setdefault(score["step"], {}).update(parts)
    return found


def shown(name: str, values: dict[str, float]) -> str:
    """A metric, with its interval where that is known."""
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    return f"{name} {values[name]:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


def unigram(past: Past, pairs: str) -> float:
    """The share of pairs, in percent, whose good sentence has the larger product of token frequencies."""
    tokenizer, split = past.setup.tokenizer, past.setup.store.train
    counts = np.ones(tokenizer.vocab_size)
    for group in range(len(split.group_rows)):
        counts += np.bincount(split.read_group(group).tokens, minlength=tokenizer.vocab_size)
    logprob = np.log(counts / counts.sum())
    config = TaskConfig(name="blimp", data=pairs)
    task = tasks.define(config, list)
    sides = [[logprob[tokenizer.encode(text)].sum() for text in item.candidates] for item in _items(task, config)]
    return 100 * float(np.mean([good > bad and not np.isclose(good, bad) for good, bad in sides]))


def _items(task: Task, config: TaskConfig) -> list[Item]:
    splits = find_splits(config.data or "", config.splits, {"all": 1.0})
    rows = split_rows(splits, next(iter(splits)))
    return [item for row, item in task.items(rows) if isinstance(row, Row) and isinstance(item, Item)]


def timed(run: str) -> dict[str, float]:
    """Seconds of a validation of a run's last weights, and of the tasks that are asked beside it."""
    import torch

    from infra import checkpoint
    from infra.tracking import NOT_TRACKED
    from workflows.runs.launch import job_of
    from workflows.runs.record import read_record
    from workflows.runs.run import Run
    from workflows.training.engine import Place
    from workflows.training.pretraining import Pretraining
    from workflows.training.ranks import Ranks

    past = open_past(run)
    job = job_of(past.setup, Run(past.url, read_record(past.url)), NOT_TRACKED, link=None)
    last = checkpoint.latest(job.checkpoints_url)
    assert isinstance(job.kind, Pretraining)
    assert last is not None, f"{run} has no checkpoint"
    loaded, seconds = checkpoint.load(last.url), {}
    place = Place(Ranks(0, 1, torch.device("cpu")), loaded.state["precision"], True, lambda: None)
    for name, kind in (("validation_s", replace(job.kind, asked=())), ("validation_and_tasks_s", job.kind)):
        training = kind.begin(place)
        training.model.load_state_dict(loaded.model)
        assert training.validate is not None
        training.validate()
        began = time.perf_counter()
        training.validate()
        seconds[name] = time.perf_counter() - began
    return seconds


def draw(curve: Curve, path: str) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        points = [(tokens / 1e6, values[name]) for tokens, values in curve if name in values]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3)
        axes.set(xlabel="M tokens", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[1].axhline(50, color="grey", linestyle=":", label="chance")
    figure.axes[1].legend(frameon=False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "growth"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--blimp", help="BLiMP's pairs as JSON lines")
    parser.add_argument("--lambada", help="LAMBADA's passages as JSON lines")
    parser.add_argument("--lambada-split", default="test", help="the split that its file is, by its name")
    parser.add_argument("--to", help="folder for the answers")
    parser.add_argument("--limit", type=int, help="ask so many items of each task")
    parser.add_argument("--plot", help="draw the curves into this SVG file")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if any((options.blimp, options.lambada, options.to)) and not all((options.blimp, options.lambada, options.to)):
        parser.error("--blimp, --lambada and --to belong together")
    return options


if __name__ == "__main__":
    main()
