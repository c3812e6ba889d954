"""What one model scores on every task: zero-shot, and fine-tuned with several seeds where there is a train split.

    python benchmarks/task_scores.py --model runs/<run> --to FOLDER [--data ../shared/data] [--seeds 1 2 3]
        [--tasks rte cb ...] [--items 4000] [--markdown] [--json FILE]

The fine-tunings of a task are a campaign over seeds in FOLDER/runs, and what is asked zero-shot one evaluation, so the
same command continues. One rate, 3 epochs (20 where fewer than 1,000 items train) and at most --items items for all;
nothing is chosen on the reported split, which is dev, or test where that alone has labels. Seconds are those of
answering all items once. The score is the task's first metric, BLiMP's and multiple choice's beside chance.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from task_splits import Split, splits_of

from pipelines.metrics.known import shown

ROOT = Path(__file__).resolve().parents[1]
_RATE = "3e-4"
_FEW = 1000
_EPOCHS, _EPOCHS_OF_FEW = 3, 20
Scores = dict[str, Any]
"""A part of an evaluation's scores.json."""


@dataclass(frozen=True)
class Line:
    """What is known of a task."""

    name: str
    split: str
    zero_shot: Scores
    tuned: Scores | None
    """Over seeds."""
    seconds: float


def main() -> None:
    options = _options()
    to, data = Path(options.to).resolve(), Path(options.data).resolve()
    places: dict[tuple[str, str], list[Split]] = {}
    for one in splits_of(data):
        places.setdefault((one.task, one.place), []).append(one)
    lines = []
    for (task, place), splits in places.items():
        if options.tasks and task not in options.tasks:
            continue
        name = place.split(".")[0].replace("/", "-")  # FewGLUE's folders are called like SuperGLUE's
        print(f"# {name}", flush=True)
        reported = "dev" if any(one.split in ("dev", "all") for one in splits) else "test"
        asked = [*_recipe(task), f"--task.data={data / place}"]
        zero_shot = _evaluate(options.model, [*asked, f"--split={reported}"], to / f"zero-shot-{name}")
        lines.append(Line(name, reported, zero_shot, _tuned(options, name, asked, splits, to), _seconds(zero_shot)))
        print(_shown(lines[-1]), flush=True)
    if options.markdown:
        print("| task | split | n | metric | one answer | bag of words | zero-shot | fine-tuned | time |")
        print("|---|---|---|---|---|---|---|---|---|")
        print("\n".join(map(_shown, lines)))
    if options.json:
        values = {f"{one.name}_zero_shot": _first(one.zero_shot)["value"] for one in lines}
        values |= {f"{one.name}_tuned": one.tuned["mean"] for one in lines if one.tuned}
        report = {"name": "task_scores", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": {}}, indent=2))


def _tuned(options: argparse.Namespace, name: str, asked: list[str], splits: list[Split], to: Path) -> Scores | None:
    """The first metric over seeds, of models that were fine-tuned on the task; None where it cannot be learned."""
    trains = next((one.trains for one in splits if one.split == "train"), 0)
    if not trains:
        return None
    epochs = _EPOCHS_OF_FEW if trains < _FEW else _EPOCHS
    fixed = [f"--model.init_from={options.model}", f"--optim.lr={_RATE}", f"--train.epochs={epochs}"]
    limit = [f"--train.items={options.items}"] if trains > options.items else []
    place = [f"--run.name={name}", f"--run.storage_path={to / 'runs'}", f"--campaign.seeds={options.seeds}"]
    _command("finetune.py", [*asked, *fixed, *limit, *place])
    with open(to / "runs" / name / "means.csv", newline="") as means:
        first = next(csv.DictReader(means))
    return {key: float(first[key]) if first[key] else None for key in ("mean", "sd", "low", "high")}


def _evaluate(model: str, asked: list[str], to: Path) -> Scores:
    more = [f"--to={to}", "--contamination=off", "--without_context=false"]
    _command("evaluate.py", [f"--models={json.dumps([model])}", *asked, *more])
    return json.loads((to / "scores.json").read_text())


def _command(script: str, arguments: list[str]) -> None:
    """Run a script of this tree; ends the program where it fails."""
    words = [sys.executable, str(ROOT / "workflows" / script), *arguments, "--tracking.enabled=false"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


def _recipe(task: str) -> list[str]:
    if task.endswith(".yaml"):
        return [f"--config={ROOT}/workflows/recipes/tasks/{task}"]
    return [f"--task.name={task}"]


def _first(found: Scores) -> Scores:
    """The score by the first metric."""
    return found["scores"][0]


def _seconds(found: Scores) -> float:
    return sum(one["seconds"] for one in found["items"])


def _shown(line: Line) -> str:
    first = _first(line.zero_shot)
    alike = max(first["one_answer"].values(), default=None) if first["one_answer"] else first["majority"]
    told = partial(shown, first["metric"])
    zero_shot = f"{told(first['value'])}{_interval(first, told)}"
    tuned = ""
    if one := line.tuned:
        spread = "" if one["sd"] is None else f" ± {told(one['sd'])}"
        tuned = f"{told(one['mean'])}{spread}{_interval(one, told)}"
    cells = [f"`{line.name}`", line.split, f"{first['n']:,}", first["metric"], _number(alike)]
    cells += [_number(first["bag_of_words"]), zero_shot, tuned, f"{line.seconds:.0f} s"]
    return f"| {' | '.join(cells)} |"


def _interval(found: Scores, told: Callable[[float], str]) -> str:
    """Nothing where items of a single group have none."""
    return "" if found["low"] is None else f" ({told(found['low'])} to {told(found['high'])})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a pretrained run or model folder")
    parser.add_argument("--to", required=True, help="folder for runs and evaluations")
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--tasks", nargs="+", help="some of the tasks and recipes alone, such as rte sst2.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--items", type=int, default=4000, help="at most so many items train")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/benchmarks.md")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
