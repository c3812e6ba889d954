"""BLiMP over the checkpoints of one run, beside a unigram model of the same corpus.

    python benchmarks/blimp.py --run runs/<name> --pairs blimp.jsonl --to FOLDER [--limit N] [--plot FILE.svg]
        [--json FILE]

`evaluate.py` asks every checkpoint that the run keeps (--train.keep_checkpoints) for all pairs: which sentence is the
likelier, read from left to right. The unigram model knows how often each token stands in the run's training split (with
one added to each count), and nothing of order: where a pair's sentences are of the same words it is undecided, which
counts as wrong, as in the task. Tokens are those that a checkpoint had been trained on; bits per byte are those
of the run's own validation.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import Row
from pipelines.questions.splits import find_splits, split_rows
from pipelines.questions.task import Item, Task
from workflows.runs.history import Past, open_past, read_log

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    options = _options()
    to = Path(options.to).resolve()
    arguments = ["--task.name=blimp", f"--task.data={options.pairs}", f"--to={to}", "--tracking.enabled=false"]
    limit = [f"--limit={options.limit}"] if options.limit else []
    command = [sys.executable, str(ROOT / "workflows" / "evaluate.py"), "--models", f"{options.run}@*"]
    if failed := subprocess.run([*command, *arguments, *limit], check=False).returncode:
        sys.exit(failed)
    scores = json.loads((to / "scores.json").read_text())["scores"]
    found = sorted(((score["step"], score) for score in scores), key=lambda pair: pair[0])
    past = open_past(options.run)
    unigram = _unigram(past, options.pairs)
    logged: dict[int, dict[str, float]] = {}
    for point in read_log(past.url):
        logged.setdefault(point.step, {}).update(point.values)
    curve = [
        {
            "step": step,
            "tokens": logged[step]["data/tokens"],
            "accuracy": score["value"],
            "low": score["low"],
            "high": score["high"],
            "bits_per_byte": logged[step]["val/bits_per_byte"],
        }
        for step, score in found
    ]
    for point in curve:
        print("  ".join(f"{name} {value:,.4g}" for name, value in point.items()))
    print(f"unigram {unigram:.1f} of all pairs")
    if options.plot:
        _draw(curve, unigram, options.plot)
    if options.json:
        report = {"name": "blimp", "machine": platform.processor() or platform.machine(), "curve": curve}
        values = {"unigram": unigram, "accuracy": curve[-1]["accuracy"], "pairs": found[-1][1]["n"]}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": {}}, indent=2))


def _unigram(past: Past, pairs: str) -> float:
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


def _draw(curve: list[dict[str, float]], unigram: float, path: str) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens = [point["tokens"] / 1e6 for point in curve]
    left.plot(tokens, [point["accuracy"] for point in curve], marker="o", markersize=3, label="GLM")
    left.fill_between(tokens, [p["low"] for p in curve], [p["high"] for p in curve], alpha=0.2)
    left.axhline(unigram, color="C1", label="unigram")
    left.axhline(50, color="grey", linestyle=":", label="chance")
    left.legend(frameon=False)
    right.plot(tokens, [point["bits_per_byte"] for point in curve], marker="o", markersize=3)
    left.set(xlabel="M tokens", title="BLiMP, % of pairs")
    right.set(xlabel="M tokens", title="bits per byte of held-out text")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "blimp"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run with its checkpoints")
    parser.add_argument("--pairs", required=True, help="BLiMP's pairs as JSON lines")
    parser.add_argument("--to", required=True, help="folder for the answers")
    parser.add_argument("--limit", type=int, help="ask the first pairs alone")
    parser.add_argument("--plot", help="draw the curve into this SVG file")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
